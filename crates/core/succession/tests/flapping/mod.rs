//! Elements that come and go: rests, quarantine and the way back (R11).

use std::time::Duration;

use vnfpool_model::{OnQuorumLoss, Timing};
use vnfpool_succession::manager::{Decision, Release};

use super::{armed_pair_of, standby_of};
use crate::world::{MS, World, outage};

/// Splits `node` off and lets it come back, for `seconds`; it is up for three seconds of four.
fn flap(world: &mut World, node: usize, seconds: u64) {
    for _ in 0..seconds / 4 {
        let others = world.elements().chain([0]).filter(|other| *other != node);
        others.for_each(|other| world.cut_both(node, other, true));
        world.run_for(1_000 * MS);
        world.heal_all();
        world.run_for(3_000 * MS);
    }
}

fn armings(world: &World) -> usize {
    let armed = |decision: &&Decision| **decision == Decision::Armed;
    world.decisions.iter().filter(armed).count()
}

/// A pair whose standby, element 2, is in quarantine.
fn quarantined_standby(seed: u64, elements: usize) -> World {
    let mut world = armed_pair_of(elements, seed, OnQuorumLoss::Stop);
    assert_eq!(standby_of(&world), 2);
    flap(&mut world, 2, 40);
    assert_eq!(world.quarantined(), [2], "{:#?}", world.trace);
    world
}

/// Goal: a standby that flaps for two minutes is armed a few times only, costs no outage, and comes back
/// by itself when it has been steady; then it has a clean slate.
#[test]
fn who_flaps_is_quarantined_and_comes_back() {
    for seed in 0..4 {
        let mut world = armed_pair_of(2, seed, OnQuorumLoss::Stop);
        flap(&mut world, 2, 120);
        assert_eq!(world.owners(), [1]);
        assert!(armings(&world) <= 5, "seed {seed}: {}", armings(&world));
        assert_eq!((world.quarantined(), world.armed()), (vec![2], false));
        // The rest of the penalty, and the probation.
        world.run_for(30_000 * MS);
        assert_eq!(world.releases, [Release::Probation], "{:#?}", world.trace);
        assert!(world.armed());
        // One blink more is the first one.
        flap(&mut world, 2, 4);
        assert!(world.armed() && world.quarantined().is_empty());
    }
}

/// Goal: an active that flaps is quarantined as well, when it is the standby.
#[test]
fn an_active_that_flaps_is_quarantined() {
    let mut world = armed_pair_of(2, 5, OnQuorumLoss::Stop);
    flap(&mut world, 1, 40);
    assert_eq!((world.owners(), world.quarantined()), (vec![2], vec![1]));
}

/// Goal: the quarantine is no reason to be without service. Method: the active dies while its only
/// standby is in quarantine.
#[test]
fn who_is_quarantined_replaces_the_last_one() {
    let mut world = quarantined_standby(6, 2);
    world.kill(1);
    let gap = outage(&mut world, 5_000 * MS);
    assert_eq!(world.owners(), [2], "{:#?}", world.trace);
    let bound = Timing::DEFAULT.manager_lease() + Duration::from_millis(250);
    assert!(gap < bound, "{gap:?}");
    // Nothing else comes back, and the active is steady: its slate is clean in the end.
    world.run_for(150_000 * MS);
    assert_eq!(world.releases, [Release::Probation]);
}

/// Goal: whoever does not flap goes before whoever does, even with a higher number.
#[test]
fn who_is_quarantined_is_the_last_choice() {
    let mut world = quarantined_standby(7, 3);
    world.streams.healthy = false;
    world.run_for(2_000 * MS);
    assert!(!world.armed());
    world.kill(1);
    world.run_for(3_000 * MS);
    assert_eq!(world.owners(), [3], "{:#?}", world.trace);
}

/// Goal: the operator's word ends a quarantine at once, and a new life of the agent does not.
#[test]
fn the_operator_lifts_it() {
    let mut world = quarantined_standby(8, 2);
    world.kill(2);
    world.start(2);
    world.run_for(5_000 * MS);
    assert_eq!((world.quarantined(), world.armed()), (vec![2], false));
    world.pardon_all();
    assert_eq!(world.releases, [Release::Operator]);
    world.run_for(2_000 * MS);
    assert!(world.armed(), "{:#?}", world.trace);
}

/// Goal: a pool has a successor again at last, however it behaves. Method: it goes on flapping, always
/// sooner than its probation is over.
#[test]
fn no_quarantine_is_for_ever() {
    let mut world = quarantined_standby(9, 2);
    flap(&mut world, 2, 300);
    assert!(world.releases.contains(&Release::TooLong));
}
