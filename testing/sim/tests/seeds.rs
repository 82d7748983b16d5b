//! Fresh seeds, and every seed that ever failed.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test, whose seed is worth reading"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vnfpool_sim::campaign::{explain, run_many};
use vnfpool_sim::history::{Plan, Profile, Telling, all_told, run};

/// For how long each profile is tried with fresh seeds. `VNFPOOL_SIM_SECONDS` says otherwise.
const SECONDS: u64 = 12;

/// Seeds of each told history.
const TOLD_SEEDS: u64 = 60;

/// Lines of "profile seed", and a word about what it was.
const REGRESSIONS: &str = include_str!("regressions.txt");

fn asked(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
}

fn fresh_seeds(name: &str) {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = asked("VNFPOOL_SIM_SEED").unwrap_or(clock.as_secs());
    let limit = Duration::from_secs(asked("VNFPOOL_SIM_SECONDS").unwrap_or(SECONDS));
    eprintln!("profile {name}, from seed {seed} on");
    let profile = Profile::named(name).unwrap();
    let summary = run_many(profile, seed, u64::MAX, limit, |_| {});
    eprintln!("{summary}");
    if let Some(failure) = summary.failure {
        panic!("profile {name}, first seed {seed}\n{failure}");
    }
    assert!(summary.seeds > 0);
}

#[test]
fn fresh_storms_are_survived() {
    fresh_seeds("storm");
}

#[test]
fn fresh_blinks_are_survived() {
    fresh_seeds("blinks");
}

#[test]
fn fresh_single_faults_cost_what_is_allowed() {
    fresh_seeds("single");
}

#[test]
fn fresh_single_faults_under_serve_cost_what_is_allowed() {
    fresh_seeds("serve");
}

#[test]
fn fresh_single_faults_of_a_lone_active_cost_what_is_allowed() {
    fresh_seeds("lone");
}

#[test]
fn fresh_single_faults_of_a_lone_active_under_serve_cost_what_is_allowed() {
    fresh_seeds("lone-serve");
}

#[test]
fn every_seed_that_ever_failed_passes() {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    let mut told = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let (Some(name), Some(seed)) = (words.next(), words.next()) else {
            panic!("'{line}' has no profile and seed");
        };
        let profile = Profile::named(name).unwrap();
        let plan = Plan::new(profile, seed.parse().unwrap());
        let outcome = run(&plan, &Telling::default());
        if outcome.violation.is_some() {
            panic!("{line}\n{}", explain(profile, &plan, &Telling::default()));
        }
        told += 1;
    }
    assert!(told > 0);
}

#[test]
fn told_histories_cost_what_is_allowed() {
    for told in all_told() {
        for seed in 0..TOLD_SEEDS {
            let outcome = told.run(seed, &Telling::default());
            assert_eq!(outcome.violation, None, "{} with seed {seed}", told.name);
        }
    }
}

/// The same seed twice gives the same history, and another seed another one.
#[test]
fn a_seed_is_a_history() {
    for name in ["storm", "serve", "blinks"] {
        let profile = Profile::named(name).unwrap();
        let digest = |seed| run(&Plan::new(profile, seed), &Telling::default()).digest;
        for seed in 0..5 {
            assert_eq!(digest(seed), digest(seed), "{name} {seed}");
            assert_ne!(digest(seed), digest(seed + 1), "{name} {seed}");
        }
    }
}

/// A timeline changes nothing.
#[test]
fn looking_changes_nothing() {
    let profile = Profile::named("storm").unwrap();
    let plan = Plan::new(profile, 7);
    let looking = Telling {
        lines: true,
        ..Telling::default()
    };
    let seen = run(&plan, &looking);
    assert_eq!(seen.digest, run(&plan, &Telling::default()).digest);
    assert!(seen.lines.len() > 100);
}

/// Outside of the bounds what is violated is declared, and some of it is: the checkers see it.
#[test]
fn what_is_violated_out_of_bounds_is_declared() {
    for name in ["drift-beyond", "old-image"] {
        let profile = Profile::named(name).unwrap();
        let declared = (0..120).find(|seed| {
            let outcome = run(&Plan::new(profile, *seed), &Telling::default());
            outcome.declared.is_some()
        });
        assert!(declared.is_some(), "{name}");
    }
}
