//! Deaths: of an agent, whose kernel goes on; of a whole machine; of the manager. And new lives.

use super::{Fault, any_element};
use crate::world::World;
use vnfpool_random::Random;

/// An agent dies.
pub(super) const AGENT: Fault = Fault {
    name: "agent-dies",
    inject: |world, random| {
        let node = any_element(world, random);
        world.kill(node);
    },
};

/// An agent is killed and goes on in another process of the same life.
pub(super) const REPLACED: Fault = Fault {
    name: "agent-replaced",
    inject: |world, random| {
        let node = any_element(world, random);
        world.replace(node);
    },
};

/// A machine loses its power.
pub(super) const POWER: Fault = Fault {
    name: "power-off",
    inject: |world, random| {
        let node = any_element(world, random);
        world.power_off(node);
    },
};

/// Whoever is dead begins a new life.
pub(super) const START: Fault = Fault {
    name: "agent-starts",
    inject: |world, random| {
        let node = any_element(world, random);
        world.start(node);
    },
};

/// A new life right after the old one.
pub(super) const RESTART: Fault = Fault {
    name: "agent-restarts",
    inject: |world, random| restart(world, random),
};

/// A new life after the directory was lost: only the wall clock says which one it is.
pub(super) const RESTART_WITHOUT_MEMORY: Fault = Fault {
    name: "agent-restarts-without-memory",
    inject: |world, random| {
        let node = any_element(world, random);
        let (now, host) = (world.now, &mut world.hosts[node]);
        // A clock that was set back since the last life as well is more than an incarnation can
        // stand (`element/incarnation.rs`).
        // So is one that is set back before a machine that stands still can start its agent again.
        if host.wall_ms(now) > host.incarnation_on_disk && !host.frozen(now) {
            host.incarnation_on_disk = 0;
        }
        world.kill(node);
        let ns = random.magnitude(1_000_000, 300_000_000);
        world.run_for(ns);
        world.start(node);
    },
};

fn restart(world: &mut World, random: &mut Random) {
    let node = any_element(world, random);
    world.kill(node);
    let ns = random.magnitude(1_000_000, 300_000_000);
    world.run_for(ns);
    world.start(node);
}

/// The manager dies.
pub(super) const MANAGER: Fault = Fault {
    name: "manager-dies",
    inject: |world, _| world.stop_manager(),
};

/// The manager begins a new life.
pub(super) const MANAGER_START: Fault = Fault {
    name: "manager-starts",
    inject: |world, _| world.start_manager(),
};

/// A new life of the manager right after the old one.
pub(super) const MANAGER_RESTART: Fault = Fault {
    name: "manager-restarts",
    inject: |world, random| {
        world.stop_manager();
        let ns = random.magnitude(1_000_000, 1_000_000_000);
        world.run_for(ns);
        world.start_manager();
    },
};
