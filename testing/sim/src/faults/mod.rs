//! What is done to a world, one file for each kind of fault.

mod able;
mod clocks;
mod crash;
mod cuts;
mod disk;
mod freeze;
mod keys;
mod noise;
mod operator;
mod pace;
mod partition;
mod streams;

pub use clocks::HALF_BOUND_PPM;
pub use pace::fastest;

use crate::world::World;
use vnfpool_random::Random;

/// One kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name, in the summary and the timeline.
    pub name: &'static str,
    /// Does it; a pool that cannot suffer it just now suffers nothing.
    pub inject: fn(&mut World, &mut Random),
}

/// All kinds.
pub const ALL: &[Fault] = &[
    able::FAIL,
    able::RECOVER,
    clocks::DRIFT,
    clocks::WALL_STEP,
    crash::AGENT,
    crash::REPLACED,
    crash::POWER,
    crash::START,
    crash::RESTART,
    crash::RESTART_WITHOUT_MEMORY,
    crash::MANAGER,
    crash::MANAGER_START,
    crash::MANAGER_RESTART,
    cuts::ONE_WAY,
    cuts::BOTH_WAYS,
    cuts::DEAF,
    cuts::DUMB,
    cuts::BLINK,
    cuts::ISOLATE,
    cuts::MANAGER_DEAF,
    cuts::MANAGER_DUMB,
    cuts::MANAGER_ISOLATED,
    disk::SLOW,
    disk::FAILING,
    disk::FULL,
    disk::WELL,
    disk::TORN,
    disk::PREPARED,
    disk::OLD_IMAGE,
    freeze::ELEMENT,
    freeze::LONG,
    freeze::ALL,
    freeze::MANAGER,
    keys::FAIL,
    noise::LOSS,
    noise::DELAY,
    noise::MANAGEMENT_LAN,
    noise::DUPLICATION,
    noise::REORDERING,
    operator::HAND_OVER,
    operator::FENCE,
    pace::OTHER,
    partition::ONE_PATH,
    partition::MANAGEMENT_LAN,
    partition::EVERYWHERE,
    partition::FLAPPING,
    partition::HEAL,
    streams::SILENT,
    streams::WELL,
];

/// The kind with that name.
#[must_use]
pub fn named(name: &str) -> Option<usize> {
    ALL.iter().position(|fault| fault.name == name)
}

/// Everything that is broken is repaired, and everybody lives.
pub fn end_all(world: &mut World) {
    world.network.heal();
    world.streams.healthy = true;
    disk::end(world);
    clocks::end(world);
    freeze::end(world);
    keys::end(world);
    world.start_manager();
}

/// After the manager: who is dead is started, every function works.
pub fn revive_all(world: &mut World) {
    for node in world.elements() {
        world.start(node);
        world.set_able(node, true);
    }
}

fn any_element(world: &World, random: &mut Random) -> usize {
    1 + random.index(world.shape.elements)
}

/// Any machine, the manager's too.
fn any_machine(world: &World, random: &mut Random) -> usize {
    random.index(world.shape.elements + 1)
}
