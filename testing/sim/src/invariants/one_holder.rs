//! I1: at most one lease holder per slot at any instant of true time, by the gates of the kernels.
//!
//! A gate can only come to be open when somebody writes its deadline, so it is enough to look then.

/// `other` is a machine, not `node`, whose gate was open at `now`, when `node` opened.
pub(super) fn check(
    now: u64,
    node: usize,
    slot: usize,
    other: Option<usize>,
) -> Result<(), String> {
    let Some(other) = other else { return Ok(()) };
    let ms = now / 1_000_000;
    Err(format!(
        "slot {slot} at {ms} ms: elements {node} and {other} both hold a lease"
    ))
}
