//! What a class hands to the machine that feeds a successor.

use std::ops::Bound;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use bytes::Bytes;
use vnfpool_conntrack::ReadOutcome;
use vnfpool_statesync::{Change, SenderInput};

use super::bell::Bell;
use super::class::Class;
use super::log::{FollowerId, Reading};
use crate::element::sync::{self, OWN_BARRIERS};
use crate::pulse::now;

/// Changes and bytes that are read under one lock.
const READ_AT_ONCE: (usize, usize) = (1_024, 128 * 1024);

/// Entries and bytes of a chunk.
const CHUNK: (usize, usize) = (512, 64 * 1024);

#[derive(Debug)]
struct Scan {
    generation: u32,
    /// The last key that was read.
    after: Bytes,
}

/// One successor's view of a class; of one thread.
#[derive(Debug)]
pub(super) struct Source {
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
    pub(super) fn open(class: Arc<Class>) -> std::io::Result<Self> {
        let bell = Bell::new()?;
        let id = class.begin_feed(bell.clone());
        Ok(Self {
            class,
            id,
            bell,
            scan: None,
        })
    }
}

impl sync::Source for Source {
    fn read(&mut self, out: &mut Vec<SenderInput>) -> anyhow::Result<ReadOutcome> {
        self.bell.silence();
        let (changes_max, bytes_max) = READ_AT_ONCE;
        let at = now();
        let mut state = self.class.state();
        // One of the same name may be fed by the next stream, which is opened when this one ends.
        anyhow::ensure!(!state.is_over(), "the class is not there any more");
        let take = |change: &Change| out.push(SenderInput::Change(change.clone()));
        let unread_since = state.table.log().unread_since(self.id);
        let reading = state.table.read(self.id, changes_max, bytes_max, take);
        if reading == Reading::Overrun {
            state.lose(self.id, unread_since.unwrap_or(at), at);
            out.push(SenderInput::Overrun);
        }
        if let Some(id) = state.ask(self.id, at) {
            debug_assert!(id < OWN_BARRIERS);
            out.push(SenderInput::Barrier { id });
        }
        Ok(match reading {
            Reading::Drained => ReadOutcome::Drained,
            Reading::More => ReadOutcome::More,
            Reading::Overrun => ReadOutcome::Overrun { lost: None },
        })
    }

    fn start_scan(&mut self, generation: u32) -> anyhow::Result<()> {
        let after = Bytes::new();
        self.scan = Some(Scan { generation, after });
        Ok(())
    }

    fn abort_scan(&mut self) {
        self.scan = None;
    }

    /// None also as long as the table is not whole: what is missing is not gone.
    fn read_chunk(&mut self) -> anyhow::Result<Option<SenderInput>> {
        let Some(scan) = &mut self.scan else {
            return Ok(None);
        };
        let state = self.class.state();
        if !state.table.is_complete() {
            return Ok(None);
        }
        let mut items = Vec::new();
        let from = Bound::Excluded(&*scan.after);
        let take = |item| items.push(item);
        let has_more = state
            .table
            .range(from, Bound::Unbounded, CHUNK, now(), take);
        drop(state);
        let generation = scan.generation;
        match items.last() {
            Some(last) if has_more => scan.after = last.key.clone(),
            _ => self.scan = None,
        }
        Ok(Some(SenderInput::ScanChunk {
            generation,
            items,
            is_last: !has_more,
        }))
    }

    fn reached(&mut self, barrier: u64, yes: bool) {
        self.class
            .with_feed(self.id, |feed| feed.answered(barrier, yes, now()));
        // There may be more to ask. A successor that could not answer is asked at the next look.
        if yes {
            self.bell.ring();
        }
    }

    /// Only then does an answer of the successor say that it has everything.
    fn in_sync(&mut self, yes: bool) {
        self.class
            .with_feed(self.id, |feed| feed.set_in_sync(yes, now()));
        if yes {
            // It is to be asked.
            self.bell.ring();
        }
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.class.end_feed(self.id);
    }
}
