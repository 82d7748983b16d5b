//! When a fencing command is run, and for whom: plain values, no IO.
//!
//! ```text
//!   unknown --silent, due--> running --off--> off (until it is heard again)
//!                              ^   |
//!                      back-off|   +--failed--> failed
//!                              +------------------+
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::datagram::NodeId;

/// After a failure the command waits for so long; twice as long after each further one.
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// Commands that may run at the same time; the others come when one of these has ended.
pub(super) const RUNNING_MAX: usize = 8;

/// A manager that has not looked for so long has stood still, and so has everything it heard.
const GAP_MAX: Duration = Duration::from_secs(1);

/// A slot whose record is armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct ArmedSlot {
    /// The pair of the record.
    pub(super) members: [Member; 2],
    /// Somebody else is heard who could serve the slot.
    pub(super) has_spare: bool,
    /// How long both have to be silent.
    pub(super) patience: Duration,
    /// How long the manager has to be up: elements need time to find it.
    pub(super) settling: Duration,
}

/// A member of an armed pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) node: NodeId,
    /// When it was heard last, about any slot and in any life; never by this boot of the manager.
    pub(super) heard_at: Option<Time>,
    /// It has a control connection.
    pub(super) is_connected: bool,
    /// It was declared off already.
    pub(super) is_fenced: bool,
}

#[derive(Clone, Copy, Debug)]
enum Attempt {
    Running {
        failures: u32,
    },
    Failed {
        failures: u32,
        since: Time,
        again_at: Time,
    },
    Off {
        since: Time,
    },
}

/// Decides whose machine is switched off.
#[derive(Debug)]
pub(super) struct Decision {
    without_spare: bool,
    /// The manager has been looking since then without standing still.
    up_since: Time,
    looked_at: Time,
    attempts: BTreeMap<NodeId, Attempt>,
}

impl Decision {
    /// A manager that has just started.
    pub(super) const fn new(without_spare: bool, now: Time) -> Self {
        Self {
            without_spare,
            up_since: now,
            looked_at: now,
            attempts: BTreeMap::new(),
        }
    }

    /// For whom a command has to start now. Each counts as running until [`Decision::ended`].
    pub(super) fn due(&mut self, now: Time, slots: &[ArmedSlot]) -> Vec<NodeId> {
        if now.since(self.looked_at) > GAP_MAX {
            self.up_since = now;
        }
        self.looked_at = now;
        self.forget(slots);
        let mut due = Vec::new();
        for slot in slots {
            if !self.is_dead(now, slot) {
                continue;
            }
            for member in slot.members.iter().filter(|m| !m.is_fenced) {
                let failures = match self.attempts.get(&member.node) {
                    None => 0,
                    Some(Attempt::Failed {
                        failures, again_at, ..
                    }) if *again_at <= now => *failures,
                    Some(_) => continue,
                };
                if self.running() < RUNNING_MAX {
                    let running = Attempt::Running { failures };
                    self.attempts.insert(member.node, running);
                    due.push(member.node);
                }
            }
        }
        due
    }

    /// A command has ended: with the proof that the machine is off, or without.
    pub(super) fn ended(&mut self, now: Time, node: NodeId, is_off: bool) {
        let Some(Attempt::Running { failures }) = self.attempts.get(&node).copied() else {
            return;
        };
        let attempt = if is_off {
            Attempt::Off { since: now }
        } else {
            let doubled = BACK_OFF_MIN * 2_u32.pow(failures.min(8));
            Attempt::Failed {
                failures: failures + 1,
                since: now,
                again_at: now.after(doubled.min(BACK_OFF_MAX)),
            }
        };
        self.attempts.insert(node, attempt);
    }

    /// Nobody of the pair may have a vote. A manager that hears nobody at all may as well be cut
    /// off from a pair that serves: without a spare that is heard, nothing would be won.
    fn is_dead(&self, now: Time, slot: &ArmedSlot) -> bool {
        let silent = |member: &Member| {
            let heard_at = member.heard_at.unwrap_or(Time::ZERO);
            !member.is_connected && now.since(heard_at) > slot.patience
        };
        now.since(self.up_since) > slot.settling.max(slot.patience)
            && (slot.has_spare || self.without_spare)
            && slot.members.iter().all(silent)
    }

    /// Who was heard again begins anew. Whom no record names any more has to be heard before one
    /// names it again.
    fn forget(&mut self, slots: &[ArmedSlot]) {
        let members = slots.iter().flat_map(|slot| &slot.members);
        self.attempts.retain(|node, attempt| match attempt {
            Attempt::Running { .. } => true,
            Attempt::Failed { since, .. } | Attempt::Off { since } => members.clone().any(|m| {
                let is_heard = m.is_connected || m.heard_at.is_some_and(|at| at > *since);
                m.node == *node && !is_heard
            }),
        });
    }

