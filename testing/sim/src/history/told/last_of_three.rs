//! `on_quorum_loss = serve`: the last of three, and those who come back.

use super::{Told, back_on_the_lans_first, pair};
use crate::invariants::Invariant;
use crate::network::{MANAGEMENT, only};
use crate::world::MS;

pub(super) const LAST_OF_THREE: &[Told] = &[
    Told {
        name: "isolated-and-back",
        elements: 3,
        serves: true,
        tell: |world| {
            let (active, _) = pair(world);
            (0..world.network.paths.len()).for_each(|path| world.network.cut_off(path, active));
            let ns = world.random.between(2_000 * MS, 2_200 * MS);
            world.run_for(ns);
            back_on_the_lans_first(world, active);
        },
    },
    Told {
        name: "frozen-and-back",
        elements: 3,
        serves: true,
        tell: |world| {
            let (active, _) = pair(world);
            world.freeze(active, 2_000 * MS);
            world.run_for(1_990 * MS);
            back_on_the_lans_first(world, active);
        },
    },
    Told {
        name: "isolated-for-a-moment",
        elements: 2,
        serves: true,
        tell: |world| {
            // On all paths, but witnesses answer: their networks are well.
            let (_, standby) = pair(world);
            for other in 0..3 {
                world.network.cut_everywhere(other, standby);
                world.network.cut_everywhere(standby, other);
            }
            for path in &mut world.network.paths {
                path.cut[standby] &= !only(standby);
            }
            let ns = world.random.between(20 * MS, 80 * MS);
            world.run_for(ns);
            world.network.heal();
            world.run_for(200 * MS);
        },
    },
    Told {
        name: "manager-listens-again",
        elements: 3,
        serves: true,
        tell: |world| {
            // A lone active serves on evidence because the manager is cut off from all. Then it
            // is back for another one first, as when a switch takes its ports up.
            world.streams.healthy = false;
            world.run_for(1_500 * MS);
            world.network.cut_off(MANAGEMENT, 0);
            world.run_for(3_500 * MS);
            world.network.paths[MANAGEMENT].cut[2] = 0;
            world.network.paths[MANAGEMENT].cut[0] = !only(2);
            let pause = world.random.below(100 * MS);
            world.run_for(pause);
            world.network.heal();
            world.run_for(1_500 * MS);
        },
    },
    Told {
        name: "return-of-a-member",
        elements: 2,
        serves: true,
        tell: |world| {
            // Manager and active are gone, the successor serves on evidence; both come back, one
            // sooner than the other, before anybody has keys for anybody; and the manager goes.
            world.shape.session_ns_max = 2_500 * MS;
            world.stop_manager();
            world.hand_over(0);
            world.run_for(20 * MS);
            let (active, standby) = pair(world);
            world.kill(standby);
            world.run_for(2_000 * MS);
            if world.holders(0).next() != Some(active) {
                let text = "nobody serves on evidence".to_owned();
                world.checks.fail(Invariant::Liveness, text);
            }
            world.start_manager();
            let pause = world.random.below(1_200 * MS);
            world.run_for(pause);
            world.start(standby);
            let pause = world.random.below(1_500 * MS);
            world.run_for(pause);
            world.stop_manager();
            world.run_for(3_000 * MS);
        },
    },
];
