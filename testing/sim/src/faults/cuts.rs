//! Cuts between machines on all paths at once: one way, both ways, of one machine from all others.

use super::{Fault, any_element, any_machine};
use crate::world::{MS, World};

/// From one to another.
pub(super) const ONE_WAY: Fault = Fault {
    name: "one-way-cut",
    inject: |world, random| {
        let (from, to) = (any_machine(world, random), any_machine(world, random));
        cut(world, from, to);
    },
};

/// Between two.
pub(super) const BOTH_WAYS: Fault = Fault {
    name: "two-way-cut",
    inject: |world, random| {
        let (one, other) = (any_machine(world, random), any_machine(world, random));
        cut(world, one, other);
        cut(world, other, one);
    },
};

/// An element hears nobody, no witness either.
pub(super) const DEAF: Fault = Fault {
    name: "deaf",
    inject: |world, random| deafen(world, any_element(world, random)),
};

/// An element is heard by nobody, and no witness has anything to answer.
pub(super) const DUMB: Fault = Fault {
    name: "dumb",
    inject: |world, random| silence(world, any_element(world, random)),
};

/// An element is off every path; no witness answers it.
pub(super) const ISOLATE: Fault = Fault {
    name: "isolated",
    inject: |world, random| isolate(world, any_element(world, random)),
};

/// The manager hears nobody.
pub(super) const MANAGER_DEAF: Fault = Fault {
    name: "manager-deaf",
    inject: |world, _| deafen(world, 0),
};

/// Nobody hears the manager.
pub(super) const MANAGER_DUMB: Fault = Fault {
    name: "manager-dumb",
    inject: |world, _| silence(world, 0),
};

/// The manager is off its path.
pub(super) const MANAGER_ISOLATED: Fault = Fault {
    name: "manager-isolated",
    inject: |world, _| isolate(world, 0),
};

/// One element does not reach the others for about a lease.
pub(super) const BLINK: Fault = Fault {
    name: "blink",
    inject: |world, random| {
        let node = any_element(world, random);
        let before = world.network.clone();
        for to in world.elements() {
            cut(world, node, to);
            if random.chance(50) {
                cut(world, to, node);
            }
        }
        world.run_for(random.between(20 * MS, 130 * MS));
        world.network = before;
    },
};

fn deafen(world: &mut World, deaf: usize) {
    (0..world.hosts.len()).for_each(|from| cut(world, from, deaf));
    world.network.cut_everywhere(deaf, deaf);
}

fn silence(world: &mut World, dumb: usize) {
    (0..world.hosts.len()).for_each(|to| cut(world, dumb, to));
    world.network.cut_everywhere(dumb, dumb);
}

fn isolate(world: &mut World, node: usize) {
    world.note(|| format!("machine {node} is off every path"));
    (0..world.network.paths.len()).for_each(|path| world.network.cut_off(path, node));
}

fn cut(world: &mut World, from: usize, to: usize) {
    if from != to {
        world.note(|| format!("cut: {from} -> {to}"));
        world.network.cut_everywhere(from, to);
    }
}
