//! I2: no packet without a lease. Packets leave while the kernel's gate is open, so the gate may
//! not be open for longer than the machine's lease. (A dead agent's gate runs out by itself.)

use vnfpool_model::Time;

/// After a machine of a living agent was given something.
pub(super) fn check(now: Time, gate: Time, lease: Time) -> Result<(), String> {
    if gate <= now || gate <= lease {
        return Ok(());
    }
    Err(format!(
        "the gate is open until {gate}, the lease ends at {lease}"
    ))
}
