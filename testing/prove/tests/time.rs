//! The time of the checker: that what is too old to matter grows no older changes nothing.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use vnfpool_prove::engine::{Engine, State};
use vnfpool_prove::moves::Move;
use vnfpool_prove::world::World;
use vnfpool_prove::worlds;
use vnfpool_random::Random;

/// Two engines go the same random way, one with times that grow as old as they are. They must
/// offer the same moves and show the same roles, epochs, gates and records after each.
#[test]
fn old_times_decide_nothing() {
    let names = [
        "two",
        "crashes",
        "standstills",
        "handovers",
        "serve",
        "serve-spare",
        "rests",
    ];
    let mut disturbed = 0;
    for world in worlds::all()
        .into_iter()
        .filter(|w| names.contains(&w.name))
    {
        for seed in 0..60 {
            disturbed += walk_both(&world, seed);
        }
    }
    assert!(disturbed > 500, "the ways were too calm: {disturbed}");
}

/// Returns how many disturbances there were.
fn walk_both(world: &World, seed: u64) -> usize {
    let world = World {
        disturbances: 6,
        ..world.clone()
    };
    let mut random = Random::new(seed);
    let mut folded = Engine::new(world.clone());
    let mut exact = Engine::exact(world);
    let (mut one, mut other) = (folded.start().unwrap(), exact.start().unwrap());
    let (mut moves, mut others) = (Vec::new(), Vec::new());
    let mut way: Vec<Move> = Vec::new();
    for _ in 0..600 {
        folded.moves(one, &mut moves);
        exact.moves(other, &mut others);
        assert_eq!(moves, others, "seed {seed}, after {way:?}");
        // Mostly what is due: disturbances are few, and their traces grow old.
        let next = match random.index(8) {
            0 => moves[random.index(moves.len())],
            _ => Some(folded.due_move(one))
                .filter(|due| moves.contains(due))
                .unwrap_or(moves[0]),
        };
        way.push(next);
        match (folded.step(one, next), exact.step(other, next)) {
            (Ok(a), Ok(b)) => (one, other) = (a, b),
            // Several faults under `serve` may break I1, but then in both.
            (Err(a), Err(b)) => {
                assert_eq!(a, b, "seed {seed}");
                break;
            }
            (a, b) => panic!("seed {seed}: {a:?} and {b:?} after {way:?}"),
        }
        assert_eq!(
            seen(&folded, one),
            seen(&exact, other),
            "seed {seed}, after {way:?}"
        );
    }
    way.iter().filter(|next| next.kind().is_some()).count()
}

/// What an observer sees of a state.
fn seen(engine: &Engine, state: State) -> String {
    let hosts: Vec<_> = engine
        .world
        .hosts()
        .map(|node| {
            let view = engine.host_view(state, node);
            (
                view.open,
                view.due,
                view.role,
                view.epoch,
                view.record,
                view.unconfirmed,
            )
        })
        .collect();
    let chief = engine.chief_view(state);
    let letters: Vec<_> = engine
        .letters(state)
        .0
        .iter()
        .map(ToString::to_string)
        .collect();
    format!("{hosts:?} {:?} {} {letters:?}", chief.record, chief.writing)
}
