//! The pace that fits the silences that were measured.

use std::fmt;
use std::time::Duration;

use vnfpool_model::{LeaseBounds, Pace, Time};

/// Heartbeats in a lease.
const HEARTBEATS: u32 = 5;

/// A lease bridges a silence so many times as long as the longest one, and one heartbeat interval:
/// the worst of tomorrow is longer than the worst of today.
const HEADROOM: u32 = 3;

/// A silence that uses up more of the lease than this asks for a longer one. Two heartbeats that are
/// lost in a row do not: they are a matter of how many there are in a lease, not of its length.
const TIGHT_PERCENT: u32 = 70;

/// The longest silence is remembered for so many of [`BUCKET`].
const BUCKETS: usize = 10;
const BUCKET: Duration = Duration::from_secs(60);

/// A silence that the lease in force did not bridge has cost something; it is remembered longer.
const TOO_SHORT_FOR: Duration = Duration::from_secs(3_600);

/// The lease becomes shorter one step at a time, and no sooner than this after the step before.
const CALM: Duration = Duration::from_secs(60);

/// Lease times in milliseconds: Renard's R10 preferred numbers (ISO 3), each a quarter above the
/// one before, so that small changes of what is measured change nothing.
const STEPS_MS: [u32; 37] = [
    5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630,
    800, 1_000, 1_250, 1_600, 2_000, 2_500, 3_150, 4_000, 5_000, 6_300, 8_000, 10_000, 12_500,
    16_000, 20_000,
];

/// Chooses the pace of a slot's terms within the operator's bounds.
///
/// It becomes slower at once when a silence asks for it, and faster step by step after calm times. A
/// silence longer than the longest lease allowed is a failure, not a lease that was too short.
#[derive(Clone, Debug)]
pub struct Pacer {
    bounds: LeaseBounds,
    pace: Pace,
    /// The longest excess in each of the last minutes, and when the newest of them began.
    buckets: [Duration; BUCKETS],
    bucket_since: Time,
    /// The longest excess that the lease of its time did not bridge, and when it was.
    too_short: Option<(Time, Duration)>,
    changed_at: Time,
    /// Since when something has been measured without a break.
    measured_since: Option<Time>,
}

/// Why the pace is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The pace.
    pub pace: Pace,
    /// By how much the longest silence that matters was longer than a heartbeat interval.
    pub longest_excess: Duration,
    /// It was longer than the lease of its time.
    pub was_too_short: bool,
    /// The bound that keeps the lease from what the silences ask for.
    pub limit: Option<Limit>,
    /// What they ask for, in milliseconds.
    pub wanted_lease_ms: u32,
    /// The operator's bounds.
    pub bounds: LeaseBounds,
}

/// An operator's bound that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// A shorter lease would do.
    Min,
    /// A longer lease would be needed: takeovers without cause are possible.
    Max,
}

impl Pacer {
    /// Begins with `pace`, which is in force.
    #[must_use]
    pub fn new(bounds: LeaseBounds, pace: Pace, now: Time) -> Self {
        Self {
            bounds,
            pace: at_lease(pace.lease_ms.clamp(bounds.min_ms, bounds.max_ms)),
            buckets: [Duration::ZERO; BUCKETS],
            bucket_since: now,
            too_short: None,
            changed_at: now,
            measured_since: None,
        }
    }

