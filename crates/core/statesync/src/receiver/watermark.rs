//! What a failover can say of what was lost.

use std::time::Duration;

use vnfpool_model::Time;

use crate::wire::record::Mark;

/// The difference of the clocks is taken anew in steps of this, so that their drift does not add
/// up.
const WINDOW: Duration = Duration::from_secs(10);

/// Over how long changes are counted for their rate, at least: between two marks of a stream that
/// has something to tell.
const RATE_OVER: Duration = Duration::from_millis(25);

/// What the copy holds, as a statement that stays true when the active is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    /// Everything that changed at the active before this, by this machine's clock, is applied. None
    /// before the first complete copy.
    pub complete_until: Option<Time>,
    /// Changes of the stream that are applied.
    pub changes: u64,
    /// Changes a second, lately.
    pub changes_per_s: u64,
    /// The most that there were in the last 10 to 20 s, counted from mark to mark.
    pub changes_per_s_max: u64,
    /// Entries that were told and are not in the copy as they were told: those that its table refused
    /// or lost.
    pub known_missing: u64,
}

impl Watermark {
    /// How many changes are missing at `now` at most, if the active went on until then and made them
    /// no faster than in the last seconds, and what is known to be missing of those before.
    #[must_use]
    pub fn missing(&self, now: Time) -> Option<u64> {
        let since = now.since(self.complete_until?);
        let since_us = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        let made = self.changes_per_s_max.saturating_mul(since_us);
        Some(made.div_ceil(1_000_000).saturating_add(self.known_missing))
    }
}

/// Follows the marks of a stream.
///
/// A mark says when it was sent by the active's clock. The least difference between arrival and
/// that is the difference of the clocks plus the shortest way; so the mark was sent no earlier, by
/// this clock, than its time plus that difference less the shortest round trip.
#[derive(Debug, Default)]
pub(super) struct Follower {
    /// Marks received whose sequence is not applied yet, newest last; few, since each one asks for
    /// an acknowledgement.
    waiting: Vec<(u64, Reached)>,
    /// Least difference in this window and the one before, and when the window began.
    least: [Option<i128>; 2],
    window_at: Time,
    /// When, by the active's clock, and how many changes were told then.
    rate: Option<(Time, u64)>,
    /// Highest rates in this window and the one before, and when the window began.
    most_per_s: [u64; 2],
    most_at: Time,
    watermark: Watermark,
}

#[derive(Clone, Copy, Debug)]
struct Reached {
    complete_until: Time,
    mark: Mark,
}

/// Marks that wait to be applied at most; older ones are worth nothing beside newer ones.
const WAITING_MAX: usize = 64;

