//! How many handshakes may begin.

use std::time::Instant;

/// A token bucket: `per_second` handshakes as a mean, twice as many in a burst.
#[derive(Debug)]
pub(crate) struct HandshakeRate {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl HandshakeRate {
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            tokens: per_second * 2.0,
            filled: now,
        }
    }

    /// Whether one more may begin now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }

    /// Whether more than half of the burst is spent: from then on callers have to prove that they
    /// are at the address they call from.
    pub(crate) fn is_busy(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens < self.per_second
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * 2.0);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_then_the_mean() {
        let start = Instant::now();
        let mut rate = HandshakeRate::new(10, start);
        assert!(!rate.is_busy(start));
        assert_eq!((0..100).filter(|_| rate.take(start)).count(), 20);
        assert!(rate.is_busy(start));
        let later = start + Duration::from_millis(550);
        assert_eq!((0..100).filter(|_| rate.take(later)).count(), 5);
    }
}
