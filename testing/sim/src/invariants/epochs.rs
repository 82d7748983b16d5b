//! I4: epochs never go back, and one epoch has one meaning.
//!
//! Observers: each life of an element; the manager over all its lives; and whoever looks at the
//! gates of a slot from outside, for whom the fencing token grows with each change of holder.

use vnfpool_model::Epoch;
use vnfpool_wire::datagram::Record;

use crate::network::MACHINES_MAX;

/// Terms are remembered for so long.
const TERMS_MAX: usize = 256;

#[derive(Debug)]
struct Slot {
    elements: [Epoch; MACHINES_MAX],
    /// The newest epoch in which any gate was opened, and whose.
    opened: (Epoch, usize),
    /// Newest record of the manager's, as it tells.
    newest: u64,
    /// What each term means, by term modulo [`TERMS_MAX`].
    meanings: Vec<Option<Record>>,
}

/// What was seen of each slot.
#[derive(Debug)]
pub(super) struct Epochs {
    slots: Vec<Slot>,
}

impl Epochs {
    pub(super) fn new(slots: usize) -> Self {
        let slot = |_| Slot {
            elements: [Epoch::default(); MACHINES_MAX],
            opened: (Epoch::default(), 0),
            newest: 0,
            meanings: vec![None; TERMS_MAX],
        };
        Self {
            slots: (0..slots).map(slot).collect(),
        }
    }

    pub(super) fn new_life(&mut self, node: usize, slot: usize) {
        self.slots[slot].elements[node] = Epoch::default();
    }

    #[inline]
    pub(super) fn element(&mut self, node: usize, slot: usize, epoch: Epoch) -> Result<(), String> {
        let known = &mut self.slots[slot].elements[node];
        if epoch < *known {
            return Err(format!(
                "slot {slot}: element {node} goes from {known} back to {epoch}"
            ));
        }
        *known = epoch;
        Ok(())
    }

    #[inline]
    pub(super) fn opened(&mut self, node: usize, slot: usize, epoch: Epoch) -> Result<(), String> {
        let (newest, by) = self.slots[slot].opened;
        if epoch == newest && by == node {
            return Ok(());
        }
        if epoch > newest {
            self.slots[slot].opened = (epoch, node);
            return Ok(());
        }
        Err(format!(
            "slot {slot}: element {node} opens in {epoch} after element {by} opened in {newest}"
        ))
    }

    pub(super) fn manager_starts(&mut self, slot: usize, record: Option<Record>) {
        self.slots[slot].newest = record.map_or(0, |r| r.term);
    }

    #[inline]
    pub(super) fn record(&mut self, slot: usize, record: Option<Record>) -> Result<(), String> {
        let Some(record) = record else { return Ok(()) };
        let seen = &mut self.slots[slot];
        if record.term < seen.newest {
            let newest = seen.newest;
            return Err(format!(
                "slot {slot}: the manager tells term {} after {newest}",
                record.term
            ));
        }
        seen.newest = record.term;
        let place = usize::try_from(record.term).unwrap_or(0) % TERMS_MAX;
        let known = &mut seen.meanings[place];
        match *known {
            Some(other) if other.term == record.term && other != record => Err(format!(
                "slot {slot}: one term with two meanings, {other:?} and {record:?}"
            )),
            _ => {
                *known = Some(record);
                Ok(())
            }
        }
    }
}
