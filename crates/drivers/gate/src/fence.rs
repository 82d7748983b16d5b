//! What lets a slot emit, and stops it.

use vnfpool_model::Time;

/// The right of one slot to emit, enforced until a deadline on this machine's boot-time clock.
///
/// There is one writer per slot, and it takes `&mut self` everywhere: a thread that closes can
/// not race with one that renews (the rule on one writer per gate).
pub trait Fence: Send {
    /// Lets the slot emit until `until`, whatever was said before.
    fn open_until(&mut self, until: Time);

    /// Lets the slot emit until `until` unless it may already emit for longer.
    fn raise(&mut self, until: Time);

    /// Stops the slot at once.
    fn close(&mut self);

    /// Until when the slot may emit; [`Time::ZERO`] when closed.
    fn deadline(&self) -> Time;
}
