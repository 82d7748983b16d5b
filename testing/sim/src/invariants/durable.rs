//! I3: what the manager has acknowledged survives its crash. It acknowledges a record by telling
//! anybody of it; so what it tells is on its disk, as the record or prepared beside it (5n), and each
//! of its lives begins with a record at least as new as any it has told.

use vnfpool_succession::manager::Stored;
use vnfpool_wire::datagram::Record;

/// The newest record of each slot that anybody was told of.
#[derive(Debug)]
pub(super) struct Durable {
    told: Vec<Option<Record>>,
}

impl Durable {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            told: vec![None; slots],
        }
    }

    #[inline]
    pub(super) fn told(
        &mut self,
        slot: usize,
        record: Option<Record>,
        disk: Option<Stored>,
    ) -> Result<(), String> {
        if term(record) > term(self.told[slot]) {
            self.told[slot] = record;
        }
        let there = disk.map(|stored| stored.record);
        let prepared = disk.and_then(|stored| stored.prepared);
        if term(record) < term(there) || record == there || record == prepared {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: the manager tells {record:?}, its disk has {disk:?}"
        ))
    }

    pub(super) fn manager_starts(&self, slot: usize, record: Option<Record>) -> Result<(), String> {
        let told = self.told[slot];
        if term(record) > term(told) || record == told {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: the manager has told {told:?} and begins with {record:?}"
        ))
    }
}

fn term(record: Option<Record>) -> u64 {
    record.map_or(0, |r| r.term)
}
