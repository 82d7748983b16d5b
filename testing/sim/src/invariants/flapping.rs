//! A member that loses its place again and again is not armed again and again (R11): seen from outside,
//! by how often it is armed, whatever the manager's machine counts.

use vnfpool_succession::manager::Decision;
use vnfpool_wire::datagram::Record;

use crate::network::MACHINES_MAX;
use crate::world::{MS, machine_of};

/// Armings are counted over this time.
const WINDOW_NS: u64 = 60_000 * MS;

/// Armed after the start, and after each of three losses; once more where the window begins with what
/// is nearly forgotten. Each time that a record is given up by nobody's vote (a restart, a fencing, a
/// voter that could not serve) explains one more.
const ARMINGS_MAX: u64 = 5;

#[derive(Clone, Copy, Debug, Default)]
struct Armings {
    since: u64,
    count: u64,
    explained_then: u64,
}

/// What was counted of each slot and element.
#[derive(Debug)]
pub(super) struct Flapping {
    armings: Vec<[Armings; MACHINES_MAX]>,
    explained: Vec<u64>,
}

impl Flapping {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            armings: vec![[Armings::default(); MACHINES_MAX]; slots],
            explained: vec![0; slots],
        }
    }

    /// The manager has forgotten all losses.
    pub(super) fn forgotten(&mut self, slot: usize) {
        self.armings[slot] = Default::default();
    }

    /// The operator has given an element a clean slate, or it has got one by its probation.
    pub(super) fn forgiven(&mut self, slot: usize, node: usize) {
        self.armings[slot][node] = Armings::default();
    }

    pub(super) fn decided(
        &mut self,
        now: u64,
        slot: usize,
        record: Record,
        decision: Decision,
    ) -> Result<(), String> {
        let second = match decision {
            Decision::Armed => record.second,
            Decision::Split { .. }
            | Decision::Replaced { .. }
            | Decision::First
            | Decision::Paced => None,
            Decision::SplitToOther { .. }
            | Decision::Restarted { .. }
            | Decision::Fenced { .. } => {
                self.explained[slot] += 1;
                None
            }
        };
        let Some(second) = second else {
            return Ok(());
        };
        let explained = self.explained[slot];
        let armings = &mut self.armings[slot][machine_of(second.node)];
        if armings.count == 0 || now - armings.since > WINDOW_NS {
            *armings = Armings {
                since: now,
                count: 0,
                explained_then: explained,
            };
        }
        armings.count += 1;
        let explained = explained - armings.explained_then;
        if armings.count <= ARMINGS_MAX + explained {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: element {} was armed {} times within {} ms, {explained} of them explained",
            second.node.0,
            armings.count,
            (now - armings.since) / MS
        ))
    }
}
