//! The manager's disk: for each slot a record, perhaps with a prepared one beside it; the boot counter, and how it feels today.

use vnfpool_succession::manager::Stored;

use super::MS;
use vnfpool_random::Random;

/// What a healthy disk takes at least …
const WRITE_NS_MIN: u64 = MS / 10;
/// … and at most.
const WRITE_NS_MAX: u64 = 2 * MS;

/// How writings fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMood {
    /// Quick and right.
    Well,
    /// Each writing takes up to so many nanoseconds.
    Slow(u64),
    /// Every writing fails; some are there all the same.
    Failing,
    /// Every writing is refused.
    Full,
}

/// The store.
#[derive(Clone, Debug)]
pub struct Disk {
    /// What is there of each slot.
    pub slots: Vec<Option<Stored>>,
    /// How often the manager has started.
    pub boots: u64,
    /// How writings fare.
    pub mood: DiskMood,
}

/// What becomes of a writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Failed,
    /// Refused with an error, and there all the same.
    FailedAfterwards,
}

impl Disk {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots: vec![None; slots],
            boots: 0,
            mood: DiskMood::Well,
        }
    }

    /// How long a writing takes.
    pub(super) fn takes(&self, random: &mut Random) -> u64 {
        let most = match self.mood {
            DiskMood::Slow(most) => most,
            _ => WRITE_NS_MAX,
        };
        random.between(WRITE_NS_MIN, most)
    }

    pub(super) fn outcome(&self, random: &mut Random) -> Outcome {
        match self.mood {
            DiskMood::Well | DiskMood::Slow(_) => Outcome::Done,
            DiskMood::Failing if random.chance(30) => Outcome::FailedAfterwards,
            DiskMood::Failing | DiskMood::Full => Outcome::Failed,
        }
    }
}
