//! The streams of service state carry nothing, and nobody says so.

use super::Fault;

/// No stream carries.
pub(super) const SILENT: Fault = Fault {
    name: "streams-silent",
    inject: |world, _| {
        world.note(|| "no stream carries".to_owned());
        world.streams.healthy = false;
    },
};

/// Streams carry again.
pub(super) const WELL: Fault = Fault {
    name: "streams-well",
    inject: |world, _| {
        world.note(|| "streams carry".to_owned());
        world.streams.healthy = true;
    },
};
