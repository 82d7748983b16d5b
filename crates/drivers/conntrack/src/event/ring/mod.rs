//! Events from a ring buffer, which a filter of a netlink socket fills.
//!
//! The reader sleeps on the socket. Before it says [`ReadOutcome::Drained`] it asks the filter for
//! the bell, one message that is let into the socket's queue, and looks at the ring once more. So
//! as long as it has something to do nobody is woken, and no record is left behind.

mod memory;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::Map;
use aya::programs::{ProgramError, SocketFilter};
use aya::{Ebpf, EbpfError, EbpfLoader};

use self::memory::{Ring, Shared};
use super::{EVENTS_PER_READ_MAX, Event, ReadOutcome};
use crate::netlink::constants::CONNTRACK_GROUPS;
use crate::netlink::parse;
use crate::netlink::socket::{NetlinkError, Received, Socket};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/changes.bpf.o"));

/// The largest ring of the kernel's that anybody needs.
const RING_BYTES_MAX: usize = 256 * 1024 * 1024;
/// For the bell: one message waits, or two when it rings just as the reader looks again.
const QUEUE_BYTES: usize = 64 * 1024;
/// What the program writes in front of a message: losses, length.
const HEAD_BYTES: usize = 8;
const FILTER: &str = "keep_change";
/// More than ever wait.
const BELLS_MAX: usize = 16;

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
    /// There is no socket to fill the ring.
    #[error("cannot fill the ring of connection events: {0}")]
    Socket(#[from] NetlinkError),
}

#[derive(Debug)]
pub(super) struct RingSource {
    ring: Ring,
    ring_bytes: u64,
    shared: Shared,
    losses: Losses,
    /// Takes itself off the socket when it is dropped, so it goes first.
    _program: Ebpf,
    /// The bell; losses in front of the filter are told as an error of the socket.
    socket: Socket,
    /// Whether the bell was asked for.
    asleep: bool,
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
        let ring = match program.map("changes") {
            Some(Map::RingBuf(map)) => Ring::map(map.fd().as_fd(), ring_bytes),
            _ => return Err(RingError::Layout { name: "changes" }),
        };
        let shared = match program.map("shared_map") {
            Some(Map::Array(map)) => Shared::map(map.fd().as_fd()),
            _ => return Err(RingError::Layout { name: "shared_map" }),
        };
        let socket = Socket::open(0, QUEUE_BYTES)?;
        attach(&mut program, &socket)?;
        let shared = shared.map_err(RingError::Map)?;
        // The reader may wait before it reads for the first time.
        shared.set_asleep(true);
        // Not before the filter is there: nothing else is to be queued.
        socket.join(CONNTRACK_GROUPS)?;
        Ok(Self {
            ring: ring.map_err(RingError::Map)?,
            ring_bytes: u64::try_from(ring_bytes).unwrap_or(u64::MAX),
            shared,
            losses: Losses::default(),
            _program: program,
            socket,
            asleep: true,
            malformed: 0,
        })
    }

    pub(super) fn read(
        &mut self,
        out: &mut Vec<Event>,
        ignored: Option<u32>,
    ) -> Result<ReadOutcome, NetlinkError> {
        self.ring.release();
        if self.asleep && self.wake_up()? == Woken::ByLoss {
            return Ok(ReadOutcome::Overrun { lost: None });
        }
        for handed_out in 0..EVENTS_PER_READ_MAX {
            let position = self.ring.position();
            let Some(record) = self.ring.peek() else {
                if handed_out > 0 {
                    break;
                }
                return Ok(self.drained());
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
    fn drained(&mut self) -> ReadOutcome {
        self.asleep = true;
        self.shared.set_asleep(true);
        if self.ring.peek().is_some() {
            return ReadOutcome::More;
        }
        self.losses.note(low_half(self.shared.lost()));
        self.losses.statement_end = 0;
        if self.losses.owed > 0 {
            return self.losses.tell(0);
        }
        ReadOutcome::Drained
    }

    /// Takes the bell off the socket, and the error with which the kernel says that it had no
    /// memory for a message.
    fn wake_up(&mut self) -> Result<Woken, NetlinkError> {
        self.shared.set_asleep(false);
        self.asleep = false;
        for _ in 0..BELLS_MAX {
            match self.socket.receive()? {
                Received::Empty => break,
                Received::Datagram(_) => {}
                Received::Overrun => return Ok(Woken::ByLoss),
            }
        }
        Ok(Woken::ByBell)
    }

    pub(super) fn discard_waiting(&mut self) -> Result<(), NetlinkError> {
        self.wake_up()?;
        // Before the last look, as in `drained`: what comes after it is rung for.
        self.asleep = true;
        self.shared.set_asleep(true);
        while let Some(record) = self.ring.peek() {
            let end = record.end;
            self.ring.advance(end);
        }
        self.ring.release();
        self.losses = Losses {
            noted: low_half(self.shared.lost()),
            ..Losses::default()
        };
        Ok(())
    }

    pub(super) const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for RingSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    ByBell,
    ByLoss,
}

/// What was lost, and what was said of it.
#[derive(Debug, Default)]
struct Losses {
    /// The count up to which losses are in `owed` or told.
    noted: u32,
    owed: u64,
    /// Position in the ring up to which nothing more is said; 0 when the ring was empty since.
    statement_end: u64,
}

impl Losses {
    /// The count that a record carries. Processors may overtake each other, so it can be older
    /// than one seen before.
    fn note(&mut self, count: u32) {
        let more = count.wrapping_sub(self.noted);
        if more.cast_signed() > 0 {
            self.owed += u64::from(more);
            self.noted = count;
        }
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

/// As many bits as a record has room for.
fn low_half(count: u64) -> u32 {
    u32::try_from(count & u64::from(u32::MAX)).unwrap_or_default()
}
