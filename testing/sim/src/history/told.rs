//! Histories that are told step by step, for what chance seldom meets. Each begins with a pool that
//! has settled and says what the faults may cost.

use vnfpool_model::{OnQuorumLoss, Role, Timing};

use super::{Outcome, Telling, begin, finish, recover};
use crate::faults::HALF_BOUND_PPM;
use crate::invariants::Invariant;
use crate::network::{MANAGEMENT, only};
use crate::world::{DiskMood, MS, Moment, Shape, World};

/// A told history.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Its name.
    pub name: &'static str,
    /// How many elements.
    pub elements: usize,
    /// `on_quorum_loss = serve`.
    pub serves: bool,
    /// What happens.
    tell: fn(&mut World),
}

/// All of them.
pub const TOLD: &[Told] = &[
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
            let (active, _) = pair(world);
            world.kill(active);
            world.run_to(Moment::Voted, 500 * MS);
            world.stop_manager();
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
            world.streams.healthy = false;
            world.run_to(Moment::Voted, 2_000 * MS);
            world.run_for(50 * MS);
            world.streams.healthy = true;
            for _ in 0..1_000 {
                if world.armed(0) || !world.is_well() {
                    break;
                }
                world.run_to(Moment::Writing, 2_000 * MS);
                world.run_for(MS / 10);
            }
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
            world.streams.healthy = false;
            world.run_to(Moment::Voted, 2_000 * MS);
            world.run_for(50 * MS);
            world.streams.healthy = true;
            while world.is_well() && !world.armed(0) {
                world.run_to(Moment::Decided, 2_000 * MS);
            }
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

impl Told {
    /// The history with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        TOLD.iter().find(|told| told.name == name)
    }

    /// Tells it with the chance that `seed` gives.
    #[must_use]
    pub fn run(&self, seed: u64, telling: &Telling) -> Outcome {
        let shape = Shape {
            elements: self.elements,
            slots: 1,
            links: 1,
            lans: 2,
            timing: Timing::DEFAULT,
            on_quorum_loss: match self.serves {
                true => OnQuorumLoss::Serve,
                false => OnQuorumLoss::Stop,
            },
            drift_ppm: HALF_BOUND_PPM,
            session_ns_max: 0,
        };
        let mut outcome = Outcome::default();
        let mut world = begin(seed, &shape, telling);
        finish(&mut world, &mut outcome, |world, outcome| {
            recover(world, outcome, true);
            (self.tell)(world);
            recover(world, outcome, true);
        });
        outcome
    }
}

/// Active and standby.
fn pair(world: &World) -> (usize, usize) {
    let with = |role| {
        let mut elements = world.elements();
        elements.find(|node| world.role(*node, 0) == Some(role))
    };
    let active = with(Role::Active).unwrap_or(1);
    (
        active,
        with(Role::Standby).unwrap_or_else(|| 3 - active.min(2)),
    )
}

fn cut_both(world: &mut World, one: usize, other: usize) {
    world.network.cut_everywhere(one, other);
    world.network.cut_everywhere(other, one);
}

/// What the pair says to each other goes over the link alone, and is late.
fn only_the_link(world: &mut World, one: usize, other: usize, late_ns_max: u64) {
    for path in &mut world.network.paths {
        path.cut[one] |= only(other);
        path.cut[other] |= only(one);
    }
    let link = &mut world.network.paths[MANAGEMENT + 1];
    link.cut[one] = 0;
    link.cut[other] = 0;
    link.late_permille = 1_000;
    link.late_ns_max = late_ns_max;
}

/// `node` is back: on the LANs with their witnesses at once, on the others a little later.
fn back_on_the_lans_first(world: &mut World, node: usize) {
    world.network.heal();
    let others = world.network.paths.len() - world.network.lans;
    (0..others).for_each(|path| world.network.cut_off(path, node));
    let pause = world.random.below(150 * MS);
    world.run_for(pause);
    world.network.heal();
    world.run_for(300 * MS);
}

/// From now on, for so long, the outage may be so long, in milliseconds.
fn costs(world: &mut World, for_ms: u64, most_ms: u64) {
    let now = world.now;
    world.checks.outage[0].begin(now);
    world.run_for(for_ms * MS);
    let worst = world.checks.outage[0].worst(world.now) / MS;
    if worst > most_ms {
        let text = format!("it cost {worst} ms, allowed are {most_ms} ms");
        world.checks.fail(Invariant::OutageBound, text);
    }
}
