//! The clock of one machine: an origin and a rate of its own. True time is nanoseconds since the
//! begin of the history and is known to the simulator alone.

use vnfpool_model::Time;

const MILLION: u64 = 1_000_000;

/// What `CLOCK_BOOTTIME` is on one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since: u64,
    read_then: u64,
    /// Faster than true time by so many parts per million.
    rate_ppm: i64,
}

impl Clock {
    /// A clock that reads `origin` at true time 0.
    #[must_use]
    pub const fn new(origin: u64, rate_ppm: i64) -> Self {
        Self {
            since: 0,
            read_then: origin,
            rate_ppm,
        }
    }

    /// What it reads at true time `now`.
    #[inline]
    #[must_use]
    pub const fn read(&self, now: u64) -> Time {
        let passed = now - self.since;
        let drift = passed.cast_signed() * self.rate_ppm / MILLION.cast_signed();
        Time(
            self.read_then
                .saturating_add(passed)
                .saturating_add_signed(drift),
        )
    }

    /// The true time, not before `now`, at which it reads `reading` or a little more.
    #[inline]
    #[must_use]
    pub const fn when(&self, reading: Time, now: u64) -> u64 {
        let left = reading.0.saturating_sub(self.read(now).0);
        if left == 0 {
            return now;
        }
        let per_million = MILLION.saturating_add_signed(self.rate_ppm);
        let whole = left / per_million * MILLION;
        let rest = left % per_million * MILLION / per_million;
        now.saturating_add(whole + rest + 1)
    }

    /// Its rate.
    #[must_use]
    pub const fn rate_ppm(&self) -> i64 {
        self.rate_ppm
    }

    /// Goes on at another rate.
    pub const fn set_rate(&mut self, now: u64, rate_ppm: i64) {
        self.read_then = self.read(now).0;
        self.since = now;
        self.rate_ppm = rate_ppm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_read() {
        for rate in [-50_000, -500, 0, 1, 500, 50_000] {
            let mut clock = Clock::new(7_000, rate);
            clock.set_rate(123_456_789, -rate);
            for left in [0, 1, 999, 50_000_000, 60_000_000_000] {
                let now = 5_000_000_000;
                let reading = Time(clock.read(now).0 + left);
                let when = clock.when(reading, now);
                assert!(clock.read(when) >= reading, "{rate} {left}");
                assert!(clock.read(when).0 - reading.0 <= 3, "{rate} {left}");
            }
        }
    }
}
