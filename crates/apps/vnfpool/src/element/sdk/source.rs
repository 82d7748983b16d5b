//! What a class hands to the machine that feeds a successor.

use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use vnfpool_model::Time;

use super::bell::Bell;
use super::class::Class;
use super::log::{Change, FollowerId, Item, Reading};

/// Changes and bytes that are read under one lock.
const READ_AT_ONCE: (usize, usize) = (1_024, 128 * 1024);

/// Entries and bytes of a chunk of the scan.
const CHUNK: (usize, usize) = (512, 64 * 1024);

/// What the machine is handed, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Handed {
    Change(Change),
    /// Changes were lost: the copy has to be made anew.
    Overrun,
    /// Say when the successor holds everything handed over before.
    Barrier {
        id: u64,
    },
}

/// A part of the scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) generation: u32,
    pub(crate) items: Vec<Item>,
    pub(crate) is_last: bool,
}

#[derive(Debug)]
struct Scan {
    generation: u32,
    /// The last key that was read.
    after: Bytes,
}

/// One successor's view of a class; of one thread.
#[derive(Debug)]
pub(crate) struct Source {
    class: Arc<Class>,
    id: FollowerId,
    bell: Bell,
    scan: Option<Scan>,
}

impl Source {
    /// Begins with the changes from now on.
    ///
    /// # Errors
    /// Without a descriptor to wait for changes with.
    pub(crate) fn open(class: Arc<Class>) -> std::io::Result<Self> {
        let bell = Bell::new()?;
        let id = class.begin_feed(bell.clone());
        Ok(Self {
            class,
            id,
            bell,
            scan: None,
        })
    }

    /// Hands over what waits, up to a bound.
    pub(crate) fn read(&mut self, now: Time, handed: &mut Vec<Handed>) -> Reading {
        self.bell.silence();
        let (changes_max, bytes_max) = READ_AT_ONCE;
        let mut state = self.class.state();
        let take = |change: &Change| handed.push(Handed::Change(change.clone()));
        let reading = state.table.read(self.id, changes_max, bytes_max, take);
        if reading == Reading::Overrun {
            state.lose(self.id, now);
            handed.push(Handed::Overrun);
        }
        if let Some(id) = state.ask(self.id, now) {
            handed.push(Handed::Barrier { id });
        }
        reading
    }

    /// Reads the whole table from the begin; drops an earlier reading.
    pub(crate) fn start_scan(&mut self, generation: u32) {
        let after = Bytes::new();
        self.scan = Some(Scan { generation, after });
    }

    /// Drops the reading under way.
    pub(crate) fn abort_scan(&mut self) {
        self.scan = None;
    }

    /// The next part of the reading; none without one, and as long as the table is not whole.
    pub(crate) fn read_chunk(&mut self, now: Time) -> Option<Chunk> {
        let scan = self.scan.as_mut()?;
        let state = self.class.state();
        if !state.table.is_complete() {
            return None;
        }
        let mut items = Vec::new();
        let from = Bound::Excluded(&*scan.after);
        let take = |item| items.push(item);
        let has_more = state.table.range(from, Bound::Unbounded, CHUNK, now, take);
        drop(state);
        let generation = scan.generation;
        match items.last() {
            Some(last) if has_more => scan.after = last.key.clone(),
            _ => self.scan = None,
        }
        let is_last = !has_more;
        Some(Chunk {
            generation,
            items,
            is_last,
        })
    }

    /// Whether the successor holds everything that was handed over before a barrier; if not, that will
    /// not be known.
    pub(crate) fn reached(&mut self, barrier: u64, is_held: bool, now: Time) {
        self.class
            .with_feed(self.id, |feed| feed.answered(barrier, is_held, now));
        // There may be more to ask. A successor that could not answer is asked at the next look.
        if is_held {
            self.bell.ring();
        }
    }
}

impl AsFd for Source {
    /// Readable when changes wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.class.end_feed(self.id);
    }
}