    fn running(&self) -> usize {
        let running = |attempt: &&Attempt| matches!(attempt, Attempt::Running { .. });
        self.attempts.values().filter(running).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn member(node: u32, heard_ms: u64) -> Member {
        Member {
            node: NodeId(node),
            heard_at: (heard_ms > 0).then(|| at(heard_ms)),
            is_connected: false,
            is_fenced: false,
        }
    }

    fn slot(members: [Member; 2]) -> ArmedSlot {
        ArmedSlot {
            members,
            has_spare: true,
            patience: PATIENCE,
            settling: PATIENCE,
        }
    }

    /// Looks every 500 ms, as the driver does; when somebody was due, and who.
    fn watch(
        decision: &mut Decision,
        times_ms: std::ops::RangeInclusive<u64>,
        slots: &[ArmedSlot],
    ) -> Vec<(u64, u32)> {
        let times = times_ms.step_by(500);
        let due = times.flat_map(|ms| {
            let due = decision.due(at(ms), slots);
            due.into_iter().map(move |node| (ms, node.0))
        });
        due.collect()
    }

    #[test]
    fn both_of_an_armed_pair_have_to_be_silent() {
        let dead = [member(1, 10_000), member(2, 11_000)];
        let mut decision = Decision::new(false, at(500));
        watch(&mut decision, 500..=10_000, &[]);
        let due = watch(&mut decision, 10_500..=60_000, &[slot(dead)]);
        assert_eq!(due, [(13_500, 1), (13_500, 2)], "each once");

        let connected = |member: Member| Member {
            is_connected: true,
            ..member
        };
        for living in [
            [dead[0], member(2, 60_000)],
            [member(1, 60_000), dead[1]],
            [connected(dead[0]), dead[1]],
            [dead[0], connected(dead[1])],
        ] {
            let mut decision = Decision::new(false, at(10_000));
            let due = watch(&mut decision, 10_000..=60_000, &[slot(living)]);
            assert_eq!(due, [], "{living:?}");
        }
    }

    /// Goal: a manager that is cut off from a pair that serves does not switch it off.
    #[test]
    fn without_a_spare_only_if_that_is_wanted() {
        let alone = ArmedSlot {
            has_spare: false,
            ..slot([member(1, 1), member(2, 1)])
        };
        for (wanted, count) in [(false, 0), (true, 2)] {
            let mut decision = Decision::new(wanted, at(500));
            let due = watch(&mut decision, 500..=60_000, std::slice::from_ref(&alone));
            assert_eq!(due.len(), count);
        }
    }

    #[test]
    fn a_manager_that_has_just_started_or_stood_still_is_patient() {
        let slots = [slot([member(1, 0), member(2, 100)])];
        let mut decision = Decision::new(false, at(10_000));
        assert_eq!(watch(&mut decision, 10_000..=12_000, &slots), []);
        // It stands still for a minute.
        assert_eq!(watch(&mut decision, 72_000..=74_000, &slots), []);
        let due = watch(&mut decision, 74_500..=80_000, &slots);
        assert_eq!(due, [(74_500, 1), (74_500, 2)]);

        let mut settling = slots;
        settling[0].settling = Duration::from_secs(5);
        let mut decision = Decision::new(false, at(10_000));
        let due = watch(&mut decision, 10_000..=30_000, &settling);
        assert_eq!(due, [(15_500, 1), (15_500, 2)]);
    }

    #[test]
    fn a_failed_one_is_tried_again_ever_more_rarely() {
        let mut off = member(2, 0);
        off.is_fenced = true;
        let slots = [slot([member(1, 0), off])];
        let mut decision = Decision::new(false, at(0));
        let mut tried = Vec::new();
        for ms in (0..1_400_000).step_by(500) {
            for node in decision.due(at(ms), &slots) {
                assert_eq!(node, NodeId(1), "the other one is off already");
                tried.push(ms / 1_000);
                decision.ended(at(ms), node, false);
            }
        }
        let waits: Vec<_> = tried.windows(2).map(|two| two[1] - two[0]).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    }

    #[test]
    fn who_is_off_is_fenced_again_only_after_it_was_heard() {
        let dead = [member(1, 0), member(2, 0)];
        let mut decision = Decision::new(false, at(0));
        assert_eq!(watch(&mut decision, 0..=5_000, &[slot(dead)]).len(), 2);
        for node in [1, 2] {
            decision.ended(at(5_000), NodeId(node), true);
        }
        assert_eq!(watch(&mut decision, 5_500..=60_000, &[slot(dead)]), []);
        // It served again, and died again.
        let again = [member(1, 60_200), dead[1]];
        let due = watch(&mut decision, 60_500..=90_000, &[slot(again)]);
        assert_eq!(due, [(62_500, 1)]);
    }

    #[test]
    fn many_wait_for_their_turn() {
        let slots: Vec<_> = (0..10)
            .map(|pair| slot([member(2 * pair + 1, 0), member(2 * pair + 2, 0)]))
            .collect();
        let mut decision = Decision::new(false, at(0));
        let due = watch(&mut decision, 0..=10_000, &slots);
        assert_eq!(due.len(), RUNNING_MAX);
        decision.ended(at(10_500), NodeId(3), true);
        assert_eq!(decision.due(at(10_500), &slots), [NodeId(9)]);
        assert_eq!(decision.due(at(11_000), &slots), []);
    }
}
