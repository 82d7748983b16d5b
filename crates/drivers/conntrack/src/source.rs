//! The active's side: the kernel's changes and table, as inputs of the sender's machine.

use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use vnfpool_statesync::{Change, SenderInput};

use crate::codec;
use crate::dump::{Dump, DumpProgress, Family, Fetcher};
use crate::entry::{Entry, ProtocolState};
use crate::event::{Event, EventSource, ReadOutcome};
use crate::netlink::socket::NetlinkError;
use crate::scope::Scope;
use crate::tuple::Key;

/// Reads the connections of the function from the kernel, in the order that
/// [`SenderInput::SnapshotChunk`] and [`SenderInput::Overrun`] ask for. Everything it gives has to
/// reach the machine in that order, from one thread: the one that opened it, since its sockets are
/// of that thread's network namespace and are opened anew after an overrun.
#[derive(Debug)]
pub struct Source {
    events: EventSource,
    fetcher: Fetcher,
    scope: Scope,
    dump: Option<(u32, Dump)>,
    waiting: Vec<Event>,
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
            fetcher: Fetcher::open()?,
            scope,
            dump: None,
            waiting: Vec::new(),
            malformed: 0,
        })
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
            if let Some(change) = self.change(event)? {
                out.push(SenderInput::Change(change));
            }
        }
        self.waiting = waiting;
        if matches!(outcome, ReadOutcome::Overrun { .. }) {
            self.events.discard_waiting()?;
            out.push(SenderInput::Overrun);
        }
        Ok(outcome)
    }

    /// Begins to read the whole table; a reading under way is dropped.
    ///
    /// # Errors
    /// As [`Dump::start`].
    pub fn start_snapshot(&mut self, generation: u32) -> Result<(), NetlinkError> {
        self.dump = Some((generation, Dump::start(Family::All)?));
        Ok(())
    }

    /// Drops the reading under way.
    pub fn abort_snapshot(&mut self) {
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
            // The kernel says that it left entries out: all over again, in the same snapshot.
            DumpProgress::Done if dump.interrupted() => {
                self.dump = Some((generation, Dump::start(Family::All)?));
                false
            }
            DumpProgress::Done => {
                self.malformed += dump.malformed();
                true
            }
        };
        Ok(Some(SenderInput::SnapshotChunk {
            generation,
            entries: entries
                .iter()
                .map(|entry| (key_bytes(&entry.key), entry_bytes(entry)))
                .collect(),
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
            Event::New(entry) => Change::New {
                key: key_bytes(&entry.key),
                entry: entry_bytes(&entry),
            },
            Event::Update(entry) => {
                let key = key_bytes(&entry.key);
                let entry = if entry.is_complete() {
                    entry
                } else if let Some(whole) = self.fetcher.get(&entry.key)? {
                    whole
                } else {
                    // It ended meanwhile; its end is waiting to be read.
                    return Ok(None);
                };
                Change::Update {
                    key,
                    entry: entry_bytes(&entry),
                }
            }
            Event::Destroy(key) => Change::Delete {
                key: key_bytes(&key),
            },
        };
        Ok(Some(change))
    }
}

impl AsFd for Source {
    /// Readable when changes wait. It changes with an overrun.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

fn entry_bytes(entry: &Entry) -> Bytes {
    let mut entry = entry.clone();
    // Whether this kernel still learns says nothing about the next one.
    if let ProtocolState::Tcp(tcp) = &mut entry.state {
        *tcp = tcp.learnt();
    }
    let mut bytes = Vec::with_capacity(codec::ENTRY_BYTES_MAX);
    codec::encode_entry(&entry, &mut bytes);
    Bytes::copy_from_slice(&bytes)
}

fn key_bytes(key: &Key) -> Bytes {
    let mut bytes = Vec::with_capacity(codec::ENTRY_BYTES_MAX);
    codec::encode_key(key, &mut bytes);
    Bytes::copy_from_slice(&bytes)
}
