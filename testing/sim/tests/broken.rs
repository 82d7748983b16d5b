//! The harness proves itself: each breakage of the catalogue has to be caught.

#![cfg(feature = "broken")]
#![allow(
    clippy::print_stderr,
    reason = "how many seeds it took is worth reading"
)]

use vnfpool_sim::broken::{CATALOGUE, Row, Shown};
use vnfpool_sim::history::{Outcome, Plan, Profile, Telling, Told, run};

/// So many seeds at most.
const SEEDS_MAX: u64 = 3_000;

/// Runs seeds until the breakage violates what it should; says how many it took.
fn seeds_until_caught(row: &Row) -> Option<(u64, Outcome)> {
    let telling = Telling {
        broken: Some(row.broken),
        only: Some(row.violates),
        ..Telling::default()
    };
    (0..SEEDS_MAX).find_map(|seed| {
        let outcome = match row.shown {
            Shown::By(profile) => {
                let profile = Profile::named(profile).expect("a profile of that name");
                run(&Plan::new(profile, seed), &telling)
            }
            Shown::Told(told) => {
                let told = Told::named(told).expect("a told history of that name");
                told.run(seed, &telling)
            }
        };
        let caught = outcome.violation.is_some();
        caught.then_some((seed + 1, outcome))
    })
}

#[test]
fn each_breakage_is_caught() {
    let mut missed = Vec::new();
    let wanted = std::env::var("VNFPOOL_BROKEN").unwrap_or_default();
    for row in CATALOGUE.iter().filter(|row| row.name.contains(&wanted)) {
        match seeds_until_caught(row) {
            Some((seeds, outcome)) => {
                let text = outcome.violation.map(|v| v.text).unwrap_or_default();
                eprintln!("{} ({}): {seeds} seeds: {text}", row.name, row.row);
            }
            None => missed.push(row.name),
        }
    }
    assert!(
        missed.is_empty(),
        "not caught in {SEEDS_MAX} seeds: {missed:?}"
    );
}
