//! Partitions of single paths, and of all of them; paths that flap.

use super::{Fault, any_machine};
use crate::network::MANAGEMENT;
use crate::world::{MS, World};

/// One path, any of them, falls apart in two groups.
pub(super) const ONE_PATH: Fault = Fault {
    name: "partition-of-a-path",
    inject: |world, random| {
        let path = random.index(world.network.paths.len());
        let group = random.next();
        part(world, path, group);
    },
};

/// The management LAN falls apart.
pub(super) const MANAGEMENT_LAN: Fault = Fault {
    name: "partition-of-management",
    inject: |world, random| {
        let group = random.next();
        part(world, MANAGEMENT, group);
    },
};

/// All paths fall apart in the same way.
pub(super) const EVERYWHERE: Fault = Fault {
    name: "partition",
    inject: |world, random| {
        let group = random.next();
        (0..world.network.paths.len()).for_each(|path| part(world, path, group));
    },
};

/// One machine is off and on a path, some times a second.
pub(super) const FLAPPING: Fault = Fault {
    name: "flapping",
    inject: |world, random| {
        let node = any_machine(world, random);
        let path = random.index(world.network.paths.len());
        for _ in 0..random.between(2, 12) {
            let before = world.network.clone();
            world.network.cut_off(path, node);
            world.run_for(random.magnitude(MS, 200 * MS));
            world.network = before;
            world.run_for(random.magnitude(MS, 200 * MS));
        }
    },
};

/// All paths are well again.
pub(super) const HEAL: Fault = Fault {
    name: "networks-heal",
    inject: |world, _| {
        world.note(|| "all paths are well".to_owned());
        world.network.heal();
    },
};

/// Who is in `group` and who is not do not reach each other.
fn part(world: &mut World, path: usize, group: u64) {
    let inside = |node: usize| group >> node & 1 == 1;
    let machines = world.hosts.len();
    world.note(|| {
        let group: Vec<_> = (0..machines).filter(|n| inside(*n)).collect();
        format!("path {path} falls apart: {group:?} and the others")
    });
    for from in 0..machines {
        for to in (0..machines).filter(|to| inside(from) != inside(*to)) {
            world.network.paths[path].cut[from] |= crate::network::only(to);
        }
    }
}
