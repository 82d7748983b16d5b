//! What the operator does, at the worst moment.

use super::{Fault, any_element};

/// A switchover.
pub(super) const HAND_OVER: Fault = Fault {
    name: "switchover",
    inject: |world, random| {
        let slot = random.index(world.shape.slots);
        world.hand_over(slot);
    },
};

/// A machine is switched off and declared gone (R14). The word is true: nothing of it emits.
pub(super) const FENCE: Fault = Fault {
    name: "fence",
    inject: |world, random| {
        let node = any_element(world, random);
        world.power_off(node);
        world.fence(node);
    },
};
