//! How long nobody serves a slot, by the gates of the kernels in true time.

use crate::network::MACHINES_MAX;

/// Light and dark of one slot.
#[derive(Clone, Debug, Default)]
pub struct Outage {
    /// When each gate ends.
    ends: [u64; MACHINES_MAX],
    /// Nothing before this counts.
    since: u64,
    worst: u64,
}

impl Outage {
    /// A gate has another deadline.
    #[inline]
    pub(super) fn gate(&mut self, now: u64, node: usize, ends: u64) {
        self.worst = self.worst(now);
        self.ends[node] = ends.max(self.ends[node].min(now));
    }

    /// Measures from now on.
    pub const fn begin(&mut self, now: u64) {
        self.since = now;
        self.worst = 0;
    }

    /// The longest time without a holder since the begin.
    #[must_use]
    pub fn worst(&self, now: u64) -> u64 {
        let lit_until = self.ends.iter().copied().max().unwrap_or(0);
        self.worst
            .max(now.saturating_sub(lit_until.max(self.since)))
    }
}
