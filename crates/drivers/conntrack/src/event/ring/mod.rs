//! Events from a ring buffer, which a filter of a netlink socket fills.
//!
//! The kernel wakes the reader for a record that begins where the reader has given everything
//! back. So a read gives back what the read before it handed out, and only a read that finds
//! nothing says [`ReadOutcome::Drained`]: as long as the reader has something to do nobody is
//! woken, and never is a record left behind by a reader that sleeps.

mod memory;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::Map;
use aya::programs::{ProgramError, SocketFilter};
use aya::{Ebpf, EbpfError, EbpfLoader};
use rustix::event::epoll;

use self::memory::{Counter, Ring};
use super::{EVENTS_PER_READ_MAX, Event, ReadOutcome};
use crate::netlink::constants::CONNTRACK_GROUPS;
use crate::netlink::parse;
use crate::netlink::socket::{NetlinkError, Received, Socket};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/changes.bpf.o"));

/// The largest ring of the kernel's that anybody needs.
const RING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Nothing is ever queued there.
const QUEUE_BYTES: usize = 4096;
/// What the program writes in front of a message: losses, length.
const HEAD_BYTES: usize = 8;
const FILTER: &str = "keep_change";

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The kernel did not take the program or its maps.
    #[error(
        "cannot load the program that fills the ring of connection events (needs CAP_BPF and \
         Linux 5.8): {0}"
    )]
    Load(#[source] Box<EbpfError>),
    /// The compiled program is not the one that this was written for.
    #[error("the program that fills the ring of connection events has no {name}")]
    Layout {
        /// The map or program.
        name: &'static str,
    },
    /// The ring's memory could not be had.
    #[error("cannot map the ring of connection events: {0}")]
    Map(#[source] io::Error),
    /// There is no descriptor that waits for it.
    #[error("cannot wait for the ring of connection events: {0}")]
    Wait(#[source] io::Error),
    /// There is no socket to fill the ring.
    #[error("cannot fill the ring of connection events: {0}")]
    Socket(#[from] NetlinkError),
}

#[derive(Debug)]
pub(super) struct RingSource {
    ring: Ring,
    ring_bytes: u64,
    losses: Losses,
    /// Nothing is queued here; losses before the filter are told as an error of the socket.
    socket: Socket,
    /// Ring and socket, to be waited for.
    both: OwnedFd,
    /// The ring's descriptor, on which `both` waits, and the program.
    _maps: [Map; 2],
    _program: Ebpf,
    malformed: u64,
}

impl RingSource {
    /// Subscribes in the network namespace of the calling thread, with a ring of `ring_bytes`,
    /// which becomes the next power of two.
    pub(super) fn open(ring_bytes: usize) -> Result<Self, RingError> {
        let ring_bytes = ring_bytes
            .clamp(rustix::param::page_size(), RING_BYTES_MAX)
            .next_power_of_two();
        let mut program = EbpfLoader::new()
            .btf(None)
            .map_max_entries("changes", u32::try_from(ring_bytes).unwrap_or(u32::MAX))
            .load(PROGRAM)
            .map_err(|error| RingError::Load(Box::new(error)))?;
        let mut take = |name| program.take_map(name).ok_or(RingError::Layout { name });
        let maps = [take("changes")?, take("losses")?];
        let [Map::RingBuf(changes), Map::Array(losses)] = &maps else {
            return Err(RingError::Layout { name: "ring" });
        };
        let ring = Ring::map(changes.fd().as_fd(), ring_bytes).map_err(RingError::Map)?;
        let losses = Losses::new(Counter::map(losses.fd().as_fd()).map_err(RingError::Map)?);

        let socket = Socket::open(0, QUEUE_BYTES)?;
        let both = wait_for(changes.fd().as_fd(), socket.as_fd()).map_err(RingError::Wait)?;
        attach(&mut program, &socket)?;
        // Not before the filter is there: nothing is to be queued.
        socket.join(CONNTRACK_GROUPS)?;
        Ok(Self {
            ring,
            ring_bytes: u64::try_from(ring_bytes).unwrap_or(u64::MAX),
            losses,
            socket,
            both,
            _maps: maps,
            _program: program,
            malformed: 0,
        })
    }

    pub(super) fn read(
        &mut self,
        out: &mut Vec<Event>,
        ignored: Option<u32>,
    ) -> Result<ReadOutcome, NetlinkError> {
        self.ring.release();
        for handed_out in 0..EVENTS_PER_READ_MAX {
            let position = self.ring.position();
            let Some(record) = self.ring.peek() else {
                if handed_out > 0 {
                    break;
                }
                return self.drained();
            };
            let end = record.end;
            let head = record.bytes.split_at_checked(HEAD_BYTES);
            let (head, message) = head.unwrap_or((record.bytes, &[]));
            self.losses.note(word(head, 0));
            // The record stays: it is newer than the loss.
            if self.losses.is_due(position) {
                return Ok(self.losses.tell(position + self.ring_bytes));
            }
            let length = usize::try_from(word(head, 4)).unwrap_or(usize::MAX);
            let message = message.get(..length).unwrap_or_default();
            // A notice of a loss has no message.
            let message = parse::messages(message).next();
            match message.and_then(|message| Event::from_message(&message, ignored)) {
                Some(Ok(event)) => out.push(event),
                Some(Err(_)) => self.malformed += 1,
                None => {}
            }
            self.ring.advance(end);
        }
        Ok(ReadOutcome::More)
    }

    /// What to say when the ring was found empty.
    fn drained(&mut self) -> Result<ReadOutcome, NetlinkError> {
        self.losses.look();
        self.losses.statement_end = 0;
        if self.losses.owed > 0 {
            return Ok(self.losses.tell(0));
        }
        // The kernel had no memory for a message; this also takes the error off the socket.
        Ok(match self.socket.receive()? {
            Received::Overrun => ReadOutcome::Overrun { lost: None },
            Received::Datagram(_) => ReadOutcome::More,
            Received::Empty => ReadOutcome::Drained,
        })
    }

    pub(super) fn discard_waiting(&mut self) -> Result<(), NetlinkError> {
        while let Some(record) = self.ring.peek() {
            let end = record.end;
            self.ring.advance(end);
        }
        self.ring.release();
        self.losses.look();
        self.losses.owed = 0;
        self.losses.statement_end = 0;
        while !matches!(self.socket.receive()?, Received::Empty) {}
        Ok(())
    }

    pub(super) const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for RingSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}

/// What was lost, and what was said of it.
#[derive(Debug)]
struct Losses {
    counter: Counter,
    /// The count up to which losses are in `owed` or told.
    noted: u32,
    owed: u64,
    /// Position in the ring up to which nothing more is said; 0 when the ring was empty since.
    statement_end: u64,
}

impl Losses {
    fn new(counter: Counter) -> Self {
        Self {
            counter,
            noted: 0,
            owed: 0,
            statement_end: 0,
        }
    }

    /// The count that a record carries. Processors may overtake each other, so it can be older
    /// than one seen before.
    fn note(&mut self, count: u32) {
        let more = count.wrapping_sub(self.noted);
        if more.cast_signed() > 0 {
            self.owed += u64::from(more);
            self.noted = count;
        }
    }

    fn look(&mut self) {
        // As many bits as a record has room for.
        let count = self.counter.load() & u64::from(u32::MAX);
        self.note(u32::try_from(count).unwrap_or_default());
    }

    fn is_due(&self, position: u64) -> bool {
        self.owed > 0 && position >= self.statement_end
    }

    fn tell(&mut self, statement_end: u64) -> ReadOutcome {
        self.statement_end = statement_end;
        let lost = Some(std::mem::take(&mut self.owed));
        ReadOutcome::Overrun { lost }
    }
}

/// An epoll descriptor that is readable when one of them is, or has an error.
fn wait_for(ring: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for fd in [ring, socket] {
        epoll::add(
            &both,
            fd,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::IN,
        )?;
    }
    Ok(both)
}

fn attach(program: &mut Ebpf, socket: &Socket) -> Result<(), RingError> {
    let refused = |error: ProgramError| RingError::Load(Box::new(error.into()));
    let filter = program
        .program_mut(FILTER)
        .ok_or(RingError::Layout { name: FILTER })?;
    let filter: &mut SocketFilter = filter.try_into().map_err(refused)?;
    filter.load().map_err(refused)?;
    filter.attach(socket.as_fd()).map_err(refused)?;
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}
