//! The tasks that an agent cannot do without.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::agent::Agent;
use super::pulse::Notice;

/// How often the streams of service state are brought in line, changes aside.
const STEER_INTERVAL: Duration = Duration::from_millis(50);

/// How often a configuration that could not be carried out is tried again.
const MEND_INTERVAL: Duration = Duration::from_secs(1);

/// Starts them.
pub(super) fn start(agent: &Arc<Agent>, noticed: mpsc::Receiver<Notice>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(take_notices(Arc::clone(agent), noticed));
    tasks.spawn(steer(Arc::clone(agent)));
    tasks.spawn(mend(Arc::clone(agent)));
    tasks
}

/// Waits until one of them has ended, which none of them does by itself. With a task less the agent
/// would look alive and not follow its manager, its streams or its devices any more.
pub(super) async fn first_to_end(tasks: &mut JoinSet<()>) -> anyhow::Error {
    const TEXT: &str = "a task that the agent cannot do without has ended";
    match tasks.join_next().await {
        Some(Ok(())) => anyhow::Error::msg(TEXT),
        Some(Err(error)) => anyhow::Error::new(error).context(TEXT),
        None => std::future::pending().await,
    }
}

/// Goes on with the panic of a task, if `error` is one: that is nothing that the agent has decided, and
/// its supervisor starts the next one.
pub(super) fn unless_panicked(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<JoinError>() {
        Ok(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => ended.into(),
        },
        Err(error) => error,
    }
}

async fn take_notices(agent: Arc<Agent>, mut notices: mpsc::Receiver<Notice>) {
    while let Some(notice) = notices.recv().await {
        agent.noticed(notice);
    }
}

async fn steer(agent: Arc<Agent>) {
    let mut interval = tokio::time::interval(STEER_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = agent.changed.notified() => {}
        }
        agent.tell_function_all();
        agent.take_function_classes();
        agent
            .sync
            .steer(&agent.pulse.view().slots, &agent.mesh.connections());
    }
}

async fn mend(agent: Arc<Agent>) {
    let mut interval = tokio::time::interval(MEND_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            fault = agent.blocks.trouble() => agent.set_setup_fault(Some(fault)),
        }
        agent.mend().await;
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// Goal: the panic of a task is noticed beside tasks that go on, and is the agent's own in the end.
    #[tokio::test]
    async fn a_panic_of_a_task_is_that_of_the_agent() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("on purpose") });
        let ended = first_to_end(&mut tasks).await;
        assert!(ended.to_string().contains("cannot do without"));
        let panic = catch_unwind(AssertUnwindSafe(|| unless_panicked(ended)));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    }

    #[test]
    fn an_error_stays_one() {
        let error = unless_panicked(anyhow::Error::msg("the disk is full"));
        assert_eq!(error.to_string(), "the disk is full");
    }
}
