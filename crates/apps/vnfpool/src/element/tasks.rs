//! The tasks that an agent cannot do without.

use tokio::task::{JoinError, JoinSet};

/// Waits until one of them has ended, which none of them does by itself. With a task less the agent
/// would look alive and not follow its manager, its streams or its devices any more.
pub(super) async fn first_to_end(tasks: &mut JoinSet<()>) -> Result<(), JoinError> {
    match tasks.join_next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::panic, reason = "that is what has to be noticed")]
    async fn a_panic_is_noticed_beside_tasks_that_go_on() {
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("on purpose") });
        let ended = first_to_end(&mut tasks).await;
        let panic = ended.unwrap_err().try_into_panic().unwrap();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }
}
