//! Machines that stand still while their clocks and gates go on.

use super::{Fault, any_element};
use crate::world::{MS, World};

/// An element, for a moment or a while.
pub(super) const ELEMENT: Fault = Fault {
    name: "freeze",
    inject: |world, random| {
        let node = any_element(world, random);
        let ns = random.magnitude(MS, 2_000 * MS);
        world.freeze(node, ns);
    },
};

/// An element, for up to a minute.
pub(super) const LONG: Fault = Fault {
    name: "long-freeze",
    inject: |world, random| {
        let node = any_element(world, random);
        let ns = random.magnitude(1_000 * MS, 60_000 * MS);
        world.freeze(node, ns);
    },
};

/// All elements at once, as on a host that is overloaded.
pub(super) const ALL: Fault = Fault {
    name: "freeze-all",
    inject: |world, random| {
        let ns = random.magnitude(10 * MS, 300 * MS);
        for node in world.elements() {
            world.freeze(node, ns + random.below(10 * MS));
        }
    },
};

/// The manager.
pub(super) const MANAGER: Fault = Fault {
    name: "freeze-manager",
    inject: |world, random| {
        let ns = random.magnitude(MS, 5_000 * MS);
        world.freeze(0, ns);
    },
};

/// Whoever stands still goes on now.
pub(super) fn end(world: &mut World) {
    for node in 0..world.hosts.len() {
        if world.hosts[node].frozen(world.now) {
            world.freeze(node, 0);
        }
    }
}
