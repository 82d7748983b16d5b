//! A thread that brings full batches into the kernel while the next are prepared: the kernel takes
//! longer over an entry than whoever decodes it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::operation::Operation;
use super::table::Table;
use super::{BATCH_OPERATIONS_MAX, lock};
use crate::netlink::socket::NetlinkError;

/// Batches that wait for it at most.
const BATCHES_MAX: usize = 8;

type Batch = Vec<Operation>;

/// The other end of the thread, which ends with it.
#[derive(Debug)]
pub(super) struct Assistant {
    /// None when it is to end.
    batches: Option<SyncSender<Batch>>,
    /// Emptied batches.
    done: Receiver<Result<Batch, NetlinkError>>,
    /// Batches given and not yet done.
    given: usize,
    thread: Option<JoinHandle<()>>,
}

impl Assistant {
    pub(super) fn start(table: Arc<Mutex<Table>>) -> io::Result<Self> {
        let (batches, to_do) = sync_channel::<Batch>(BATCHES_MAX);
        let (tell, done) = sync_channel(BATCHES_MAX);
        let thread = std::thread::Builder::new()
            .name("state-write".into())
            .spawn(move || {
                for mut batch in to_do {
                    let written = lock(&table).write(&mut batch);
                    if tell.send(written.map(|()| batch)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            batches: Some(batches),
            done,
            given: 0,
            thread: Some(thread),
        })
    }

    /// Has a batch written after those before, and gives an empty one for it. Waits when too many
    /// wait already.
    pub(super) fn give(&mut self, batch: Batch) -> Result<Batch, NetlinkError> {
        let empty = match self.given < BATCHES_MAX {
            true => Vec::with_capacity(BATCH_OPERATIONS_MAX),
            false => self.next_done()?,
        };
        let batches = self.batches.as_ref();
        if batches.is_none_or(|batches| batches.send(batch).is_err()) {
            return Err(GONE);
        }
        self.given += 1;
        Ok(empty)
    }

    /// Waits until all are written.
    pub(super) fn finish(&mut self) -> Result<(), NetlinkError> {
        while self.given > 0 {
            self.next_done()?;
        }
        Ok(())
    }

    fn next_done(&mut self) -> Result<Batch, NetlinkError> {
        let done = self.done.recv().map_err(|_| GONE)?;
        self.given -= 1;
        done
    }
}

/// The thread panicked.
const GONE: NetlinkError = NetlinkError::NoAnswer {
    attempt: "write a batch of connections",
};

impl Drop for Assistant {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // It never waits for us: as many results fit as batches are given.
            let _panicked = thread.join();
        }
    }
}
