//! The network function of an element fails, or works again.

use super::{Fault, any_element};

/// It fails.
pub(super) const FAIL: Fault = Fault {
    name: "function-fails",
    inject: |world, random| {
        let node = any_element(world, random);
        world.set_able(node, false);
    },
};

/// It works again.
pub(super) const RECOVER: Fault = Fault {
    name: "function-works",
    inject: |world, random| {
        let node = any_element(world, random);
        world.set_able(node, true);
    },
};
