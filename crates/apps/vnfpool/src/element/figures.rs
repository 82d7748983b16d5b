//! Small figures that the real-time thread collects without allocating.

use std::time::Duration;

/// How many of the newest samples are kept.
const KEPT: usize = 512;

/// The newest samples of a duration, in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    newest_us: [u32; KEPT],
    count: u64,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            newest_us: [0; KEPT],
            count: 0,
        }
    }
}

impl Samples {
    /// Adds one.
    pub(crate) fn add(&mut self, sample: Duration) {
        let place = usize::try_from(self.count).unwrap_or(0) % KEPT;
        self.newest_us[place] = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX);
        self.count += 1;
    }

    /// How many there ever were.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The kept sample that `per_mille` of the kept are not above, in microseconds.
    pub(crate) fn quantile_us(&self, per_mille: usize) -> u32 {
        let kept = usize::try_from(self.count).unwrap_or(KEPT).min(KEPT);
        let mut sorted = self.newest_us;
        let sorted = &mut sorted[..kept];
        sorted.sort_unstable();
        let place = kept.saturating_sub(1) * per_mille / 1_000;
        sorted.get(place).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_newest() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile_us(500), 0);
        for us in 1..=101 {
            samples.add(Duration::from_micros(us));
        }
        assert_eq!(samples.quantile_us(0), 1);
        assert_eq!(samples.quantile_us(500), 51);
        assert_eq!(samples.quantile_us(1_000), 101);
        for _ in 0..600 {
            samples.add(Duration::from_secs(1));
        }
        assert_eq!(samples.quantile_us(0), 1_000_000);
        assert_eq!(samples.count(), 701);
    }
}
