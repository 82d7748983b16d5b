//! What changed in a table, for those who follow it.
//!
//! One log for all of them: a slow one costs the others nothing, and memory has one bound. Who falls
//! behind its begin has missed changes, is told so, and reads the whole table anew.

use std::collections::{BTreeMap, VecDeque};

use vnfpool_model::Time;
use vnfpool_statesync::Change;

use super::bell::Bell;

/// Most bytes of changes that somebody has not read yet.
const LOG_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a change weighs beside its key and value.
const CHANGE_OVERHEAD_BYTES: usize = 96;

fn weight(change: &Change) -> usize {
    let bytes = match change {
        Change::Put { item, .. } => item.key.len() + item.value.len(),
        Change::Delete { key } => key.len(),
    };
    bytes + CHANGE_OVERHEAD_BYTES
}

/// What a follower is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FollowerId(u64);

/// Whether a follower has seen everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// It is up to date; its bell rings at the next change.
    Drained,
    /// There is more.
    More,
    /// Changes were lost to it: the next ones follow on what the table is now.
    Overrun,
}

#[derive(Debug)]
struct Follower {
    /// The next position to read.
    next: u64,
    bell: Bell,
    /// It has read everything, and waits for its bell.
    waits: bool,
    /// When the oldest change that it has not read came; none while it has read everything.
    unread_since: Option<Time>,
}

/// Changes by position, from 1.
#[derive(Debug)]
pub(super) struct Log {
    changes: VecDeque<Change>,
    bytes: usize,
    bytes_max: usize,
    /// Position of the first of `changes`.
    first: u64,
    followers: BTreeMap<FollowerId, Follower>,
    follower_ids: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self::new(LOG_BYTES_MAX)
    }
}

impl Log {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            bytes_max,
            first: 1,
            followers: BTreeMap::new(),
            follower_ids: 0,
        }
    }

    /// The position of the last change; 0 before the first.
    pub(super) fn end(&self) -> u64 {
        self.first + self.changes.len() as u64 - 1
    }

    /// Changes are only kept for followers.
    pub(super) fn is_followed(&self) -> bool {
        !self.followers.is_empty()
    }

    /// Counts a change that nobody follows.
    pub(super) fn skip(&mut self) {
        debug_assert!(self.changes.is_empty());
        self.first += 1;
    }

    pub(super) fn push(&mut self, change: Change) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        while self.bytes > self.bytes_max {
            self.drop_first();
        }
    }

    /// Rings for those that wait; once for many changes.
    pub(super) fn ring(&mut self, now: Time) {
        for follower in self.followers.values_mut() {
            if std::mem::take(&mut follower.waits) {
                follower.unread_since = Some(now);
                follower.bell.ring();
            }
        }
    }

    fn drop_first(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.bytes -= weight(&change);
            self.first += 1;
        }
    }

    /// A follower of all changes from now on.
    pub(super) fn follow(&mut self, bell: Bell) -> FollowerId {
        self.follower_ids += 1;
        let id = FollowerId(self.follower_ids);
        let follower = Follower {
            next: self.end() + 1,
            bell,
            waits: true,
            unread_since: None,
        };
        self.followers.insert(id, follower);
        id
    }

    pub(super) fn leave(&mut self, id: FollowerId) {
        self.followers.remove(&id);
        self.trim();
    }

    /// Hands the next changes to `take`, at most `changes_max`, until their bytes reach `bytes_max`.
    pub(super) fn read(
        &mut self,
        id: FollowerId,
        changes_max: usize,
        bytes_max: usize,
        mut take: impl FnMut(&Change),
    ) -> Reading {
        let end = self.end();
        let Some(follower) = self.followers.get_mut(&id) else {
            return Reading::Drained;
        };
        if follower.next < self.first {
            follower.next = end + 1;
            (follower.waits, follower.unread_since) = (true, None);
            self.trim();
            return Reading::Overrun;
        }
        let skipped = usize::try_from(follower.next - self.first).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for change in self.changes.range(skipped..).take(changes_max) {
            take(change);
            bytes += weight(change);
            follower.next += 1;
            if bytes >= bytes_max {
                break;
            }
        }
        let is_drained = follower.next > end;
        if is_drained {
            (follower.waits, follower.unread_since) = (true, None);
        }
        self.trim();
        match is_drained {
            true => Reading::Drained,
            false => Reading::More,
        }
    }

    /// Up to where a follower has read; the end for one that is not there.
    pub(super) fn read_up_to(&self, id: FollowerId) -> u64 {
        let follower = self.followers.get(&id);
        follower.map_or_else(|| self.end(), |follower| follower.next - 1)
    }

    /// Since when a follower has not read everything.
    pub(super) fn unread_since(&self, id: FollowerId) -> Option<Time> {
        self.followers.get(&id)?.unread_since
    }

    /// Forgets what everybody has read.
    fn trim(&mut self) {
        let read = self.followers.values().map(|follower| follower.next).min();
        let next = read.unwrap_or(u64::MAX);
        while self.first < next && !self.changes.is_empty() {
            self.drop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn delete(number: u8) -> Change {
        Change::Delete {
            key: Bytes::from(vec![number]),
        }
    }

    fn keys(log: &mut Log, id: FollowerId, changes_max: usize) -> (Vec<u8>, Reading) {
        let mut keys = Vec::new();
        let reading = log.read(id, changes_max, usize::MAX, |change| match change {
            Change::Delete { key } => keys.push(key[0]),
            Change::Put { .. } => {}
        });
        (keys, reading)
    }

    #[test]
    fn followers_read_at_their_own_pace_and_nothing_is_kept_for_nobody() {
        let mut log = Log::default();
        let fast = log.follow(Bell::new().unwrap());
        let slow = log.follow(Bell::new().unwrap());
        (1..=3).for_each(|number| log.push(delete(number)));
        assert_eq!(keys(&mut log, fast, 9), (vec![1, 2, 3], Reading::Drained));
        assert_eq!(keys(&mut log, slow, 2), (vec![1, 2], Reading::More));
        assert_eq!((log.end(), log.read_up_to(slow)), (3, 2));
        assert_eq!(log.changes.len(), 1);
        log.leave(slow);
        assert_eq!((log.changes.len(), log.bytes, log.end()), (0, 0, 3));
    }

    /// Goal: memory has a bound, and who has missed something is told so once.
    #[test]
    fn a_follower_behind_the_begin_is_told_that_it_has_missed_changes() {
        let mut log = Log::new(2 * weight(&delete(0)));
        let id = log.follow(Bell::new().unwrap());
        (1..=3).for_each(|number| log.push(delete(number)));
        assert_eq!(log.changes.len(), 2);
        assert_eq!(keys(&mut log, id, 9), (vec![], Reading::Overrun));
        log.push(delete(4));
        assert_eq!(keys(&mut log, id, 9), (vec![4], Reading::Drained));
    }

    #[test]
    fn a_bell_rings_once_for_many_changes() {
        let mut log = Log::default();
        let bell = Bell::new().unwrap();
        let id = log.follow(bell.clone());
        log.push(delete(1));
        log.ring(Time(7));
        assert_eq!(log.unread_since(id), Some(Time(7)));
        bell.silence();
        log.push(delete(2));
        log.ring(Time(8));
        assert_eq!(log.unread_since(id), Some(Time(7)));
        let mut counter = [0; 8];
        assert!(rustix::io::read(&bell, &mut counter).is_err(), "rung twice");
        assert_eq!(keys(&mut log, id, 9).1, Reading::Drained);
        assert_eq!(log.unread_since(id), None);
    }
}
