//! Small worlds to the end, and the checker against machines that are broken on purpose.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use std::time::Duration;

use vnfpool_prove::engine::Engine;
use vnfpool_prove::explore::{Explorer, Limits, Report, Verdict};
use vnfpool_prove::moves::Move;
use vnfpool_prove::world::World;
use vnfpool_prove::{story, worlds};

/// Bounds on what is explored, none on time.
const LIMITS: Limits = Limits {
    states_max: 500_000,
    bytes_max: 2 << 30,
    time_max: Duration::MAX,
    recover_one_in: 16,
};

fn explore(world: World) -> (Report, String) {
    let name = world.name;
    let mut explorer = Explorer::new(world);
    let report = explorer.run(LIMITS, |_, _| {});
    let story = match &report.verdict {
        Verdict::Broken(violation) => story::tell(explorer.engine_mut(), &violation.history),
        _ => String::new(),
    };
    (report, format!("{name}\n{story}"))
}

/// Every history of the small worlds, to its end: nothing is broken, and what is healed recovers.
#[test]
fn small_worlds_hold() {
    for world in worlds::small() {
        let (report, story) = explore(world);
        assert!(matches!(report.verdict, Verdict::Holds), "{story}");
        assert!(report.recovery.tried > 0, "{story}");
    }
}

/// The checker finds a history for each shortcut; those that need the most states are left to
/// `make prove`.
#[test]
fn broken_machines_are_caught() {
    let long = [
        "broken-lock-follows-last-token",
        "broken-heartbeat-after-vote",
        "broken-vote-by-name",
        "broken-answers-while-writing",
    ];
    let mut caught = 0;
    for world in worlds::broken()
        .into_iter()
        .filter(|w| !long.contains(&w.name))
    {
        let (report, story) = explore(world);
        let Verdict::Broken(violation) = report.verdict else {
            panic!("not caught: {story}");
        };
        assert!(!violation.what.starts_with("a machine stops"), "{story}");
        caught += 1;
    }
    assert_eq!(caught, worlds::broken().len() - long.len());
}

/// What is declared not to hold does not, so that the declaration is removed when it does.
#[test]
fn a_restored_image_makes_two_owners() {
    for world in worlds::declared()
        .into_iter()
        .filter(|w| w.name.starts_with("image"))
    {
        let (report, story) = explore(world);
        let Verdict::Broken(violation) = report.verdict else {
            panic!("holds now: {story}");
        };
        assert!(violation.what.starts_with("I1"), "{story}");
    }
}

/// The gate is in the image: history 2 of decision 0016.
#[test]
fn an_image_of_the_active_has_an_open_gate() {
    let mut worlds = worlds::declared().into_iter();
    let world = worlds.find(|w| w.name == "image-clock").unwrap();
    let mut engine = Engine::new(world);
    let mut state = engine.start().unwrap();
    for next in [Move::Save(1), Move::Crash(1)] {
        state = engine.step(state, next).unwrap();
    }
    for _ in 0..4 {
        state = engine.run_tick(state).unwrap();
    }
    assert_eq!(engine.owners(state).collect::<Vec<_>>(), [2]);
    let fault = engine.step(state, Move::Restore(1)).unwrap_err();
    assert!(fault.starts_with("I1"), "{fault}");
}

#[test]
fn moves_survive_packing() {
    for number in 0..26 {
        let packed = number << 8 | u16::from(number == 9);
        assert_eq!(Move::unpack(packed).pack(), packed);
    }
}