    /// Takes a report: by how much the longest silence of the last seconds was longer than a
    /// heartbeat interval, zero if none was measured; and the pace in force at that time. Returns
    /// the pace for the terms to come.
    pub fn observe(&mut self, now: Time, excess: Duration, in_force: Pace) -> Pace {
        self.turn(now);
        let longest = Duration::from_millis(self.bounds.max_ms.into());
        if excess.is_zero() || excess >= longest {
            self.measured_since = None;
            return self.pace;
        }
        let measured_since = *self.measured_since.get_or_insert(now);
        self.buckets[0] = self.buckets[0].max(excess);
        let silence = excess + Duration::from_millis(in_force.heartbeat_interval_ms.into());
        let lease_then = Duration::from_millis(in_force.lease_ms.into());
        let known = self.recent_too_short(now);
        if silence >= lease_then && known.is_none_or(|known| excess >= known) {
            self.too_short = Some((now, excess));
        }
        let (wanted, _) = self.wanted(now);
        let lease = wanted.clamp(self.bounds.min_ms, self.bounds.max_ms);
        let calm_since = self.changed_at.max(measured_since);
        if lease > self.pace.lease_ms {
            let pace = Duration::from_millis(self.pace.lease_ms.into());
            if silence > pace * TIGHT_PERCENT / 100 {
                self.change(now, lease);
            }
        } else if lease < self.pace.lease_ms && now.since(calm_since) >= CALM {
            let step = STEPS_MS.iter().rev().find(|s| **s < self.pace.lease_ms);
            self.change(now, step.map_or(lease, |step| lease.max(*step)));
        }
        self.pace
    }

    /// The pace and the reason for it.
    #[must_use]
    pub fn advice(&self, now: Time) -> Advice {
        let (wanted_lease_ms, longest_excess) = self.wanted(now);
        let limit = if wanted_lease_ms > self.bounds.max_ms {
            Some(Limit::Max)
        } else if wanted_lease_ms < self.bounds.min_ms && self.pace.lease_ms == self.bounds.min_ms {
            Some(Limit::Min)
        } else {
            None
        };
        Advice {
            pace: self.pace,
            longest_excess,
            was_too_short: self.recent_too_short(now) == Some(longest_excess),
            limit,
            wanted_lease_ms,
            bounds: self.bounds,
        }
    }

    /// The lease that the silences ask for, in milliseconds, and the longest of them.
    fn wanted(&self, now: Time) -> (u32, Duration) {
        let in_window = self.buckets.iter().copied().max().unwrap_or_default();
        let longest = in_window.max(self.recent_too_short(now).unwrap_or_default());
        // One of the heartbeats of a lease is its interval; the others are for the silence.
        let least = longest * (HEADROOM * HEARTBEATS) / (HEARTBEATS - 1);
        let enough = |step: &&u32| Duration::from_millis(u64::from(**step)) >= least;
        let last = STEPS_MS[STEPS_MS.len() - 1];
        (
            STEPS_MS.iter().find(enough).copied().unwrap_or(last),
            longest,
        )
    }

    fn recent_too_short(&self, now: Time) -> Option<Duration> {
        let (at, excess) = self.too_short?;
        (now.since(at) < TOO_SHORT_FOR).then_some(excess)
    }

    fn change(&mut self, now: Time, lease_ms: u32) {
        self.pace = at_lease(lease_ms);
        self.changed_at = now;
    }

    fn turn(&mut self, now: Time) {
        for _ in 0..BUCKETS {
            if now.since(self.bucket_since) < BUCKET {
                return;
            }
            self.buckets.rotate_right(1);
            self.buckets[0] = Duration::ZERO;
            self.bucket_since = self.bucket_since.after(BUCKET);
        }
        // All of them are empty; nothing was reported for long.
        self.bucket_since = now;
    }
}

/// The pace with this lease.
fn at_lease(lease_ms: u32) -> Pace {
    Pace {
        heartbeat_interval_ms: (lease_ms / HEARTBEATS).max(1),
        lease_ms,
    }
}

