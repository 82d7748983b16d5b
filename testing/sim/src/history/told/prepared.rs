//! Records that are on disk before the vote (5n): the takeover does not wait for the disk, and a
//! manager that finds one after its death takes nothing for granted.

use super::{Told, costs, cut_both, pair};
use crate::invariants::Invariant;
use crate::world::{DiskMood, MS, Moment, World};

pub(super) const PREPARED: &[Told] = &[
    Told {
        name: "takeover-with-a-slow-disk",
        elements: 2,
        serves: false,
        tell: |world| {
            // The disk is done before the successor may vote: what a quick one costs.
            let (active, _) = pair(world);
            world.manager.disk.mood = DiskMood::Slow(12 * MS);
            let before = world.manager.prepared[0];
            world.power_off(active);
            costs(world, 500, 80);
            if world.manager.prepared[0] == before {
                let text = "the takeover waited for the disk".to_owned();
                world.checks.fail(Invariant::OutageBound, text);
            }
        },
    },
    Told {
        name: "manager-dies-when-prepared",
        elements: 2,
        serves: false,
        tell: |world| {
            // Only the manager has lost the active, which serves on: the failover is not needed, and
            // the successor, which did not vote, has promised just now.
            let (active, _) = pair(world);
            cut_both(world, active, 0);
            dies_when_prepared(world);
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "silent-pair-prepared",
        elements: 3,
        serves: false,
        tell: |world| {
            // The pair serves on, and neither the manager that is back nor the spare hears of it.
            let (active, standby) = prepared_pair(world);
            world.stop_manager();
            for node in [active, standby] {
                let others = (0..=3).filter(|other| *other != active && *other != standby);
                for other in others {
                    cut_both(world, node, other);
                }
            }
            world.run_for(20 * MS);
            world.start_manager();
            world.run_for(4_000 * MS);
        },
    },
    Told {
        name: "standby-restarts-when-prepared",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active lives on the promise of a life that is over, and the record names that.
            let (_, standby) = prepared_pair(world);
            world.stop_manager();
            world.kill(standby);
            world.start_manager();
            let pause = world.random.below(10 * MS);
            world.run_for(pause);
            world.start(standby);
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "vote-of-the-other-when-prepared",
        elements: 2,
        serves: false,
        tell: |world| {
            // Prepared is the successor's record; then the active disarms it and the manager dies.
            let (active, standby) = prepared_pair(world);
            world.network.heal();
            cut_both(world, active, standby);
            cut_both(world, standby, 0);
            world.run_to(Moment::Decided, 200 * MS);
            dies_when_prepared(world);
            world.run_for(500 * MS);
        },
    },
];

/// A pair whose active the manager alone has lost, at the moment when the successor's record is
/// prepared.
fn prepared_pair(world: &mut World) -> (usize, usize) {
    let (active, standby) = pair(world);
    cut_both(world, active, 0);
    world.run_to(Moment::Prepared, 200 * MS);
    (active, standby)
}

/// The manager dies when a record that is prepared is on its disk, or soon after, and is back soon.
fn dies_when_prepared(world: &mut World) {
    world.run_to(Moment::Prepared, 200 * MS);
    let pause = world.random.below(2 * MS);
    world.run_for(pause);
    world.stop_manager();
    let pause = world.random.magnitude(MS, 100 * MS);
    world.run_for(pause);
    world.start_manager();
}
