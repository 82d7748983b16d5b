//! The kernel's stream of changes to its table.
//!
//! ```text
//! kernel --message--> filter of the socket --> ring in shared memory --> RingSource    (preferred)
//! kernel --message--> queue of the socket --> recv                   --> NetlinkSource (fall-back)
//! ```
//!
//! The messages are the same, so are the events. See decision 0021 for why there are two.

mod netlink;
mod ring;

use std::os::fd::{AsFd, BorrowedFd};

use crate::entry::Entry;
use crate::netlink::constants::{CT_DELETE, CT_NEW, NLM_F_CREATE};
use crate::netlink::parse::{self, Message};
use crate::netlink::socket::NetlinkError;
use crate::tuple::Key;
use netlink::NetlinkSource;
pub use ring::RingError;
use ring::RingSource;

/// Default room for waiting events: about 40 000 in the queue of a socket, of which the kernel
/// counts some 800 bytes each, or 47 000 small ones in a ring of a quarter of it. A queue costs
/// memory only while events wait, a ring all the time.
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

    /// None for messages that speak of something else, or are of the netlink port `ignored`.
    fn from_message(
        message: &Message<'_>,
        ignored: Option<u32>,
    ) -> Option<Result<Self, parse::ParseError>> {
        match message.kind {
            _ if ignored == Some(message.port) => None,
            CT_NEW if message.flags & NLM_F_CREATE != 0 => {
                Some(parse::entry(message).map(Self::New))
            }
            CT_NEW => Some(parse::entry(message).map(Self::Update)),
            CT_DELETE => Some(parse::entry(message).map(|entry| Self::Destroy(entry.key))),
            _ => None,
        }
    }
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Everything that the kernel had to say is read; [`EventSource::as_fd`] tells of more.
    Drained,
    /// There may be more: read again.
    More,
    /// The kernel lost events. What was read is valid, but the copy has to be brought up to date.
    /// Read again for what came after.
    ///
    /// A ring says it where the gap is: what was read before is older than the loss, what is read
    /// later is newer. While the ring stays full it makes one statement per ring that was read,
    /// and one when it is empty again. A socket says it as soon as it happens, in front of what
    /// it has queued, and keeps nothing more until it is empty.
    Overrun {
        /// How many were lost since the last time, if that is known.
        lost: Option<u64>,
    },
}

/// How events come from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventSourceKind {
    /// Through a ring buffer in shared memory.
    Ring,
    /// Through the queue of a netlink socket.
    Netlink,
}

/// A subscription to the connection tracking events of one network namespace.
#[derive(Debug)]
pub struct EventSource {
    way: Way,
    fallback_reason: Option<RingError>,
    ignored: Option<u32>,
}

#[derive(Debug)]
enum Way {
    Ring(Box<RingSource>),
    Netlink(NetlinkSource),
}

impl EventSource {
    /// Subscribes in the network namespace of the calling thread: with a ring of a quarter of
    /// `buffer_bytes`, or, where the machine does not allow that, with a socket's queue of
    /// `buffer_bytes`. See [`crate::enable_events`] for the setting that this needs.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        match Self::open_ring(buffer_bytes) {
            Ok(source) => Ok(source),
            Err(reason) => Ok(Self {
                fallback_reason: Some(reason),
                ..Self::open_netlink(buffer_bytes)?
            }),
        }
    }

    /// Like [`EventSource::open`], with a ring or not at all.
    ///
    /// # Errors
    /// [`RingError`]: what the ring needs and does not have.
    pub fn open_ring(buffer_bytes: usize) -> Result<Self, RingError> {
        let ring = RingSource::open(buffer_bytes / RING_SHARE)?;
        Ok(Self {
            way: Way::Ring(Box::new(ring)),
            fallback_reason: None,
            ignored: None,
        })
    }

    /// Like [`EventSource::open`], with a socket's queue in any case.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open_netlink(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        Ok(Self {
            way: Way::Netlink(NetlinkSource::open(buffer_bytes)?),
            fallback_reason: None,
            ignored: None,
        })
    }

    /// How events come.
    #[must_use]
    pub const fn kind(&self) -> EventSourceKind {
        match self.way {
            Way::Ring(_) => EventSourceKind::Ring,
            Way::Netlink(_) => EventSourceKind::Netlink,
        }
    }

    /// Why [`EventSource::open`] had to do without a ring.
    #[must_use]
    pub const fn fallback_reason(&self) -> Option<&RingError> {
        self.fallback_reason.as_ref()
    }

    /// Leaves out from now on what the socket with the netlink port `port` does
    /// ([`crate::Sink::port`]): what came from another element must not go back to it.
    pub const fn ignore(&mut self, port: u32) {
        self.ignored = Some(port);
    }

    /// Appends waiting events to `out`, at most [`EVENTS_PER_READ_MAX`]; never blocks.
    ///
    /// # Errors
    /// [`NetlinkError::Receive`] when the socket is broken: open another source and resynchronise.
    pub fn read(&mut self, out: &mut Vec<Event>) -> Result<ReadOutcome, NetlinkError> {
        match &mut self.way {
            Way::Ring(ring) => ring.read(out, self.ignored),
            Way::Netlink(netlink) => netlink.read(out, self.ignored),
        }
    }

    /// Drops what waits, where a dump that begins afterwards tells all of it. The descriptor may
    /// be another one then. To be called from the thread that opened the source.
    ///
    /// # Errors
    /// As [`EventSource::open_netlink`].
    pub fn discard_waiting(&mut self) -> Result<(), NetlinkError> {
        match &mut self.way {
            Way::Ring(ring) => ring.discard_waiting(),
            Way::Netlink(netlink) => netlink.discard_waiting(),
        }
    }

    /// Events that were not understood since the subscription; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        match &self.way {
            Way::Ring(ring) => ring.malformed(),
            Way::Netlink(netlink) => netlink.malformed(),
        }
    }
}

impl AsFd for EventSource {
    /// Readable when events wait or were lost.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.way {
            Way::Ring(ring) => ring.as_fd(),
            Way::Netlink(netlink) => netlink.as_fd(),
        }
    }
}

/// A waiting event takes less than a quarter in a ring of what it takes in a queue.
const RING_SHARE: usize = 4;
