//! One clock for every probe, tap and fault: nanoseconds of `CLOCK_MONOTONIC`.
//!
//! All namespaces of the laboratory share one kernel, so times taken in different
//! namespaces compare directly.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// A moment of `CLOCK_MONOTONIC`, in nanoseconds.
pub(crate) type Nanos = u64;

/// One millisecond in [`Nanos`].
pub(crate) const MILLISECOND: Nanos = 1_000_000;

/// The present moment.
pub(crate) fn now() -> Nanos {
    nanos_of(clock_gettime(ClockId::Monotonic))
}

/// What has to be added to `CLOCK_MONOTONIC` to get `CLOCK_REALTIME`, in nanoseconds, just now.
///
/// The kernel stamps received frames with the real-time clock. The difference is sampled for
/// every batch of frames, so that a stepped clock disturbs one batch at most.
pub(crate) fn realtime_offset() -> i128 {
    let monotonic = i128::from(now());
    let realtime = i128::from(nanos_of(clock_gettime(ClockId::Realtime)));
    realtime - monotonic
}

/// Sleeps until `at`; returns at once when `at` has passed.
pub(crate) fn sleep_until(at: Nanos) {
    let request = Timespec {
        tv_sec: i64::try_from(at / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(at % 1_000_000_000).unwrap_or(0),
    };
    // A signal may end the sleep early: the callers pace themselves by the clock anyway.
    let _interrupted = clock_nanosleep_absolute(ClockId::Monotonic, &request);
}

/// A duration in [`Nanos`].
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A span of nanoseconds in milliseconds, for people and reports.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are three months")]
pub(crate) fn millis(span: Nanos) -> f64 {
    span as f64 / 1e6
}

fn nanos_of(t: Timespec) -> Nanos {
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}
