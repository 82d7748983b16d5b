//! What faults that come together may cost.

use super::{Told, arm_anew, costs, pair};
use crate::invariants::Invariant;
use crate::world::{DiskMood, MS, Moment};

pub(super) const OUTAGES: &[Told] = &[
    Told {
        name: "switchover-to-the-dead",
        elements: 3,
        serves: false,
        tell: |world| {
            let (_, standby) = pair(world);
            world.kill(standby);
            world.hand_over(0);
            costs(world, 2_000, 160);
        },
    },
    Told {
        name: "standby-out-of-reach",
        elements: 2,
        serves: false,
        tell: |world| {
            world.network.cut_everywhere(1, 2);
            let before = world.checks.changes().0;
            world.run_for(10_000 * MS);
            let records = world.checks.changes().0 - before;
            if records > 2 {
                let text = format!("{records} records although the standby is out of reach");
                world.checks.fail(Invariant::RoleChanges, text);
            }
        },
    },
    Told {
        name: "manager-dies-in-a-vote",
        elements: 2,
        serves: false,
        tell: |world| {
            // With a slow disk, so that the vote's record is not always prepared.
            let (active, _) = pair(world);
            world.manager.disk.mood = DiskMood::Slow(1_000 * MS);
            world.kill(active);
            world.run_to(Moment::Voted, 500 * MS);
            world.stop_manager();
            world.manager.disk.mood = DiskMood::Well;
            world.run_for(500 * MS);
            world.start_manager();
            world.run_for(300 * MS);
            // A restarted manager waits a manager lease; then the vote counts again.
            costs(world, 4_000, 1_000);
        },
    },
    Told {
        name: "successor-dies-when-armed",
        elements: 3,
        serves: false,
        tell: |world| {
            arm_anew(world);
            let second = world.manager.machines[0].record().and_then(|r| r.second);
            if let Some(second) = second {
                world.kill(second.node.0 as usize);
            }
            costs(world, 3_000, 0);
        },
    },
    Told {
        name: "active-dies-when-armed",
        elements: 2,
        serves: false,
        tell: |world| {
            arm_anew(world);
            world.run_for(50 * MS);
            let (active, _) = pair(world);
            world.kill(active);
            costs(world, 2_000, 100);
        },
    },
    Told {
        name: "power-cut",
        elements: 2,
        serves: false,
        tell: |world| {
            world.elements().for_each(|node| world.power_off(node));
            world.run_for(200 * MS);
            world.elements().for_each(|node| world.start(node));
            costs(world, 3_000, 500);
        },
    },
    Told {
        name: "deaf-and-alone",
        elements: 3,
        serves: false,
        tell: |world| {
            world.streams.healthy = false;
            world.run_for(1_500 * MS);
            world.network.cut_everywhere(0, 1);
            costs(world, 4_000, 1_300);
        },
    },
];
