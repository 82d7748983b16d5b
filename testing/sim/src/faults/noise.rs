//! Paths that lose, delay, double and reorder. Each path by itself, or all of them.

use super::Fault;
use crate::network::{MANAGEMENT, Path};
use crate::world::{MS, World};
use vnfpool_random::Random;

/// Up to half of the datagrams are lost.
pub(super) const LOSS: Fault = Fault {
    name: "loss",
    inject: |world, random| {
        let permille = random.magnitude(10, 500);
        on_paths(world, random, |path| path.lost_permille = permille);
    },
};

/// Up to all datagrams are late by up to two seconds.
pub(super) const DELAY: Fault = Fault {
    name: "delay",
    inject: |world, random| {
        let permille = random.magnitude(10, 1_000);
        let late = random.magnitude(MS, 2_000 * MS);
        on_paths(world, random, |path| {
            path.late_permille = permille;
            path.late_ns_max = late;
        });
    },
};

/// Datagrams arrive twice, the second time late.
pub(super) const DUPLICATION: Fault = Fault {
    name: "duplication",
    inject: |world, random| {
        let permille = random.magnitude(10, 500);
        on_paths(world, random, |path| path.doubled_permille = permille);
    },
};

/// Datagrams overtake each other.
pub(super) const REORDERING: Fault = Fault {
    name: "reordering",
    inject: |world, random| {
        let permille = random.magnitude(10, 500);
        on_paths(world, random, |path| path.reordered_permille = permille);
    },
};

/// The management LAN loses half and delays most of the rest, by less than a vote's validity or a
/// little more.
pub(super) const MANAGEMENT_LAN: Fault = Fault {
    name: "noisy-management",
    inject: |world, random| {
        let path = &mut world.network.paths[MANAGEMENT];
        path.lost_permille = random.between(200, 700);
        path.late_permille = 900;
        path.late_ns_max = random.between(30 * MS, 120 * MS);
        path.doubled_permille = 100;
    },
};

fn on_paths(world: &mut World, random: &mut Random, change: impl Fn(&mut Path)) {
    let paths = &mut world.network.paths;
    if random.chance(50) {
        let one = random.index(paths.len());
        change(&mut paths[one]);
    } else {
        paths.iter_mut().for_each(change);
    }
}
