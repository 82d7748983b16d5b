//! The kernel's stream of changes to its table.

use std::os::fd::{AsFd, BorrowedFd};

use crate::entry::Entry;
use crate::netlink::constants::{CONNTRACK_GROUPS, CT_DELETE, CT_NEW, NLM_F_CREATE};
use crate::netlink::parse::{self, Message};
use crate::netlink::socket::{NetlinkError, Received, Socket};
use crate::tuple::Key;

/// Default size of the socket's receive buffer: about 40 000 waiting events, of which the kernel
/// counts some 800 bytes each. It costs memory only while events wait.
pub const EVENT_BUFFER_BYTES: usize = 32 * 1024 * 1024;

/// Most events that one [`EventSource::read`] hands out.
pub const EVENTS_PER_READ_MAX: usize = 1024;

/// A change of the kernel's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was confirmed. The entry is complete.
    New(Entry),
    /// A connection changed. What did not change may be missing: see [`Entry::is_complete`].
    Update(Entry),
    /// A connection is gone.
    Destroy(Key),
}

impl Event {
    /// The connection it is about.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::New(entry) | Self::Update(entry) => &entry.key,
            Self::Destroy(key) => key,
        }
    }
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Everything that the kernel had queued is read.
    Drained,
    /// There may be more: read again.
    More,
    /// The kernel lost events since the last read. What was read is valid, but the copy has to be
    /// brought up to date by a new dump. Read again for what came after.
    Overrun,
}

/// A subscription to the connection tracking events of one network namespace.
#[derive(Debug)]
pub struct EventSource {
    socket: Socket,
    ignored: Option<u32>,
    malformed: u64,
}

impl EventSource {
    /// Subscribes in the network namespace of the calling thread, with a receive buffer of
    /// `buffer_bytes`. See [`crate::enable_events`] for the setting that this needs.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(CONNTRACK_GROUPS, buffer_bytes)?,
            ignored: None,
            malformed: 0,
        })
    }

    /// Leaves out from now on what the socket with the netlink port `port` does
    /// ([`crate::Sink::port`]): what came from another element must not go back to it.
    pub const fn ignore(&mut self, port: u32) {
        self.ignored = Some(port);
    }

    /// Appends waiting events to `out`, at most [`EVENTS_PER_READ_MAX`]; never blocks.
    ///
    /// # Errors
    /// [`NetlinkError::Receive`] when the socket is broken: open another one and resynchronise.
    pub fn read(&mut self, out: &mut Vec<Event>) -> Result<ReadOutcome, NetlinkError> {
        for _ in 0..EVENTS_PER_READ_MAX {
            match self.socket.receive()? {
                Received::Empty => return Ok(ReadOutcome::Drained),
                Received::Overrun => return Ok(ReadOutcome::Overrun),
                Received::Datagram(datagram) => {
                    for message in parse::messages(datagram) {
                        if self.ignored == Some(message.port) {
                            continue;
                        }
                        match event(&message) {
                            Some(Ok(event)) => out.push(event),
                            Some(Err(_)) => self.malformed += 1,
                            None => {}
                        }
                    }
                }
            }
        }
        Ok(ReadOutcome::More)
    }

    /// Events that were not understood since the subscription; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for EventSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn event(message: &Message<'_>) -> Option<Result<Event, parse::ParseError>> {
    match message.kind {
        CT_NEW if message.flags & NLM_F_CREATE != 0 => Some(parse::entry(message).map(Event::New)),
        CT_NEW => Some(parse::entry(message).map(Event::Update)),
        CT_DELETE => Some(parse::entry(message).map(|entry| Event::Destroy(entry.key))),
        _ => None,
    }
}
