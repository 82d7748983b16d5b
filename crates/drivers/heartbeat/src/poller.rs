//! Waiting for datagrams, other threads and a point in time, all at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Why there can be no poller.
#[derive(Debug, thiserror::Error)]
#[error("create the {what} of the heartbeat thread")]
pub struct PollerError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// That there is something to read.
    Read,
    /// That there is something to read, or room to write.
    ReadOrWrite,
}

/// Wakes the thread that waits in [`Poller::wait`]; cheap, from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Wakes the thread; many calls before it looks count as one.
    pub fn wake(&self) {
        // The counter can only overflow when the thread is woken already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// An absolute timer on the boot-time clock and an event, polled together with sockets.
///
/// The timer is absolute: a thread that is late is late once and does not drift.
#[derive(Debug)]
pub struct Poller {
    timer: OwnedFd,
    event: Waker,
}

impl Poller {
    /// Creates the timer and the event.
    ///
    /// # Errors
    /// [`PollerError`] when the kernel has no descriptors left.
    pub fn new() -> Result<Self, PollerError> {
        let timer =
            timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK).map_err(|e| {
                PollerError {
                    what: "timer",
                    source: e.into(),
                }
            })?;
        let event = eventfd(0, EventfdFlags::NONBLOCK).map_err(|e| PollerError {
            what: "event",
            source: e.into(),
        })?;
        Ok(Self {
            timer,
            event: Waker(Arc::new(event)),
        })
    }

    /// A handle that wakes this poller.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.event.clone()
    }

    /// Waits until one of `sockets` can be read, a waker was used, or the boot-time clock shows
    /// `deadline_ns`. Spurious returns are allowed.
    pub fn wait<'a>(&'a self, sockets: impl Iterator<Item = BorrowedFd<'a>>, deadline_ns: u64) {
        self.wait_for(sockets.map(|fd| (fd, Interest::Read)), deadline_ns);
    }

    /// As [`Poller::wait`], for what each descriptor is wanted for.
    pub fn wait_for<'a>(
        &'a self,
        sockets: impl Iterator<Item = (BorrowedFd<'a>, Interest)>,
        deadline_ns: u64,
    ) {
        let it_value = Timespec {
            tv_sec: i64::try_from(deadline_ns / 1_000_000_000).unwrap_or(i64::MAX),
            // Zero would disarm the timer.
            tv_nsec: i64::try_from(deadline_ns % 1_000_000_000)
                .unwrap_or(0)
                .max(1),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timer = Itimerspec {
            it_interval,
            it_value,
        };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer).is_err() {
            // Cannot be with our own descriptor; never spin if it is.
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        let own = [self.timer.as_fd(), self.event.0.as_fd()];
        let mut polled = Vec::with_capacity(FDS_EXPECTED);
        let own = own.into_iter().map(|fd| (fd, Interest::Read));
        polled.extend(own.chain(sockets).map(|(fd, interest)| {
            let flags = match interest {
                Interest::Read => PollFlags::IN,
                Interest::ReadOrWrite => PollFlags::IN | PollFlags::OUT,
            };
            PollFd::from_borrowed_fd(fd, flags)
        }));
        // Interrupted by a signal: a spurious return.
        let _ = poll(&mut polled, None);
        let mut counter = [0; 8];
        let _ = rustix::io::read(&*self.event.0, &mut counter);
    }
}

/// Room for the descriptors of one wait without growing.
const FDS_EXPECTED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_ends_a_long_wait() {
        let poller = Poller::new().unwrap();
        let waker = poller.waker();
        let thread = std::thread::spawn(move || waker.wake());
        // Without the waker this would last for ever.
        poller.wait(std::iter::empty(), u64::MAX / 2);
        thread.join().unwrap();
    }

    #[test]
    fn a_deadline_in_the_past_does_not_wait() {
        Poller::new().unwrap().wait(std::iter::empty(), 1);
    }
}
