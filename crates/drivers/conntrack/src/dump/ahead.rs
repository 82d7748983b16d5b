//! A dump that a thread of its own reads: the kernel looks through every bucket of its table, and of
//! a large table that holds little that takes tens of milliseconds a chunk. Nobody waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::{DUMP, Dump, DumpProgress, Family};
use crate::entry::Entry;
use crate::netlink::socket::NetlinkError;

/// A part of a table.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) entries: Vec<Entry>,
    /// Nothing comes after it.
    pub(crate) is_last: bool,
    /// The kernel says that it left entries out: all of it comes once more after this.
    pub(crate) begins_again: bool,
    /// Entries that were not understood so far.
    pub(crate) malformed: u64,
}

/// A dump under way. A chunk is asked for when the one before is taken, so its entries are as old as the
/// taking of the last chunk but one. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct DumpAhead {
    asks: SyncSender<()>,
    chunks: Receiver<Result<Chunk, NetlinkError>>,
    ready: Arc<OwnedFd>,
}

impl DumpAhead {
    /// Starts a dump of the whole table in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without a thread or a descriptor.
    pub(crate) fn start() -> Result<Self, NetlinkError> {
        let ready = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
        let ready = Arc::new(ready.map_err(|errno| NetlinkError::Open(errno.into()))?);
        let (asks, asked) = sync_channel(1);
        let (tell, chunks) = sync_channel(1);
        let bell = Arc::clone(&ready);
        // It inherits the namespace of this one.
        let thread = std::thread::Builder::new().name("state-dump".into());
        let started = thread.spawn(move || {
            let mut dump = None;
            for () in asked {
                let chunk = next(&mut dump);
                if tell.send(chunk).is_err() {
                    return;
                }
                // Full or not, it is readable.
                let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
            }
        });
        started.map_err(NetlinkError::Open)?;
        let ahead = Self {
            asks,
            chunks,
            ready,
        };
        ahead.ask();
        Ok(ahead)
    }

    /// The next chunk, if it is there.
    ///
    /// # Errors
    /// As [`Dump::start`] and [`Dump::next_chunk`]: the dump is over then.
    pub(crate) fn take(&self) -> Result<Option<Chunk>, NetlinkError> {
        let chunk = match self.chunks.try_recv() {
            Ok(chunk) => chunk?,
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => {
                return Err(NetlinkError::NoAnswer { attempt: DUMP });
            }
        };
        if !chunk.is_last {
            self.ask();
        }
        Ok(Some(chunk))
    }

    /// Forgets that a chunk was ready: its descriptor is readable again with the next one.
    pub(crate) fn silence(&self) -> io::Result<()> {
        match rustix::io::read(&self.ready, &mut [0; 8]) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// One chunk is asked for at a time, so there is room; a thread that is gone shows at the next
    /// look.
    fn ask(&self) {
        let _ = self.asks.try_send(());
    }
}

impl AsFd for DumpAhead {
    /// Readable when a chunk is ready that was not known to be.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

fn next(dump: &mut Option<Dump>) -> Result<Chunk, NetlinkError> {
    let mut under_way = match dump.take() {
        Some(under_way) => under_way,
        None => Dump::start(Family::All)?,
    };
    let mut entries = Vec::new();
    let progress = under_way.next_chunk(&mut entries)?;
    let begins_again = progress == DumpProgress::Done && under_way.interrupted();
    let malformed = under_way.malformed();
    if progress == DumpProgress::More {
        *dump = Some(under_way);
    }
    Ok(Chunk {
        entries,
        is_last: progress == DumpProgress::Done && !begins_again,
        begins_again,
        malformed,
    })
}
