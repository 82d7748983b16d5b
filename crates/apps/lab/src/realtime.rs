//! Real-time scheduling for the measuring threads.
#![expect(
    unsafe_code,
    reason = "sched_setscheduler has no safe wrapper in rustix"
)]

/// Puts the calling thread into `SCHED_RR` at `priority`; false when that is not permitted.
///
/// The probes have to be punctual on a machine that is busy with what they measure. 20 is below
/// what the measured daemons use, so the measurement never holds up its object.
pub(crate) fn set_round_robin(priority: i32) -> bool {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `parameters` is a valid sched_param for the length of the call, and 0 names the
    // calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const parameters) };
    result == 0
}

/// The priority of all measuring threads.
pub(crate) const PROBE_PRIORITY: i32 = 20;
