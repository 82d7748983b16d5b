//! The active's side: the kernel's changes and table, as inputs of the sender's machine.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use bytes::BytesMut;
use vnfpool_statesync::{Change, Item, SenderInput};

use crate::codec;
use crate::dump::{Chunk, DumpAhead, Fetcher};
use crate::event::{Event, EventSource, ReadOutcome};
use crate::expectation::codec as expectations;
use crate::expectation::{
    EXPECTATION_BUFFER_BYTES, ExpectationEvent, ExpectationSource, dump_expectations,
};
use crate::netlink::socket::NetlinkError;
use crate::reset::ResetGuard;
use crate::scope::Scope;
use crate::tuple::Key;
use crate::wakeup::Wakeup;

/// Reads the connections of the function from the kernel, in the order that
/// [`SenderInput::ScanChunk`] and [`SenderInput::Overrun`] ask for. Everything it gives has to
/// reach the machine in that order, from one thread: the one that opened it, since its sockets are
/// of that thread's network namespace and are opened anew after an overrun.
///
/// Connections come before what they have announced: their children and expectations.
#[derive(Debug)]
pub struct Source {
    events: EventSource,
    fetcher: Fetcher,
    guard: ResetGuard,
    scope: Scope,
    expected: ExpectationSource,
    wakeup: Wakeup,
    scan: Option<Scan>,
    waiting: Vec<Event>,
    buffer: BytesMut,
    malformed: u64,
}

/// A reading of the table under way.
#[derive(Debug)]
struct Scan {
    generation: u32,
    /// None when it is through, and the children and expectations are left.
    dump: Option<DumpAhead>,
    /// Connections with a master, which is to come first; read again then.
    children: Vec<Key>,
}

/// Children that one chunk reads again at most.
const CHILDREN_AT_ONCE: usize = 128;

impl Source {
    /// Subscribes to the changes of the calling thread's network namespace; `buffer_bytes` as in
    /// [`EventSource::open`] ([`crate::EVENT_BUFFER_BYTES`] is a good choice).
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(scope: Scope, buffer_bytes: usize) -> Result<Self, NetlinkError> {
        let events = EventSource::open(buffer_bytes)?;
        let expected = ExpectationSource::open(EXPECTATION_BUFFER_BYTES)?;
        let wakeup = Wakeup::new()?;
        wakeup.watch(events.as_fd())?;
        wakeup.watch(expected.as_fd())?;
        Ok(Self {
            events,
            expected,
            wakeup,
            fetcher: Fetcher::open()?,
            guard: ResetGuard::open()?,
            scope,
            scan: None,
            waiting: Vec::new(),
            buffer: BytesMut::new(),
            malformed: 0,
        })
    }

    /// How the kernel's events come, and why they come another way than preferred.
    #[must_use]
    pub const fn events(&self) -> &EventSource {
        &self.events
    }

    /// Leaves out what the sink with the netlink port `port` does, if this element also holds
    /// connections for others in the same table: as [`EventSource::ignore`], also after overruns.
    pub const fn ignore(&mut self, port: u32) {
        self.events.ignore(port);
    }

