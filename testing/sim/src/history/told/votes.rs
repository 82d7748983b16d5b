//! Who may serve, when votes, handovers, acks and grants are late, lost or doubled: never two.

use super::{Told, arm_anew, cut_both, only_the_link, pair};
use crate::network::{MANAGEMENT, only};
use crate::world::{DiskMood, MS, Moment};

pub(super) const VOTES: &[Told] = &[
    Told {
        name: "dumb-manager-and-a-vote",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active's vote is committed and nobody hears of it; the manager replaces it.
            let (active, standby) = pair(world);
            world.streams.healthy = false;
            world.run_to(Moment::Voted, 2_000 * MS);
            world.network.cut_everywhere(0, active);
            world.network.cut_everywhere(0, standby);
            world.run_for(100 * MS);
            world.network.cut_everywhere(active, 0);
            world.run_for(2_000 * MS);
            world.network.paths[MANAGEMENT].cut[0] = only(active);
            world.run_for(100 * MS);
        },
    },
    Told {
        name: "standby-restarts-at-once",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active lives on its standby's acks alone when that begins a new life.
            let (active, standby) = pair(world);
            world.network.cut_everywhere(0, active);
            world.network.cut_everywhere(active, 0);
            world.run_for(150 * MS);
            world.kill(standby);
            let pause = world.random.below(10 * MS);
            world.run_for(pause);
            world.start(standby);
            world.run_for(500 * MS);
        },
    },
    Told {
        name: "standstill-while-writing",
        elements: 2,
        serves: false,
        tell: |world| {
            // The standby's vote is on its way to a slow disk; both stood still, one after the
            // other.
            let (active, standby) = pair(world);
            world.manager.disk.mood = DiskMood::Slow(500 * MS);
            let ns = world.random.between(75 * MS, 110 * MS);
            world.freeze(active, ns);
            world.run_to(Moment::Voted, 100 * MS);
            world.run_for(3 * MS);
            let ns = world.random.between(25 * MS, 60 * MS);
            world.freeze(standby, ns);
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "switchover-of-a-voter",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active's vote is on its way to a slow disk when the operator asks.
            let (active, standby) = pair(world);
            world.manager.disk.mood = DiskMood::Slow(100 * MS);
            world.network.cut_everywhere(standby, active);
            world.run_to(Moment::Voted, 200 * MS);
            world.hand_over(0);
            world.run_for(5 * MS);
            world.network.heal();
            world.run_for(300 * MS);
        },
    },
    Told {
        name: "late-copy-of-a-vote",
        elements: 2,
        serves: false,
        tell: |world| {
            // The standby's vote of one term arrives again when it is armed in a later one.
            let (active, standby) = pair(world);
            let management = &mut world.network.paths[MANAGEMENT];
            management.doubled_permille = 1_000;
            management.late_ns_max = 900 * MS;
            cut_both(world, active, standby);
            world.run_for(15 * MS);
            world.network.cut_everywhere(0, standby);
            world.run_for(60 * MS);
            world.network.heal();
            world.run_for(1_500 * MS);
        },
    },
    Told {
        name: "reordered-words",
        elements: 2,
        serves: false,
        tell: |world| {
            // The manager's words overtake each other while the standby votes, and the active,
            // which hears nothing of the manager, is heard again.
            for _ in 0..20 {
                let (active, standby) = pair(world);
                world.network.cut_everywhere(active, standby);
                world.network.cut_everywhere(0, active);
                let management = &mut world.network.paths[MANAGEMENT];
                management.late_permille = 700;
                management.late_ns_max = 60 * MS;
                let ns = world.random.between(50 * MS, 90 * MS);
                world.run_for(ns);
                for path in &mut world.network.paths {
                    path.cut[active] = 0;
                }
                world.run_for(60 * MS);
                world.network.heal();
                while world.is_well() && !world.complete() {
                    world.run_for(20 * MS);
                }
                world.run_for(150 * MS);
            }
        },
    },
    Told {
        name: "late-handover",
        elements: 2,
        serves: false,
        tell: |world| {
            let (active, standby) = pair(world);
            only_the_link(world, active, standby, 200 * MS);
            world.hand_over(0);
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "late-acks",
        elements: 2,
        serves: false,
        tell: |world| {
            let (active, standby) = pair(world);
            only_the_link(world, active, standby, 250 * MS);
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "late-grant",
        elements: 2,
        serves: false,
        tell: |world| {
            world.streams.healthy = false;
            world.run_for(1_500 * MS);
            let (active, _) = pair(world);
            world.network.paths[MANAGEMENT].late_permille = 1_000;
            world.network.paths[MANAGEMENT].late_ns_max = 2_500 * MS;
            world.run_for(300 * MS);
            world.network.heal();
            cut_both(world, active, 0);
            world.run_for(3_000 * MS);
        },
    },
    Told {
        name: "late-answer-to-a-vote",
        elements: 2,
        serves: false,
        tell: |world| {
            // The standby's vote is committed, the answer is lost, and the active is heard again.
            let (active, standby) = pair(world);
            world.network.cut_everywhere(active, standby);
            world.network.cut_everywhere(0, active);
            world.run_to(Moment::Voted, 200 * MS);
            world.network.cut_everywhere(0, standby);
            for path in &mut world.network.paths {
                path.cut[active] = 0;
            }
            world.run_for(90 * MS);
            world.network.heal();
            world.run_for(200 * MS);
        },
    },
    Told {
        name: "both-functions-fail",
        elements: 3,
        serves: false,
        tell: |world| {
            // The active cannot hand the slot back and votes, unable, for somebody else (5a).
            let (first, second) = pair(world);
            world.hand_over(0);
            world.run_for(100 * MS);
            world.set_able(first, false);
            world.run_for(30 * MS);
            world.set_able(second, false);
            world.run_for(5 * MS);
            cut_both(world, first, second);
            world.run_for(300 * MS);
        },
    },
    Told {
        name: "manager-restarts-when-armed",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active lives on a grant of before when its standby, which never heard it, votes.
            arm_anew(world);
            world.stop_manager();
            let (one, other) = (1, 2);
            cut_both(world, one, other);
            world.run_for(2 * MS);
            world.start_manager();
            world.run_for(1_000 * MS);
        },
    },
    Told {
        name: "manager-restarts-after-a-split",
        elements: 2,
        serves: false,
        tell: |world| {
            // The active, which goes on alone, still lives on its standby's last promise.
            let (active, _) = pair(world);
            world.streams.healthy = false;
            world.run_to(Moment::Decided, 1_000 * MS);
            world.stop_manager();
            cut_both(world, active, 0);
            world.start_manager();
            world.run_for(500 * MS);
        },
    },
    Told {
        name: "restart-of-a-lone-active",
        elements: 2,
        serves: false,
        tell: |world| {
            // Its kernel's gate may be open when its new life registers and the other gets the slot.
            world.streams.healthy = false;
            world.kill(1);
            world.run_for(2_500 * MS);
            world.start(1);
            world.run_for(500 * MS);
            world.kill(2);
            world.run_for(2 * MS);
            world.start(2);
            world.run_for(500 * MS);
        },
    },
];
