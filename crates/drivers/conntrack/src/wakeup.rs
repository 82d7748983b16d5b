//! One descriptor that is readable when any of several is, or when a time has come.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::netlink::socket::NetlinkError;

#[derive(Debug)]
pub(crate) struct Wakeup {
    epoll: OwnedFd,
    timer: OwnedFd,
}

impl Wakeup {
    pub(crate) fn new() -> Result<Self, NetlinkError> {
        let open = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
            Ok(Self { epoll, timer })
        };
        let wakeup: Self = open().map_err(opening)?;
        wakeup.watch(wakeup.timer.as_fd())?;
        Ok(wakeup)
    }

    /// A descriptor that is closed is no longer watched.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let data = EventData::new_u64(0);
        epoll::add(&self.epoll, fd, data, EventFlags::IN).map_err(opening)
    }

    /// As [`Wakeup::watch`], of one that may be watched already.
    pub(crate) fn watch_again(&self, fd: BorrowedFd<'_>) -> Result<(), NetlinkError> {
        let data = EventData::new_u64(0);
        match epoll::add(&self.epoll, fd, data, EventFlags::IN) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(opening(error)),
        }
    }

    /// Readable at `due` at the latest; none: whenever.
    pub(crate) fn at(&self, due: Option<Instant>) -> Result<(), NetlinkError> {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        // Zero would disarm the timer.
        let left = left.map_or(Duration::ZERO, |left| left.max(Duration::from_nanos(1)));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timer = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &timer)
            .map(|_| ())
            .map_err(opening)
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn opening(error: rustix::io::Errno) -> NetlinkError {
    NetlinkError::Open(io::Error::from(error))
}
