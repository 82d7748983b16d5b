//! What both ends of a state stream know.

use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level};

/// What each state frame begins with (`vnfpool_statesync::wire`).
const MAGIC: &[u8] = b"VPSS";

pub(crate) const BOUNDS: Bounds = Bounds {
    lag_ms: 1_000,
    entries: 200,
};

pub(crate) fn demand() -> Demand {
    Demand {
        class: ClassName::conntrack(),
        format: 1,
        schema: 1,
        level: Level::Commit(BOUNDS),
    }
}

/// What is left of `bytes` from where a frame may begin again, behind the first byte.
pub(crate) fn next_begin(bytes: &[u8]) -> &[u8] {
    let rest = bytes.get(1..).unwrap_or_default();
    let at = rest.windows(MAGIC.len()).position(|some| some == MAGIC);
    at.and_then(|at| rest.get(at..)).unwrap_or_default()
}
