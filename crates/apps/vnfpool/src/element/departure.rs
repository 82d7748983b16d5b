//! A clean stop hands over first.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use vnfpool_model::SlotId;
use vnfpool_succession::element::Input;

use super::agent::{ASK_AGAIN, Agent};
use super::drain;

/// How long a stopping agent tries to hand its slots over.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(2);

/// After so long of refusals it hands over to what there is: a successor that is behind is better than
/// none, and without the manager it could not even claim the slot.
const RESIGN_AFTER: Duration = Duration::from_secs(1);

/// Between the handover and the end of what this element says.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// How often the outcome is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Hands every slot over that is served here and has a successor. Meanwhile `control`, unless it has
/// ended, goes on telling the manager how that goes; it is dropped then.
pub(super) async fn take(agent: &Agent, control: impl Future<Output = anyhow::Result<()>>) {
    agent.begin_departure();
    let control = async {
        // Whatever it ends with: the slots are handed over all the same.
        let _ = control.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        () = hand_over_all(agent) => {}
        never = control => match never {},
    }
}

async fn hand_over_all(agent: &Agent) {
    // A switchover may be under way; its function still has to hear that it is over.
    let turn = agent.turn_to_drain().await;
    if !agent.serves() {
        return;
    }
    let drain = agent.config.drain.clone();
    let drain = drain.filter(|_| !agent.to_hand_over().is_empty());
    let failed = |step, reason| agent.drain_failed(step, reason);
    drain::around(drain, failed, hand_over(agent)).await;
    drop(turn);
    if agent.serves() {
        tracing::warn!("stopping without a successor: nobody serves until another element can");
    }
    // The successor's first heartbeats want an answer: it counts on us for a moment more. In the middle
    // of it the streams have been drained or not, and the manager has a moment left to hear of it.
    tokio::time::sleep(LAST_MOMENT / 2).await;
    agent.report_now();
    tokio::time::sleep(LAST_MOMENT / 2).await;
}

async fn hand_over(agent: &Agent) {
    let began = Instant::now();
    let ask = |slot| {
        let patient = began.elapsed() < RESIGN_AFTER;
        let input = if patient {
            Input::HandOver
        } else {
            Input::Resign
        };
        agent.pulse.input(slot, input);
    };
    ask_until_done(|| agent.to_hand_over(), ask).await;
    // Before the function hears that it is over, which it may take half a second for.
    agent.has_left();
}

async fn ask_until_done(to_hand_over: impl Fn() -> Vec<SlotId>, mut ask: impl FnMut(SlotId)) {
    let began = Instant::now();
    let mut asked_at: Option<Instant> = None;
    while began.elapsed() < HAND_OVER_TIME_MAX {
        let slots = to_hand_over();
        if slots.is_empty() {
            return;
        }
        if asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            slots.into_iter().for_each(&mut ask);
            asked_at = Some(Instant::now());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const SLOTS: [SlotId; 2] = [SlotId(3), SlotId(5)];

    /// Goal: a refusal is not the last word. Method: of two slots the first goes at once, the
    /// second when it has been asked for three times.
    #[tokio::test]
    async fn a_handover_that_was_refused_is_asked_for_again() {
        let asked = RefCell::new(Vec::new());
        let times = |slot| asked.borrow().iter().filter(|s| **s == slot).count();
        let to_hand_over = || {
            let stay = |(slot, needed): &(SlotId, usize)| times(*slot) < *needed;
            let all = SLOTS.into_iter().zip([1, 3]);
            all.filter(stay).map(|(slot, _)| slot).collect()
        };
        ask_until_done(to_hand_over, |slot| asked.borrow_mut().push(slot)).await;
        let [first, second] = SLOTS;
        assert_eq!(*asked.borrow(), [first, second, second, second]);
    }

    /// Goal: a stop has an end.
    #[tokio::test]
    async fn a_handover_that_is_always_refused_is_given_up() {
        let mut asked = 0;
        ask_until_done(|| SLOTS.to_vec(), |_| asked += 1).await;
        assert!(asked > SLOTS.len());
    }
}
