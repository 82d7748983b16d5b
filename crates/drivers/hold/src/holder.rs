//! The holder: queue, programs and rules together.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::time::{ClockId, clock_getres};

use crate::connection::{self, Connection};
use crate::error::HoldError;
use crate::observe::Observer;
use crate::queue::Queue;
use crate::rules::Rules;

/// Most packets that a queue may hold.
pub const QUEUE_LENGTH_MAX: u32 = 65_536;
/// Bytes of a record in the ring, with its header: 120, rounded up to a power of two, and less.
const RING_BYTES_PER_RECORD: u32 = 128;
const RING_BYTES_PER_RECORD_MIN: u32 = 64;
/// Numbers beyond any that is given out already, and not yet wrapped.
const IDS_AHEAD: u32 = 1 << 30;
/// Longest name of an interface, without its NUL.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// What is to be held, and how much of it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of the queue, which no other process in the network namespace may use.
    pub queue: u16,
    /// Packets that are held at most, a power of two up to [`QUEUE_LENGTH_MAX`]. Beyond it they pass.
    pub length: u32,
    /// Interfaces by which the packets leave; none: all.
    pub interfaces: Vec<String>,
}

/// A held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number in the queue. Numbers rise by one and wrap.
    pub id: u32,
    /// Its connection; none if it could not be told, which does not happen to forwarded packets
    /// of a kernel without PREEMPT_RT.
    pub connection: Option<Connection>,
}

/// What has happened so far, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Held.
    pub held: u64,
    /// Released.
    pub released: u64,
    /// Of the held ones, those without a connection.
    pub unmatched: u64,
    /// Passed without being held, because the queue was full or gone.
    pub overflowed: u64,
}

/// Holds the first packets of connections. Dropping it takes the rules away and lets go of what is
/// held.
#[derive(Debug)]
pub struct Holder {
    rules: Rules,
    observer: Observer,
    queue: Queue,
    ring_bytes: u32,
    ticks_per_second: u32,
    held: u64,
    released: u64,
    unmatched: u64,
    untold: u64,
    /// The last number that came out of the ring, and the last that was released.
    last_collected: u32,
    last_released: u32,
    unread: Vec<Held>,
}

impl Holder {
    /// Holds packets in the network namespace of the calling thread from now on.
    ///
    /// # Errors
    /// [`HoldError::Taken`] while another process does; [`HoldError::Options`]; else what the kernel
    /// refused.
    pub fn open(options: &Options) -> Result<Self, HoldError> {
        if !options.length.is_power_of_two() || options.length > QUEUE_LENGTH_MAX {
            return Err(HoldError::Options(
                "the queue's length has to be a power of two up to 65536",
            ));
        }
        let fits = |name: &String| (1..=INTERFACE_NAME_BYTES_MAX).contains(&name.len());
        if !options.interfaces.iter().all(fits) {
            return Err(HoldError::Options(
                "an interface's name has to be of 1 to 15 bytes",
            ));
        }
        let queue = Queue::open(options.queue, options.length)?;
        // Room for everything that the queue can hold, and as much again for packets that were
        // released with others before their records were read.
        let ring_bytes = (2 * options.length * RING_BYTES_PER_RECORD).max(4096);
        let observer = Observer::attach(&queue, ring_bytes)?;
        let rules = Rules::install(options.queue, &options.interfaces)?;
        Ok(Self {
            rules,
            observer,
            queue,
            ring_bytes,
            ticks_per_second: ticks_per_second(),
            held: 0,
            released: 0,
            unmatched: 0,
            untold: 0,
            last_collected: 0,
            last_released: 0,
            unread: Vec::new(),
        })
    }

    /// Appends the packets that are held since the last call, in the order of their numbers.
    /// Makes no system call.
    pub fn read(&mut self, out: &mut Vec<Held>) {
        self.collect();
        out.append(&mut self.unread);
    }

    /// Makes the next packet wake whoever waits for the descriptor, once. Returns whether there is
    /// something to read already: then do not wait.
    ///
    /// # Errors
    /// What the kernel refused; packets are still held, and [`Holder::release_all`] is the way out.
    pub fn arm(&mut self) -> Result<bool, HoldError> {
        self.queue.hush()?;
        self.observer.arm()?;
        self.collect_all()?;
        Ok(!self.unread.is_empty())
    }

    /// Lets go of all held packets up to number `id`, in the order of their numbers. When this
    /// returns, they are on their way.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn release_through(&mut self, id: u32) -> Result<(), HoldError> {
        let count = id.wrapping_sub(self.last_released);
        // Nothing, or a number from before the last one: numbers wrap.
        if count.cast_signed() <= 0 {
            return Ok(());
        }
        self.queue.accept_through(id)?;
        self.released += u64::from(count);
        self.last_released = id;
        Ok(())
    }

    /// Lets go of everything that is held, read or not.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn release_all(&mut self) -> Result<(), HoldError> {
        self.queue
            .accept_through(self.last_released.wrapping_add(IDS_AHEAD))?;
        self.collect();
        self.release_through(self.last_collected)
    }

    /// What has happened so far.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn statistics(&mut self) -> Result<Statistics, HoldError> {
        // In this order: of what the rules have counted, everything that the queue took is
        // collected.
        let queued = self.rules.queued()?;
        self.collect_all()?;
        Ok(Statistics {
            held: self.held,
            released: self.released,
            unmatched: self.unmatched,
            overflowed: queued.saturating_sub(self.held),
        })
    }

    /// Ticks of [`Connection::timeout_ticks`] in a second.
    #[must_use]
    pub const fn ticks_per_second(&self) -> u32 {
        self.ticks_per_second
    }

    /// Moves what is in the ring to `unread`, at most a whole ring; returns whether it is empty.
    fn collect(&mut self) -> bool {
        for _ in 0..self.ring_bytes / RING_BYTES_PER_RECORD_MIN {
            let record = self.observer.next(connection::parse);
            let Some((id, connection)) = record.flatten() else {
                return true;
            };
            let ahead = id.wrapping_sub(self.last_collected);
            // Not one that was taken for untold already.
            if ahead.cast_signed() > 0 {
                self.collect_untold(ahead - 1);
                self.push(Held { id, connection });
            }
        }
        false
    }

    /// Like `collect`, with the packets that no record came after that found room: nothing else
    /// shows that they are there.
    fn collect_all(&mut self) -> Result<(), HoldError> {
        if self.collect() {
            let untold = self.observer.untold()?.saturating_sub(self.untold);
            self.collect_untold(u32::try_from(untold).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// The next `count` packets have no record; their numbers are known all the same.
    fn collect_untold(&mut self, count: u32) {
        for _ in 0..count {
            self.untold += 1;
            self.push(Held {
                id: self.last_collected.wrapping_add(1),
                connection: None,
            });
        }
    }

    fn push(&mut self, held: Held) {
        self.held += 1;
        self.unmatched += u64::from(held.connection.is_none());
        self.last_collected = held.id;
        self.unread.push(held);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // What fails here is done by the kernel when the sockets are closed, but for the packets
        // that are held: those are dropped then.
        let _ = self.rules.stop();
        let _ = self.release_all();
    }
}

impl AsFd for Holder {
    /// Becomes readable with the first packet after [`Holder::arm`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// The kernel's `HZ`: its coarse clocks advance by one tick.
fn ticks_per_second() -> u32 {
    let tick = clock_getres(ClockId::MonotonicCoarse);
    let nanoseconds = u64::try_from(tick.tv_nsec).unwrap_or(0).max(1);
    u32::try_from(1_000_000_000_u64.div_ceil(nanoseconds)).unwrap_or(u32::MAX)
}
