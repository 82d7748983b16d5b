//! The control messages: protobuf, one per frame, on the control stream of a connection.
//!
//! The first message either way is a [`Hello`] or a [`Welcome`]; [`negotiate`] finds the version
//! that both speak. A peer without a common version gets a [`Refusal`] that says so.

#![allow(
    missing_docs,
    reason = "generated; the comments stand in control.proto"
)]
#![allow(clippy::use_self, clippy::too_many_lines, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/vnfpool.control.v1.rs"));

/// The control protocol versions that this build speaks.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 1..=1;

/// The manager closes a control connection with this code when another agent with the identity of
/// its element has registered: the older agent ends.
pub const CLOSE_REPLACED: u8 = 2;

/// Of the classes of a slot, with each of its standbys, a manager takes so many.
pub const CLASSES_REPORTED_MAX: usize = 64;

/// The highest version that both sides speak; none when there is none.
#[must_use]
pub fn negotiate(peer_min: u32, peer_max: u32) -> Option<u32> {
    let highest = peer_max.min(*VERSIONS.end());
    (highest >= peer_min && VERSIONS.contains(&highest)).then_some(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_chosen() {
        assert_eq!(negotiate(1, 1), Some(1));
        assert_eq!(negotiate(1, 7), Some(1));
        assert_eq!(negotiate(2, 7), None);
        assert_eq!(negotiate(0, 0), None);
        assert_eq!(negotiate(5, 1), None);
    }
}
