//! A reading of the source's table under way.

use std::collections::{BTreeSet, HashSet};

use vnfpool_model::Time;

use crate::index::bucket_of;

/// Of which buckets every entry is sent, whatever the index says.
#[derive(Debug, Clone)]
pub(super) enum Whole {
    Buckets(BTreeSet<u16>),
    Everything,
}

impl Whole {
    fn contains(&self, key: u64) -> bool {
        match self {
            Self::Buckets(buckets) => !buckets.is_empty() && buckets.contains(&bucket_of(key)),
            Self::Everything => true,
        }
    }

    /// The buckets, if it is not everything.
    pub(super) fn buckets(&self) -> impl Iterator<Item = u16> {
        let buckets = match self {
            Self::Buckets(buckets) => Some(buckets),
            Self::Everything => None,
        };
        buckets.into_iter().flatten().copied()
    }

    /// As a record says it.
    pub(super) fn listed(&self) -> Option<Vec<u16>> {
        match self {
            Self::Buckets(buckets) => Some(buckets.iter().copied().collect()),
            Self::Everything => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Scan {
    pub(super) resync: bool,
    pub(super) whole: Whole,
    pub(super) began: Time,
    /// Changes were lost since it began: another one has to follow.
    pub(super) spoilt: bool,
    /// Entries that it had to tell.
    pub(super) found: u64,
    /// Keys of changes since the last chunk, and between the last but one and the last.
    touched: [HashSet<u64>; 2],
}

impl Scan {
    pub(super) fn new(began: Time, resync: bool, whole: Whole) -> Self {
        Self {
            resync,
            whole,
            began,
            spoilt: false,
            found: 0,
            touched: Default::default(),
        }
    }

    /// Whether something may be hidden by a loss: what is told replaces what the standby has.
    pub(super) const fn replaces(&self) -> bool {
        self.resync || self.spoilt
    }

    /// Notes a change of `key`; returns how many are noted.
    pub(super) fn touch(&mut self, key: u64) -> usize {
        let [newest, _] = &mut self.touched;
        newest.insert(key);
        newest.len()
    }

    /// A chunk may hold an older state of `key` than was told.
    pub(super) fn is_touched(&self, key: u64) -> bool {
        self.touched.iter().any(|keys| keys.contains(&key))
    }

    pub(super) fn is_whole(&self, key: u64) -> bool {
        self.whole.contains(key)
    }

    /// A chunk has been worked through.
    pub(super) fn next_chunk(&mut self) {
        self.touched.swap(0, 1);
        let [newest, _] = &mut self.touched;
        newest.clear();
    }
}