impl Follower {
    pub(super) fn received(&mut self, now: Time, sequence: u64, mark: Mark) {
        if now.since(self.window_at) >= WINDOW {
            self.window_at = now;
            self.least.swap(0, 1);
            self.least[0] = None;
        }
        let difference = i128::from(now.0) - i128::from(mark.sent_at_ns);
        let least = self.least[0].map_or(difference, |least| least.min(difference));
        self.least[0] = Some(least);
        let least = self.least[1].map_or(least, |before| before.min(least));
        let way_back = u64::from(mark.round_trip_us) + u64::from(mark.behind_us);
        let sent = i128::from(mark.sent_at_ns) + least - i128::from(way_back) * 1_000;
        let complete_until = Time(u64::try_from(sent).unwrap_or_default()).min(now);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.remove(0);
        }
        let reached = Reached {
            complete_until,
            mark,
        };
        self.waiting.push((sequence, reached));
    }

    /// Everything up to `sequence` is applied.
    pub(super) fn applied(&mut self, sequence: u64) {
        let count = self.waiting.partition_point(|(at, _)| *at <= sequence);
        let Some((_, reached)) = self.waiting.drain(..count).next_back() else {
            return;
        };
        let Reached {
            complete_until,
            mark,
        } = reached;
        let sent = Time(mark.sent_at_ns);
        let (at, changes) = *self.rate.get_or_insert((sent, mark.changes));
        let passed = sent.since(at);
        if passed >= RATE_OVER {
            let made = u128::from(mark.changes.saturating_sub(changes));
            let per_s = made * 1_000_000_000 / passed.as_nanos();
            let per_s = u64::try_from(per_s).unwrap_or(u64::MAX);
            self.rate = Some((sent, mark.changes));
            if sent.since(self.most_at) >= WINDOW {
                self.most_at = sent;
                self.most_per_s = [0, self.most_per_s[0]];
            }
            self.most_per_s[0] = self.most_per_s[0].max(per_s);
            self.watermark.changes_per_s = per_s;
            self.watermark.changes_per_s_max = self.most_per_s[0].max(self.most_per_s[1]);
        }
        self.watermark.complete_until = Some(complete_until);
        self.watermark.changes = mark.changes;
    }

    pub(super) const fn watermark(&self) -> Watermark {
        self.watermark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sent_at_ns: u64, behind_us: u32, changes: u64) -> Mark {
        Mark {
            sent_at_ns,
            behind_us,
            round_trip_us: 200,
            changes,
        }
    }

    /// Goal: whatever the difference of the clocks and however slow a mark, the copy is never said
    /// to be complete until later than it is.
    #[test]
    fn a_slow_mark_promises_no_more_than_it_carries() {
        const MS: u64 = 1_000_000;
        // The active's clock is behind by a second; the way takes 0.1 ms, once 30 ms.
        let behind = 1_000 * MS;
        let mut follower = Follower::default();
        let mut last = Time::ZERO;
        for (n, way_us) in [100, 120, 30_000, 100].into_iter().enumerate() {
            let sent = Time(5_000 * MS + 50 * MS * n as u64);
            let received = Time(sent.0 + way_us * 1_000);
            follower.received(
                received,
                n as u64 + 1,
                mark(sent.0 - behind, 0, 10 * n as u64),
            );
            assert_eq!(
                follower.watermark().complete_until,
                Some(last).filter(|at| at.0 > 0)
            );
            follower.applied(n as u64 + 1);
            let until = follower.watermark().complete_until.unwrap();
            assert!(until <= sent && sent.since(until) <= Duration::from_micros(200));
            last = until;
        }
        let watermark = follower.watermark();
        assert_eq!(watermark.changes, 30);
        assert_eq!(watermark.changes_per_s, 200);
        let later = last.after(Duration::from_millis(11));
        assert_eq!(watermark.missing(later), Some(3));
    }

    /// Goal: a pause of the changes right before the end does not make the statement smaller than what
    /// the seconds before it ask for; a peak is forgotten in the end.
    #[test]
    fn as_many_are_missing_as_at_the_highest_rate_of_the_last_seconds() {
        const MS: u64 = 1_000_000;
        let mut follower = Follower::default();
        let mut tell = |at_ms: u64, changes: u64| {
            let sequence = at_ms;
            follower.received(Time(at_ms * MS), sequence, mark(at_ms * MS, 0, changes));
            follower.applied(sequence);
            follower.watermark()
        };
        tell(10_000, 0);
        tell(10_050, 200);
        let paused = tell(10_100, 200);
        assert_eq!((paused.changes_per_s, paused.changes_per_s_max), (0, 4_000));
        let later = paused
            .complete_until
            .unwrap()
            .after(Duration::from_millis(50));
        assert_eq!(paused.missing(later), Some(200));
        let mut last = paused;
        for at_ms in (10_150..40_000).step_by(50) {
            last = tell(at_ms, 200);
        }
        assert_eq!(last.changes_per_s_max, 0);
    }

    #[test]
    fn what_the_active_had_not_read_yet_is_not_promised() {
        let mut follower = Follower::default();
        follower.received(Time(9_000_000_000), 1, mark(8_000_000_000, 700, 0));
        follower.applied(1);
        let until = follower.watermark().complete_until;
        assert_eq!(until, Some(Time(9_000_000_000 - 900_000)));
    }
}
