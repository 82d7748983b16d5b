//! Histories that are told step by step, for what chance seldom meets. Each begins with a pool that
//! has settled and says what the faults may cost.

mod last_of_three;
mod outages;
mod prepared;
mod votes;

use vnfpool_model::{OnQuorumLoss, Role, Timing};

use super::{Outcome, Telling, begin, finish, recover};
use crate::faults::HALF_BOUND_PPM;
use crate::invariants::Invariant;
use crate::network::{MANAGEMENT, only};
use crate::world::{MS, Moment, Shape, World};

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
pub fn all_told() -> impl Iterator<Item = &'static Told> {
    let groups = [
        votes::VOTES,
        outages::OUTAGES,
        last_of_three::LAST_OF_THREE,
        prepared::PREPARED,
    ];
    groups.into_iter().flatten()
}

impl Told {
    /// The history with that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        all_told().find(|told| told.name == name)
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

/// Up to the moment when the record that arms the pair again is in force.
fn arm_anew(world: &mut World) {
    world.streams.healthy = false;
    world.run_to(Moment::Voted, 2_000 * MS);
    world.run_for(50 * MS);
    world.streams.healthy = true;
    for _ in 0..20 {
        if !world.armed(0) {
            world.run_to(Moment::Decided, 1_000 * MS);
        }
    }
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
