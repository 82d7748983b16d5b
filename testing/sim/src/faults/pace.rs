//! The manager finds another pace better (`lease = "auto"`), at the worst moment.

use vnfpool_model::Pace;

use super::Fault;

/// The shortest heartbeat interval of a pool whose own is `interval`, both in milliseconds.
pub const fn fastest(interval: u32) -> u32 {
    interval - interval / 2
}

/// Anything from twice as fast to the pool's own pace, which is the slowest; in the same ratio.
pub(super) const OTHER: Fault = Fault {
    name: "pace",
    inject: |world, random| {
        let slot = random.index(world.shape.slots);
        let slowest = world.shape.timing.pace();
        let interval = slowest.heartbeat_interval_ms;
        let room = interval - fastest(interval) + 1;
        let slower = u32::try_from(random.below(u64::from(room))).unwrap_or(0);
        let heartbeat_interval_ms = fastest(interval) + slower;
        let pace = Pace {
            heartbeat_interval_ms,
            lease_ms: slowest.lease_ms * heartbeat_interval_ms / interval,
        };
        world.set_pace(slot, pace);
    },
};
