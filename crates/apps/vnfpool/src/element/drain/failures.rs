//! Drains that failed, for metrics and the manager.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::control::DrainFailures;

/// Bytes of a reason that are kept; the function's answer is part of it.
const REASON_BYTES_MAX: usize = 400;

/// Which of both lines was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Begin,
    End,
}

impl Step {
    /// Both, in their order.
    pub(crate) const ALL: [Self; 2] = [Self::Begin, Self::End];

    /// Its word in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

/// Those of one process of the agent.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    begin: Mutex<Of>,
    end: Mutex<Of>,
}

#[derive(Clone, Debug, Default)]
struct Of {
    count: u64,
    /// The last one: why, and when.
    last: Option<(String, Time)>,
}

impl Failures {
    fn of(&self, step: Step) -> MutexGuard<'_, Of> {
        let of = match step {
            Step::Begin => &self.begin,
            Step::End => &self.end,
        };
        of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    pub(crate) fn note(&self, step: Step, mut reason: String, at: Time) {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        let mut of = self.of(step);
        of.count += 1;
        of.last = Some((reason, at));
    }

    /// How many there were.
    pub(crate) fn count(&self, step: Step) -> u64 {
        self.of(step).count
    }

    /// What the manager is told at `now`; none if there was no failure.
    pub(crate) fn report(&self, step: Step, now: Time) -> Option<DrainFailures> {
        let of = self.of(step);
        let (reason, at) = of.last.as_ref()?;
        Some(DrainFailures {
            count: of.count,
            reason: reason.clone(),
            last_ms: milliseconds(now.since(*at)),
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: each line has its own count and last reason, however long the function's answer was.
    #[test]
    fn the_last_failure_of_each_line_is_told() {
        let failures = Failures::default();
        assert_eq!(failures.report(Step::Begin, Time(1)), None);
        failures.note(Step::Begin, "gone".to_owned(), Time(1_000_000));
        failures.note(Step::Begin, "ü".repeat(9_000), Time(2_000_000));
        let told = failures.report(Step::Begin, Time(5_000_000)).unwrap();
        assert_eq!((told.count, told.last_ms), (2, 3));
        assert_eq!(told.reason, "ü".repeat(REASON_BYTES_MAX / 2));
        assert_eq!(Step::ALL.map(|step| failures.count(step)), [2, 0]);
        assert_eq!(failures.report(Step::End, Time(5_000_000)), None);
    }
}