    /// Appends waiting changes to `out`; never blocks for longer than the kernel takes to answer.
    /// After a loss this appends [`SenderInput::Overrun`], drops what was queued before it, and
    /// says [`ReadOutcome::Overrun`].
    ///
    /// # Errors
    /// [`NetlinkError`]: open another source and begin the stream anew.
    pub fn read(&mut self, out: &mut Vec<SenderInput>) -> Result<ReadOutcome, NetlinkError> {
        if let Some(dump) = self.scan.as_ref().and_then(|scan| scan.dump.as_ref()) {
            dump.silence().map_err(NetlinkError::Open)?;
        }
        let outcome = self.events.read(&mut self.waiting)?;
        let mut waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.scope.look()?;
        }
        for event in waiting.drain(..) {
            self.guard.observe(&event, &self.scope)?;
            if let Some(change) = self.change(event)? {
                out.push(SenderInput::Change(change));
            }
        }
        self.waiting = waiting;
        // A refusal leaves the connection closed, as it would be without the guard.
        self.guard.flush()?;
        let agreed = self.read_expectations(out)?;
        let is_overrun = |outcome| matches!(outcome, ReadOutcome::Overrun { .. });
        if is_overrun(outcome) || is_overrun(agreed) {
            let lost = match outcome {
                ReadOutcome::Overrun { lost } => lost,
                ReadOutcome::Drained | ReadOutcome::More => None,
            };
            self.events.discard_waiting()?;
            self.wakeup.watch_again(self.events.as_fd())?;
            out.push(SenderInput::Overrun);
            return Ok(ReadOutcome::Overrun { lost });
        }
        Ok(outcome)
    }

    /// What helpers agreed on, after the connections that did.
    fn read_expectations(
        &mut self,
        out: &mut Vec<SenderInput>,
    ) -> Result<ReadOutcome, NetlinkError> {
        let mut changes = Vec::new();
        let outcome = self.expected.read(&mut changes)?;
        let mut masters = Vec::new();
        self.expected.masters(Instant::now(), &mut masters)?;
        if !changes.is_empty() || !masters.is_empty() {
            self.scope.look()?;
            self.wakeup.at(self.expected.masters_due())?;
        }
        masters.retain(|entry| self.scope.covers(entry));
        for entry in masters {
            let item = codec::item(&entry, &mut self.buffer);
            let is_new = false;
            out.push(SenderInput::Change(Change::Put { item, is_new }));
        }
        let covered = |change: &ExpectationEvent| match change {
            ExpectationEvent::New(one) => one.key.is_covered_by(&self.scope),
            ExpectationEvent::Destroy(key) => key.is_covered_by(&self.scope),
        };
        out.extend(changes.iter().filter(|one| covered(one)).map(|change| {
            SenderInput::Change(match change {
                ExpectationEvent::New(one) => Change::Put {
                    item: expectations::item(one),
                    is_new: true,
                },
                ExpectationEvent::Destroy(key) => Change::Delete {
                    key: expectations::item_key(key),
                },
            })
        }));
        Ok(outcome)
    }

    /// Begins to read the whole table; a reading under way is dropped.
    ///
    /// # Errors
    /// As [`crate::Dump::start`].
    pub fn start_scan(&mut self, generation: u32) -> Result<(), NetlinkError> {
        let dump = DumpAhead::start()?;
        self.wakeup.watch(dump.as_fd())?;
        self.scan = Some(Scan {
            generation,
            dump: Some(dump),
            children: Vec::new(),
        });
        Ok(())
    }

    /// Drops the reading under way.
    pub fn abort_scan(&mut self) {
        self.scan = None;
    }

    /// The next chunk of the table, or nothing when no reading is under way or the kernel has not
    /// given it yet. When it has, the source is readable.
    ///
    /// # Errors
    /// [`NetlinkError`]: the reading is over then, start another one.
    pub fn read_chunk(&mut self) -> Result<Option<SenderInput>, NetlinkError> {
        let Some(mut scan) = self.scan.take() else {
            return Ok(None);
        };
        let generation = scan.generation;
        let (items, is_last) = match &scan.dump {
            Some(dump) => match dump.take()? {
                Some(chunk) => (self.read_table(&mut scan, chunk)?, false),
                None => {
                    self.scan = Some(scan);
                    return Ok(None);
                }
            },
            None if scan.children.is_empty() => (self.read_expected()?, true),
            None => (self.read_children(&mut scan)?, false),
        };
        self.scan = Some(scan).filter(|_| !is_last);
        Ok(Some(SenderInput::ScanChunk {
            generation,
            items,
            is_last,
        }))
    }

    fn read_table(&mut self, scan: &mut Scan, chunk: Chunk) -> Result<Vec<Item>, NetlinkError> {
        let mut entries = chunk.entries;
        self.scope.look()?;
        entries.retain(|entry| self.scope.covers(entry));
        if chunk.begins_again {
            scan.children.clear();
        }
        if chunk.is_last {
            self.malformed += chunk.malformed;
            scan.dump = None;
        }
        let (children, others): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|entry| entry.master.is_some());
        scan.children.extend(children.iter().map(|entry| entry.key));
        Ok(others
            .into_iter()
            .map(|entry| codec::item(&entry, &mut self.buffer))
            .collect())
    }

    fn read_children(&mut self, scan: &mut Scan) -> Result<Vec<Item>, NetlinkError> {
        let rest = scan.children.len().saturating_sub(CHILDREN_AT_ONCE);
        let mut items = Vec::new();
        for key in scan.children.drain(rest..) {
            if let Some(entry) = self.fetcher.get(&key)? {
                items.push(codec::item(&entry, &mut self.buffer));
            }
        }
        Ok(items)
    }

    fn read_expected(&self) -> Result<Vec<Item>, NetlinkError> {
        let mut expected = dump_expectations()?;
        expected.retain(|one| one.key.is_covered_by(&self.scope));
        Ok(expected.iter().map(expectations::item).collect())
    }

    /// Messages of the kernel that were not understood; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed + self.events.malformed()
    }

    /// Of an UPDATE event ctnetlink tells only what changed, so the connection is read again.
    fn change(&mut self, event: Event) -> Result<Option<Change>, NetlinkError> {
        let change = match event {
            Event::New(entry) | Event::Update(entry) if !self.scope.covers(&entry) => {
                return Ok(None);
            }
            Event::Destroy(key) if !self.scope.may_cover(&key) => return Ok(None),
            Event::New(entry) => Change::Put {
                item: codec::item(&entry, &mut self.buffer),
                is_new: true,
            },
            Event::Update(told) => {
                // What ended meanwhile: its end is waiting to be read.
                let Some(entry) = self.fetcher.get(&told.key)? else {
                    return Ok(None);
                };
                // Another connection by now, whose begin may never be told: it cannot be made of
                // the one before.
                let is_new = entry.reply != told.reply;
                let item = codec::item(&entry, &mut self.buffer);
                Change::Put { item, is_new }
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
}

impl AsFd for Source {
    /// Readable when changes wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }
}
