//! The row `commit`.

use super::super::rows::{Added, CommitFigures, Figures, Latencies, Setups};
use super::{Spread, table};

/// Its tables: what packets take, and connections a second.
pub(super) fn tables(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Commit(figures) => Some(figures.as_ref().clone()),
        _ => None,
    };
    let all: Vec<CommitFigures> = figures.iter().filter_map(of).collect();
    let rows: Vec<_> = all.iter().flat_map(latencies).collect();
    let head = [
        "system",
        "first packets, ms",
        "established, ms",
        "samples of each",
        "lost",
        "did not wait",
    ];
    let mut text = table("The level commit: packets to the server", &head, &rows);
    let rows: Vec<_> = all.iter().flat_map(setups).collect();
    let head = ["system", "connections/s", "of bounded's"];
    text.push_str(&table("The level commit: set-up rate", &head, &rows));
    let rows: Vec<_> = all.iter().flat_map(|row| row.setups.iter()).collect();
    let rows: Vec<_> = rows.into_iter().flat_map(steps).collect();
    let head = [
        "offered/s",
        "system",
        "set up/s",
        "different at the standby",
        "did not wait",
        "CPU s per 100,000, active / standby",
        "problem",
    ];
    text.push_str(&table("The level commit: each offered rate", &head, &rows));
    text
}

fn latencies(row: &CommitFigures) -> Vec<Vec<String>> {
    let level = |level: &Latencies| {
        vec![
            level.system.name().to_owned(),
            milliseconds(level.first_ms),
            milliseconds(level.established_ms),
            level.samples.to_string(),
            level.lost.to_string(),
            packets(level.unheld),
        ]
    };
    let added = |added: Option<Added>| {
        added.map_or_else(
            || "–".to_owned(),
            |added| format!("p50 {:+.3}, p99 {:+.3}", added.p50, added.p99),
        )
    };
    let mut rows: Vec<_> = row.latencies.iter().map(level).collect();
    let (first, established) = (row.added_first_ms, row.added_established_ms);
    let none = || "–".to_owned();
    rows.push(vec![
        "added".to_owned(),
        added(first),
        added(established),
        none(),
        none(),
        none(),
    ]);
    rows
}

fn setups(row: &CommitFigures) -> Vec<Vec<String>> {
    let share = row.setups_share;
    let shares = [None, share];
    let level = |(level, share): (&Setups, Option<f64>)| {
        vec![
            level.system.name().to_owned(),
            level
                .sustained_per_s
                .map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0)),
        ]
    };
    row.setups.iter().zip(shares).map(level).collect()
}

fn steps(level: &Setups) -> Vec<Vec<String>> {
    let steps = level.steps.iter().map(|step| {
        vec![
            step.offered_per_s.to_string(),
            level.system.name().to_owned(),
            format!("{:.0}", step.reached_per_s),
            format!("{} of {}", step.different, step.opened),
            packets(step.unheld),
            format!("{:.2} / {:.2}", step.cpu_s[0], step.cpu_s[1]),
            step.problem.clone().unwrap_or_default(),
        ]
    });
    steps.collect()
}

/// At `bounded` none waits.
fn packets(unheld: Option<u64>) -> String {
    unheld.map_or_else(|| "all".to_owned(), |packets| packets.to_string())
}

/// min / median / p99 / max, to the microsecond: an added tenth of a millisecond is what is looked
/// for.
fn milliseconds(spread: Option<Spread>) -> String {
    let all = |s: Spread| {
        [s.min, s.p50, s.p99, s.max]
            .map(|ms| format!("{ms:.3}"))
            .join(" / ")
    };
    spread.map_or_else(|| "–".to_owned(), all)
}
