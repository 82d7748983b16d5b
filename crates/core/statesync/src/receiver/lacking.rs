//! Entries that were told and that the copy's table refuses.

use std::collections::HashSet;

use crate::wire::Body;

/// Keys of refused entries that are kept apart at most; beyond it they count as standing until a new stream.
const LACKING_MAX: usize = 1 << 16;

/// What was told and the copy's table did not take.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    keys: HashSet<u64>,
    /// More than are kept apart.
    beyond: u32,
    /// Refusals that the active has not heard of.
    refused: u32,
    told: u32,
}

impl Lacking {
    pub(super) fn refuse(&mut self, key: u64) {
        self.refused = self.refused.saturating_add(1);
        if self.keys.len() < LACKING_MAX {
            self.keys.insert(key);
        } else if !self.keys.contains(&key) {
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    /// The entry was told anew, or is gone.
    pub(super) fn settle(&mut self, key: u64) {
        if !self.keys.is_empty() {
            self.keys.remove(&key);
        }
    }

    pub(super) fn entries(&self) -> u32 {
        let kept = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        kept.saturating_add(self.beyond)
    }

    /// What the active has to hear, if it is news.
    pub(super) fn news(&mut self) -> Option<Body> {
        let entries = self.entries();
        if self.refused == 0 && entries == self.told {
            return None;
        }
        self.told = entries;
        let refused = std::mem::take(&mut self.refused);
        Some(Body::Lacks { entries, refused })
    }
}
