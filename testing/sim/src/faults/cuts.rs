//! Cuts between machines on all paths at once: one way, both ways, of one machine from all others.

use super::{Fault, any_machine};
use crate::world::World;

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

/// One hears nobody, no witness either.
pub(super) const DEAF: Fault = Fault {
    name: "deaf",
    inject: |world, random| {
        let deaf = any_machine(world, random);
        (0..world.hosts.len()).for_each(|from| cut(world, from, deaf));
        no_witness(world, deaf);
    },
};

/// One is heard by nobody, and no witness has anything to answer.
pub(super) const DUMB: Fault = Fault {
    name: "dumb",
    inject: |world, random| {
        let dumb = any_machine(world, random);
        (0..world.hosts.len()).for_each(|to| cut(world, dumb, to));
        no_witness(world, dumb);
    },
};

/// One is off every path; no witness answers it.
pub(super) const ISOLATE: Fault = Fault {
    name: "isolated",
    inject: |world, random| {
        let node = any_machine(world, random);
        world.note(|| format!("machine {node} is off every path"));
        (0..world.network.paths.len()).for_each(|path| world.network.cut_off(path, node));
    },
};

fn cut(world: &mut World, from: usize, to: usize) {
    if from != to {
        world.note(|| format!("cut: {from} -> {to}"));
        world.network.cut_everywhere(from, to);
    }
}

fn no_witness(world: &mut World, node: usize) {
    world.network.cut_everywhere(node, node);
}
