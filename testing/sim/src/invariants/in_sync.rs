//! I5: a successor is armed only while its copy of the service state is in sync. What is promised
//! (docs/decisions/0012): an active whose successor's copy was last proved half a second ago votes
//! to disarm it, as long as it hears the manager.

use crate::network::MACHINES_MAX;

const MS: u64 = 1_000_000;

/// The age at which an active has to vote, with what timers and proofs on their way add.
const COPY_AGE_MAX: u64 = (500 + 50) * MS;

/// The copy is looked at each 50 ms; so many times in a row are a fault. (A standstill that falls between
/// two looks costs an active one of them.)
const LOOKS: u32 = 2;

/// What each active has done about it.
#[derive(Debug)]
pub(super) struct InSync {
    voted: Vec<[u64; MACHINES_MAX]>,
    old: Vec<[u32; MACHINES_MAX]>,
}

impl InSync {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            voted: vec![[0; MACHINES_MAX]; slots],
            old: vec![[0; MACHINES_MAX]; slots],
        }
    }

    pub(super) fn voted(&mut self, now: u64, node: usize, slot: usize) {
        self.voted[slot][node] = now;
    }

    pub(super) fn copy(
        &mut self,
        now: u64,
        node: usize,
        slot: usize,
        as_of: u64,
        may_vote: bool,
    ) -> Result<(), String> {
        let old = &mut self.old[slot][node];
        let votes = now - self.voted[slot][node] < 100 * MS && self.voted[slot][node] != 0;
        if now - as_of < COPY_AGE_MAX || votes || !may_vote {
            *old = 0;
            return Ok(());
        }
        *old += 1;
        if *old < LOOKS {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: element {node} serves at {} ms with an armed successor whose copy is as of {} ms",
            now / MS,
            as_of / MS
        ))
    }
}
