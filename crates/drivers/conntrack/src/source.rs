//! The active's side: the kernel's changes and table, as inputs of the sender's machine.

use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use vnfpool_statesync::{Change, Item, SenderInput};

use crate::codec;
use crate::dump::{Dump, DumpProgress, Family, Fetcher};
use crate::entry::{Entry, ProtocolState};
use crate::event::{Event, EventSource, ReadOutcome};
use crate::netlink::socket::NetlinkError;
use crate::reset::ResetGuard;
use crate::scope::Scope;

/// Reads the connections of the function from the kernel, in the order that
/// [`SenderInput::ScanChunk`] and [`SenderInput::Overrun`] ask for. Everything it gives has to
/// reach the machine in that order, from one thread: the one that opened it, since its sockets are
/// of that thread's network namespace and are opened anew after an overrun.
#[derive(Debug)]
pub struct Source {
    events: EventSource,
    buffer_bytes: usize,
    fetcher: Fetcher,
    guard: ResetGuard,
    ignored: Option<u32>,
    scope: Scope,
    dump: Option<(u32, Dump)>,
    waiting: Vec<Event>,
    buffer: BytesMut,
    malformed: u64,
}

impl Source {
    /// Subscribes to the changes of the calling thread's network namespace; `buffer_bytes` as in
    /// [`EventSource::open`] ([`crate::EVENT_BUFFER_BYTES`] is a good choice).
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(scope: Scope, buffer_bytes: usize) -> Result<Self, NetlinkError> {
        Ok(Self {
            events: EventSource::open(buffer_bytes)?,
            buffer_bytes,
            fetcher: Fetcher::open()?,
            guard: ResetGuard::open()?,
            ignored: None,
            scope,
            dump: None,
            waiting: Vec::new(),
            buffer: BytesMut::new(),
            malformed: 0,
        })
    }

    /// Leaves out what the sink with the netlink port `port` does, if this element also holds
    /// connections for others in the same table: as [`EventSource::ignore`], also after overruns.
    pub const fn ignore(&mut self, port: u32) {
        self.ignored = Some(port);
        self.events.ignore(port);
    }

    /// Appends waiting changes to `out`; never blocks for longer than the kernel takes to answer.
    /// After a loss this appends [`SenderInput::Overrun`], drops what was queued before it, and
    /// says [`ReadOutcome::Overrun`].
    ///
    /// # Errors
    /// [`NetlinkError`]: open another source and begin the stream anew.
    pub fn read(&mut self, out: &mut Vec<SenderInput>) -> Result<ReadOutcome, NetlinkError> {
        let outcome = self.events.read(&mut self.waiting)?;
        let mut waiting = std::mem::take(&mut self.waiting);
        for event in waiting.drain(..) {
            self.guard.observe(&event, &self.scope)?;
            if let Some(change) = self.change(event)? {
                out.push(SenderInput::Change(change));
            }
        }
        self.waiting = waiting;
        // A refusal leaves the connection closed, as it would be without the guard.
        self.guard.flush()?;
        if outcome == ReadOutcome::Overrun {
            self.malformed += self.events.malformed();
            self.events = EventSource::open(self.buffer_bytes)?;
            if let Some(port) = self.ignored {
                self.events.ignore(port);
            }
            out.push(SenderInput::Overrun);
        }
        Ok(outcome)
    }

    /// Begins to read the whole table; a reading under way is dropped.
    ///
    /// # Errors
    /// As [`Dump::start`].
    pub fn start_scan(&mut self, generation: u32) -> Result<(), NetlinkError> {
        self.dump = Some((generation, Dump::start(Family::All)?));
        Ok(())
    }

    /// Drops the reading under way.
    pub fn abort_scan(&mut self) {
        self.dump = None;
    }

    /// Reads the next chunk of the table, or nothing when no reading is under way.
    ///
    /// # Errors
    /// As [`Dump::next_chunk`]: the reading is over then, start another one.
    pub fn read_chunk(&mut self) -> Result<Option<SenderInput>, NetlinkError> {
        let Some((generation, mut dump)) = self.dump.take() else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        let progress = dump.next_chunk(&mut entries)?;
        entries.retain(|entry| self.scope.covers(entry));
        let is_last = match progress {
            DumpProgress::More => {
                self.dump = Some((generation, dump));
                false
            }
            // The kernel says that it left entries out: all over again, in the same scan.
            DumpProgress::Done if dump.interrupted() => {
                self.dump = Some((generation, Dump::start(Family::All)?));
                false
            }
            DumpProgress::Done => {
                self.malformed += dump.malformed();
                true
            }
        };
        let items = entries.into_iter().map(|entry| self.item(entry));
        Ok(Some(SenderInput::ScanChunk {
            generation,
            items: items.collect(),
            is_last,
        }))
    }

    /// Messages of the kernel that were not understood; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed + self.events.malformed()
    }

    fn change(&mut self, event: Event) -> Result<Option<Change>, NetlinkError> {
        let change = match event {
            Event::New(entry) | Event::Update(entry) if !self.scope.covers(&entry) => {
                return Ok(None);
            }
            Event::Destroy(key) if !self.scope.may_cover(&key) => return Ok(None),
            Event::New(entry) => Change::Put {
                item: self.item(entry),
                is_new: true,
            },
            Event::Update(entry) => {
                // What ended meanwhile: its end is waiting to be read.
                let Some(entry) = self.whole(entry)? else {
                    return Ok(None);
                };
                Change::Put {
                    item: self.item(entry),
                    is_new: false,
                }
            }
            Event::Destroy(key) => {
                codec::encode_key(&key, &mut self.buffer);
                Change::Delete {
                    key: self.buffer.split().freeze(),
                }
            }
        };
        Ok(Some(change))
    }

    /// The connection of an UPDATE event, of which ctnetlink tells only what changed (and its master
    /// hardly ever).
    fn whole(&mut self, entry: Entry) -> Result<Option<Entry>, NetlinkError> {
        self.fetcher.get(&entry.key)
    }

    fn item(&mut self, mut entry: Entry) -> Item {
        entry.status = entry.status.replicated();
        // Whether this kernel still learns says nothing about the next one.
        if let ProtocolState::Tcp(tcp) = &mut entry.state {
            *tcp = tcp.learnt();
        }
        if self.buffer.capacity() < codec::ENTRY_BYTES_MAX {
            self.buffer.reserve(BUFFER_BYTES);
        }
        codec::item(&entry, &mut self.buffer)
    }
}

/// Items share so much memory: it is free again when the last of them is.
const BUFFER_BYTES: usize = 16 * 1024;

impl AsFd for Source {
    /// Readable when changes wait. It changes with an overrun.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
