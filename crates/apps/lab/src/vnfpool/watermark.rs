//! What a new active says that it may not have, as its log tells it.

use rustix::time::{ClockId, clock_gettime};

use crate::clock::{self, Nanos};

/// The statement about the kernel's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermark {
    /// So many changes at most are missing.
    pub(crate) missing_at_most: u64,
    /// None of them is older than this, but for so many.
    pub(crate) missing_since: Nanos,
    pub(crate) known_missing: u64,
}

impl Watermark {
    /// The last statement in a part of a log.
    pub(super) fn parse(log: &str) -> Option<Self> {
        Self::parse_at(log, boottime_offset())
    }

    /// `offset`: what `CLOCK_BOOTTIME`, which agents use, is ahead of our clock.
    fn parse_at(log: &str, offset: Nanos) -> Option<Self> {
        let is_it = |line: &&str| {
            line.contains("watermark of the copy that serves now")
                && line.contains(" class=conntrack ")
        };
        let line = log.lines().rfind(is_it)?;
        let field = |name: &str| -> Option<u64> {
            let (_, rest) = line.split_once(&format!(" {name}="))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            missing_at_most: field("missing_at_most")?,
            missing_since: field("missing_since_boottime_ns")?.checked_sub(offset)?,
            known_missing: field("known_missing")?,
        })
    }
}

fn boottime_offset() -> Nanos {
    let boottime = clock_gettime(ClockId::Boottime);
    let monotonic = clock::now();
    let nanos = boottime.tv_sec.unsigned_abs() * 1_000_000_000 + boottime.tv_nsec.unsigned_abs();
    // The two differ by the time in suspend, or, where there was none, by that between the calls.
    nanos.saturating_sub(monotonic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_statement_about_connections_is_read() {
        let line = |class: &str, missing: &str| {
            format!(
                "12:00 INFO watermark of the copy that serves now slot=1 class={class} in_sync=true \
                 entries=9 changes=8 known_missing=2 complete_until_us_before=7{missing}\n"
            )
        };
        let complete = " missing_at_most=6 missing_since=2026-01-01T00:00:00Z \
                        missing_since_boottime_ns=1000";
        let newest = complete.replace("=6", "=60");
        let log = line("conntrack", complete) + &line("conntrack", &newest) + &line("x", complete);
        let statement = Watermark {
            missing_at_most: 60,
            missing_since: 900,
            known_missing: 2,
        };
        assert_eq!(Watermark::parse_at(&log, 100), Some(statement));
        assert_eq!(Watermark::parse_at(&line("conntrack", ""), 0), None);
        assert_eq!(Watermark::parse_at("", 0), None);
    }
}
