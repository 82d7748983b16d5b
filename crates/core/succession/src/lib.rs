//! Two of three: who may serve a slot, as sans-IO machines.
//!
//! For a slot there are three voters: the pair of active and successor, and the manager. Two
//! together may change who serves, nobody may alone. The rules have numbers: R1–R17 for the
//! normal case, S1–S7 for what the last of three may do (`on_quorum_loss = serve`); they are told
//! in `docs/succession.md` and cited where they are carried out.
//!
//! ```text
//!                     record names me alone                    record names me and a standby
//!   +-------+  R7: grant  +----------------+   R11: manager arms   +---------------+
//!   | spare |------------>| active,        |---------------------->| active, armed |
//!   +-------+             | manager lease  |<----------------------| pair's lease  |
//!       |                 +----------------+  R8: A splits (disarm)+---------------+
//!       |                       ^                                     |         ^
//!       | R11: armed            | R8: B splits (failover)  R5: hand   |         | R5: handed
//!       v                       |                          over       v         | over
//!   +-----------+               |                                  +---------------+
//!   | successor |---------------+----------------------------------| successor     |
//!   +-----------+                                                  +---------------+
//!        any state, newer term that does not name me --> spare (gate closed)
//! ```
//!
//! * [`element::Element`] is the machine of one element for one slot;
//! * [`manager::Slot`] is the machine of the manager for one slot.
//!
//! Both are driven by `handle(now, input, &mut Effects)` and `deadline()`; they own no clock,
//! socket, task, file or randomness. Effects are carried out in their order.

mod broken;
pub mod element;
pub mod manager;
#[cfg(feature = "model")]
pub mod model;

#[cfg(feature = "broken")]
pub use broken::Mutation;
use std::time::Duration;

use vnfpool_model::Timing;

/// Clocks of two machines may drift apart by this many parts per million while a lease runs; every
/// holder's lease is shortened by it, no granter's promise is.
pub const DRIFT_PPM: u32 = 1_000;

/// Gossip is sent once in so many heartbeat intervals.
pub(crate) const GOSSIP_INTERVALS: u32 = 3;

/// How long one exchanged gossip counts as "heard both ways".
pub(crate) fn hearing_time(timing: Timing) -> Duration {
    timing.lease() + timing.heartbeat_interval() * (2 * GOSSIP_INTERVALS)
}

/// A lease as its holder may use it: shortened by the drift bound.
#[must_use]
pub fn as_held(lease: Duration) -> Duration {
    lease - lease * DRIFT_PPM / 1_000_000
}
