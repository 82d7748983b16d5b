//! Votes and roles change no more often than faults explain: no storm of votes, no arming and
//! disarming without end.

use crate::faults::fastest;
use crate::network::MACHINES_MAX;
use crate::world::{MS, Shape};

/// Votes are counted over this time.
const VOTES_NS: u64 = 1_000 * MS;

/// Records are counted over this time.
const RECORDS_NS: u64 = 10_000 * MS;

/// So many records in that time are nothing unusual for one lasting state of the networks …
const RECORDS_MAX: u64 = 24;

/// … and so many more for each change of it.
const RECORDS_PER_FAULT: u64 = 6;

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    since: u64,
    count: u64,
}

impl Count {
    /// Counts one more; says how many there are since the begin of the window.
    const fn add(&mut self, now: u64, window: u64) -> u64 {
        if now - self.since > window {
            self.since = now;
            self.count = 0;
        }
        self.count += 1;
        self.count
    }
}

/// What was counted.
#[derive(Debug)]
pub(super) struct RoleChanges {
    votes_max: u64,
    votes: Vec<[Count; MACHINES_MAX]>,
    of_slot: Vec<Count>,
    /// Faults since the begin, and as of the begin of each slot's window.
    faults: u64,
    faults_then: Vec<u64>,
    pub(super) records: u64,
    pub(super) roles: u64,
}

impl RoleChanges {
    pub(super) fn new(shape: &Shape) -> Self {
        let interval = u64::from(fastest(shape.timing.heartbeat_interval_ms));
        Self {
            // One an interval, and one more for each of a few terms.
            votes_max: 1_000 / interval + 20,
            votes: vec![[Count::default(); MACHINES_MAX]; shape.slots],
            of_slot: vec![Count::default(); shape.slots],
            faults: 0,
            faults_then: vec![0; shape.slots],
            records: 0,
            roles: 0,
        }
    }

    pub(super) const fn fault(&mut self) {
        self.faults += 1;
    }

    pub(super) fn vote(&mut self, now: u64, node: usize, slot: usize) -> Result<(), String> {
        let count = self.votes[slot][node].add(now, VOTES_NS);
        if count <= self.votes_max {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: element {node} has sent {count} votes in a second"
        ))
    }

    pub(super) fn record(&mut self, now: u64, slot: usize) -> Result<(), String> {
        self.records += 1;
        let count = self.of_slot[slot].add(now, RECORDS_NS);
        if count == 1 {
            self.faults_then[slot] = self.faults;
        }
        let faults = self.faults - self.faults_then[slot] + 1;
        if count <= RECORDS_MAX + faults * RECORDS_PER_FAULT {
            return Ok(());
        }
        Err(format!(
            "slot {slot}: {count} records in 10 s, {faults} changes of what is broken"
        ))
    }
}
