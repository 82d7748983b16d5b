//! Time, timers and priority for the thread that must not be late.
#![expect(unsafe_code, reason = "scheduling has no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use vnfpool_model::Time;

/// The highest priority taken; the kernel's own threads that matter run at 50 or above.
pub const PRIORITY_MAX: u8 = 50;

/// Why the thread cannot be made less likely to be late. It can go on without.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealtimeError {
    /// Real-time scheduling is not permitted.
    #[error(
        "real-time scheduling is not permitted: add CAP_SYS_NICE or LimitRTPRIO={priority} to \
         the service; under full load heartbeats may be late"
    )]
    PriorityNotPermitted {
        /// The priority that was asked for.
        priority: u8,
    },
    /// Locking memory is not permitted.
    #[error(
        "locking memory is not permitted: add CAP_IPC_LOCK or LimitMEMLOCK=infinity to the \
         service; under memory pressure heartbeats may be late"
    )]
    LockNotPermitted,
    /// The kernel refused for another reason.
    #[error("cannot {action}")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The boot-time clock: the one that the gate compares lease deadlines with.
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    // Neither part is negative on this clock.
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Time(part(now.tv_sec) * NANOS_PER_SECOND + part(now.tv_nsec))
}

/// Puts the calling thread into the real-time class `SCHED_FIFO`, with at most
/// [`PRIORITY_MAX`]. Threads and processes that it starts are ordinary again.
///
/// # Errors
/// [`RealtimeError::PriorityNotPermitted`], which says what to add.
pub fn prioritize_this_thread(priority: u8) -> Result<(), RealtimeError> {
    let priority = priority.clamp(1, PRIORITY_MAX);
    let parameter = libc::sched_param {
        sched_priority: i32::from(priority),
    };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: thread 0 is the calling one; the parameter lives through the call.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(if source.kind() == io::ErrorKind::PermissionDenied {
        RealtimeError::PriorityNotPermitted { priority }
    } else {
        RealtimeError::Kernel {
            action: "set the scheduling class",
            source,
        }
    })
}

/// Keeps every page that this process touches in memory, from now on. Pages that it never touches
/// are not brought in, so it gets no larger.
///
/// # Errors
/// [`RealtimeError::LockNotPermitted`], which says what to add.
pub fn lock_memory() -> Result<(), RealtimeError> {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|errno| match errno {
        Errno::PERM | Errno::NOMEM => RealtimeError::LockNotPermitted,
        errno => RealtimeError::Kernel {
            action: "lock memory",
            source: errno.into(),
        },
    })
}

/// A timer for absolute times on the boot-time clock; readable when its time has come.
#[derive(Debug)]
pub struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn new() -> Result<Self, RealtimeError> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let descriptor = timerfd_create(TimerfdClockId::Boottime, flags);
        let descriptor = descriptor.map_err(|errno| RealtimeError::Kernel {
            action: "create a timer",
            source: errno.into(),
        })?;
        Ok(Self { descriptor })
    }

    /// Sets the timer, instead of what it was set to; one in the past ends at once, and
    /// [`Time::NEVER`] turns it off.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn set(&self, time: Time) -> Result<(), RealtimeError> {
        let at = match time {
            // To the kernel zero means "off".
            Time::NEVER => Time::ZERO,
            Time::ZERO => Time(1),
            time => time,
        };
        let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let setting = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: part(at.0 / NANOS_PER_SECOND),
                tv_nsec: part(at.0 % NANOS_PER_SECOND),
            },
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &setting)
            .map(drop)
            .map_err(|errno| RealtimeError::Kernel {
                action: "set a timer",
                source: errno.into(),
            })
    }

    /// Says whether the time has come since this was last asked or the timer was last set, and
    /// makes the timer unreadable again. Never blocks.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn take_expired(&self) -> Result<bool, RealtimeError> {
        let mut count = [0; 8];
        match rustix::io::read(&self.descriptor, &mut count) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(errno) => Err(RealtimeError::Kernel {
                action: "read a timer",
                source: errno.into(),
            }),
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn wait(timer: &Timer) {
        let polled = &mut [PollFd::new(timer, PollFlags::IN)];
        assert_eq!(poll(polled, None).unwrap(), 1);
    }

    #[test]
    fn timers_end_not_before_their_time() {
        let timer = Timer::new().unwrap();
        let at = now().after(Duration::from_millis(20));
        timer.set(at).unwrap();
        wait(&timer);
        assert!(now() >= at);
        assert!(timer.take_expired().unwrap());
        assert!(!timer.take_expired().unwrap());
        for past in [Time::ZERO, Time(1), now()] {
            timer.set(past).unwrap();
            wait(&timer);
            assert!(timer.take_expired().unwrap());
        }
        timer.set(Time::ZERO).unwrap();
        wait(&timer);
        timer.set(Time::NEVER).unwrap();
        assert!(!timer.take_expired().unwrap(), "setting forgets the past");
    }

    /// Needs the privilege, as the other tests of this crate do.
    #[test]
    fn a_thread_gets_real_time_priority() {
        let thread = std::thread::spawn(|| {
            prioritize_this_thread(u8::MAX).unwrap();
            std::fs::read_to_string("/proc/thread-self/stat").unwrap()
        });
        let stat = thread.join().unwrap();
        // After the name in brackets, which may have spaces: fields 3, 4, …; policy is field 41.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        assert_eq!((fields[40 - 3], fields[41 - 3]), ("50", "1"));
        lock_memory().unwrap();
    }
}