impl fmt::Display for Advice {
    /// One sentence for `status` and the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bounds, .. } = self;
        let ms = self.longest_excess.as_secs_f64() * 1e3;
        write!(f, "auto, {} to {} ms: ", bounds.min_ms, bounds.max_ms)?;
        match (self.longest_excess.is_zero(), self.was_too_short) {
            (true, _) => write!(f, "no silence measured yet")?,
            (_, false) => write!(
                f,
                "the longest silence of the last minutes was {ms:.1} ms longer than a heartbeat interval"
            )?,
            (_, true) => write!(
                f,
                "a silence {ms:.1} ms longer than a heartbeat interval outlasted the lease of its time"
            )?,
        }
        match self.limit {
            Some(Limit::Max) => write!(
                f,
                "; that asks for a lease of {} ms, which is not allowed: takeovers without cause are \
                 possible, raise lease_max_ms",
                self.wanted_lease_ms
            ),
            Some(Limit::Min) => write!(f, "; lease_min_ms allows no shorter lease"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const BOUNDS: LeaseBounds = LeaseBounds {
        min_ms: 20,
        max_ms: 250,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn pacer() -> Watched {
        Watched(Pacer::new(BOUNDS, at_lease(50), Time(SECOND)))
    }

    /// A pacer whose word is in force at once.
    struct Watched(Pacer);

    impl Watched {
        fn observe(&mut self, now: Time, excess: Duration) -> Pace {
            let in_force = self.0.pace;
            self.0.observe(now, excess, in_force)
        }

        fn advice(&self, now: Time) -> Advice {
            self.0.advice(now)
        }
    }

    #[test]
    fn a_long_silence_slows_down_at_once() {
        let mut pacer = pacer();
        assert_eq!(pacer.observe(Time(2 * SECOND), ms(2)).lease_ms, 50);
        let pace = pacer.observe(Time(3 * SECOND), ms(26));
        assert_eq!((pace.lease_ms, pace.heartbeat_interval_ms), (100, 20));
        let advice = pacer.advice(Time(3 * SECOND));
        assert_eq!((advice.longest_excess, advice.limit), (ms(26), None));
        assert!(!advice.was_too_short);
        assert!(advice.to_string().contains("26.0 ms longer"), "{advice}");
    }

    #[test]
    fn calm_times_make_it_faster_step_by_step_down_to_the_bound() {
        let mut pacer = pacer();
        let mut seen = vec![50];
        for second in 2..900 {
            let lease = pacer.observe(Time(second * SECOND), ms(1)).lease_ms;
            if seen.last() != Some(&lease) {
                seen.push(lease);
            }
        }
        assert_eq!(seen, [50, 40, 32, 25, 20]);
        assert_eq!(pacer.advice(Time(900 * SECOND)).limit, Some(Limit::Min));
    }

    #[test]
    fn one_bad_minute_is_forgotten_after_ten() {
        let mut pacer = pacer();
        pacer.observe(Time(2 * SECOND), ms(26));
        for second in 3..600 {
            let lease = pacer.observe(Time(second * SECOND), ms(1)).lease_ms;
            assert_eq!(lease, 100, "after {second} s");
        }
        assert_eq!(pacer.observe(Time(700 * SECOND), ms(1)).lease_ms, 80);
    }

    /// Two lost heartbeats are a silence of three intervals at any pace: a longer lease would have
    /// as many of them.
    #[test]
    fn lost_heartbeats_do_not_drive_the_lease_up() {
        let mut pacer = pacer();
        for second in 2..2_000 {
            let interval = pacer.0.pace.heartbeat_interval_ms;
            let pace = pacer.observe(Time(second * SECOND), ms(u64::from(interval) * 2));
            assert!(pace.lease_ms <= 50, "{pace:?} after {second} s");
        }
    }

    /// Without a partner nobody knows how long its silences would be.
    #[test]
    fn what_was_not_measured_is_no_calm() {
        let mut pacer = pacer();
        for second in 2..2_000 {
            assert_eq!(
                pacer
                    .observe(Time(second * SECOND), Duration::ZERO)
                    .lease_ms,
                50
            );
        }
        for second in 2_000..2_059 {
            assert_eq!(pacer.observe(Time(second * SECOND), ms(1)).lease_ms, 50);
        }
        assert_eq!(pacer.observe(Time(2_060 * SECOND), ms(1)).lease_ms, 40);
    }

    /// A silence is held against the lease that was in force, not against one that is only wished.
    #[test]
    fn the_lease_in_force_is_the_one_that_was_too_short() {
        let mut wishes = Pacer::new(BOUNDS, at_lease(250), Time(SECOND));
        wishes.observe(Time(2 * SECOND), ms(55), at_lease(50));
        assert!(wishes.advice(Time(2 * SECOND)).was_too_short);
        let mut wishes = Pacer::new(BOUNDS, at_lease(20), Time(SECOND));
        wishes.observe(Time(2 * SECOND), ms(20), at_lease(250));
        assert!(!wishes.advice(Time(2 * SECOND)).was_too_short);
    }

    /// A takeover without cause must not come back every ten minutes.
    #[test]
    fn a_lease_that_was_too_short_is_remembered_for_an_hour() {
        let mut pacer = pacer();
        let pace = pacer.observe(Time(2 * SECOND), ms(45));
        assert_eq!(pace.lease_ms, 200);
        let advice = pacer.advice(Time(2 * SECOND));
        assert!(advice.was_too_short && advice.to_string().contains("outlasted"));
        for second in 3..3_000 {
            let pace = pacer.observe(Time(second * SECOND), ms(1));
            assert_eq!(pace.lease_ms, 200, "after {second} s");
        }
        assert_eq!(pacer.observe(Time(3_700 * SECOND), ms(1)).lease_ms, 160);
        // The next one is remembered as well, though it is a shorter one.
        for second in 3_701..5_000 {
            pacer.observe(Time(second * SECOND), ms(1));
        }
        assert_eq!(pacer.0.pace.lease_ms, 20);
        let pace = pacer.observe(Time(5_000 * SECOND), ms(18));
        for second in 5_001..8_000 {
            assert_eq!(pacer.observe(Time(second * SECOND), ms(1)), pace);
        }
    }

    #[test]
    fn a_failure_is_no_short_lease_and_a_bound_is_told() {
        let mut pacer = pacer();
        assert_eq!(pacer.observe(Time(2 * SECOND), ms(4_000)).lease_ms, 50);
        assert_eq!(pacer.observe(Time(3 * SECOND), ms(240)).lease_ms, 250);
        let advice = pacer.advice(Time(3 * SECOND));
        assert_eq!(
            (advice.limit, advice.wanted_lease_ms),
            (Some(Limit::Max), 1_000)
        );
        assert!(
            advice.to_string().contains("raise lease_max_ms"),
            "{advice}"
        );
    }

    #[test]
    fn a_pace_out_of_bounds_is_brought_into_them() {
        let slow = Pacer::new(BOUNDS, at_lease(1_000), Time(SECOND));
        assert_eq!(slow.advice(Time(SECOND)).pace, at_lease(250));
        assert!(slow.advice(Time(SECOND)).to_string().contains("no silence"));
    }

    proptest! {
        /// Whatever is reported: the bounds hold, and no silence of the last minutes within them
        /// would have outlasted the lease, unless the bound forbids a longer one.
        #[test]
        fn the_lease_bridges_what_was_seen(
            reports in prop::collection::vec((1..120u64, 0..400_000u64), 1..200),
            min in 5..60u32,
            room in 0..1_000u32,
        ) {
            let bounds = LeaseBounds { min_ms: min, max_ms: min + room };
            let mut pacer = Watched(Pacer::new(bounds, at_lease(50), Time(SECOND)));
            let mut now = Time(SECOND);
            let mut seen = Vec::new();
            for (wait_s, excess_us) in reports {
                now = now.after(Duration::from_secs(wait_s));
                let excess = Duration::from_micros(excess_us);
                let pace = pacer.observe(now, excess);
                seen.push((now, excess));
                prop_assert!((bounds.min_ms..=bounds.max_ms).contains(&pace.lease_ms));
                prop_assert!(pace.heartbeat_interval_ms >= 1);
                let lease = ms(pace.lease_ms.into());
                let longest = ms(bounds.max_ms.into());
                let recent = seen.iter().filter(|(at, excess)| {
                    now.since(*at) < BUCKET * 9 && *excess < longest
                });
                let worst = recent.map(|(_, excess)| *excess).max().unwrap_or_default();
                let interval = ms(pace.heartbeat_interval_ms.into());
                let bridged = worst + interval <= lease * TIGHT_PERCENT / 100;
                prop_assert!(bridged || pace.lease_ms == bounds.max_ms || worst < ms(2),
                    "{pace:?} for {worst:?}");
            }
        }
    }
}
