//! The figures as Markdown: the tables of `docs/performance.md`.

mod commit;
mod sdk;

use super::rows::{Figures, RateFigures};
use super::subject::Kind;
use crate::report::{Spread, machine};

/// The whole page: the machine, the command, a table a row, what could not be measured.
pub(super) fn page(command: &str, figures: &[Figures], failures: &[String]) -> String {
    let mut page = format!("Machine: {}. Command: `{command}`.\n", machine());
    page.push_str(&rate(figures));
    page.push_str(&cpu(figures));
    page.push_str(&lag(figures));
    page.push_str(&resync(figures));
    page.push_str(&takeover(figures));
    page.push_str(&memory(figures));
    page.push_str(&burst(figures));
    page.push_str(&commit::tables(figures));
    page.push_str(&sdk::table_of(figures));
    for failure in failures {
        page.push_str(&format!("\nNot measured: {failure}\n"));
    }
    page
}

/// A table with a heading, or nothing when it has no rows.
fn table(title: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = format!("\n### {title}\n\n{}", line(&head));
    text.push_str(&format!("|{}\n", "---|".repeat(head.len())));
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

fn rate(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Rate(figures) => Some(figures.clone()),
        _ => None,
    };
    let climbs: Vec<RateFigures> = figures.iter().filter_map(of).collect();
    let best = climbs.iter().map(|climb| {
        let sustained = climb.sustained_per_s;
        vec![
            climb.system.name().to_owned(),
            sustained.map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}")),
        ]
    });
    let best: Vec<_> = best.collect();
    let head = ["system", "connections/s, none missing"];
    let mut text = table("Sustained new connections", &head, &best);
    let steps = climbs.iter().flat_map(|climb| {
        let cells = |system: Kind, step: &super::rows::RateStep| {
            vec![
                step.offered_per_s.to_string(),
                system.name().to_owned(),
                format!("{:.0}", step.reached_per_s),
                step.missing_at_end.to_string(),
                format!("{} of {}", step.missing, step.opened),
                step.different.to_string(),
                format!("{:.2} / {:.2}", step.sender_cpu_s, step.receiver_cpu_s),
                format!("{:.0} %", step.busy_percent),
                step.problem.clone().unwrap_or_default(),
            ]
        };
        climb
            .steps
            .iter()
            .map(move |step| cells(climb.system, step))
    });
    let steps: Vec<_> = steps.collect();
    let head = [
        "offered/s",
        "system",
        "reached/s",
        "missing at the end",
        "1 s later",
        "different",
        "CPU s per 100,000, active / standby",
        "busy",
        "problem",
    ];
    text.push_str(&table("Each offered rate", &head, &steps));
    text
}

fn cpu(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Cpu(figures) => Some((figures.system, figures.steps.first()?.clone())),
        _ => None,
    };
    let rows = figures.iter().filter_map(of).map(|(system, step)| {
        vec![
            system.name().to_owned(),
            format!("{:.0}", step.reached_per_s),
            format!("{:.2}", step.sender_cpu_s),
            format!("{:.2}", step.receiver_cpu_s),
            format!("{:.2} / {:.2}", step.idle_cpu_s[0], step.idle_cpu_s[1]),
            step.missing.to_string(),
        ]
    });
    let head = [
        "system",
        "connections/s",
        "active, s",
        "standby, s",
        "of that idle",
        "missing",
    ];
    table(
        "CPU per 100,000 connections",
        &head,
        &rows.collect::<Vec<_>>(),
    )
}

fn lag(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Lag(figures) => Some(figures.clone()),
        _ => None,
    };
    let rows = figures.iter().filter_map(of).map(|lag| {
        vec![
            lag.background_per_s.to_string(),
            lag.system.name().to_owned(),
            lag.samples.to_string(),
            milliseconds(lag.lag_ms),
            lag.lost.to_string(),
        ]
    });
    let head = [
        "beside, connections/s",
        "system",
        "samples",
        "lag ms",
        "lost",
    ];
    table(
        "Lag to the standby's kernel",
        &head,
        &rows.collect::<Vec<_>>(),
    )
}

/// min / median / p99 / max, to the hundredth.
fn milliseconds(spread: Option<Spread>) -> String {
    let all = |s: Spread| {
        [s.min, s.p50, s.p99, s.max]
            .map(|ms| format!("{ms:.2}"))
            .join(" / ")
    };
    spread.map_or_else(|| "–".to_owned(), all)
}

fn resync(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Resync(figures) => Some(figures.clone()),
        _ => None,
    };
    let rows = figures.iter().filter_map(of).map(|resync| {
        vec![
            resync.system.name().to_owned(),
            resync.entries.to_string(),
            resync.runs.to_string(),
            milliseconds(resync.whole_ms),
            milliseconds(resync.transfer_ms),
            milliseconds(resync.commit_ms),
            resync.different.to_string(),
        ]
    });
    let head = [
        "system",
        "entries",
        "runs",
        "all held, ms",
        "of that from the first bytes",
        "then the commit, ms",
        "different",
    ];
    table("Full resynchronisation", &head, &rows.collect::<Vec<_>>())
}

fn takeover(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Takeover(figures) => Some(figures.clone()),
        _ => None,
    };
    let rows: Vec<_> = figures.iter().filter_map(of).collect();
    let empty = |system| {
        let of_empty = rows
            .iter()
            .find(|row| row.system == system && row.entries == 0);
        of_empty.and_then(|row| row.outage_ms)
    };
    let cells = rows.iter().map(|row| {
        let added = row
            .outage_ms
            .zip(empty(row.system))
            .filter(|_| row.entries > 0);
        vec![
            row.entries.to_string(),
            row.system.name().to_owned(),
            row.runs.to_string(),
            milliseconds(row.outage_ms),
            added.map_or_else(
                || "–".to_owned(),
                |(with, without)| format!("{:+.1}", with.p50 - without.p50),
            ),
            milliseconds(row.takeover_ms),
            milliseconds(row.state_ms),
            milliseconds(row.tcp_stall_ms),
            format!("{} / {}", row.tcp_alive, row.tcp_total),
        ]
    });
    let head = [
        "entries",
        "system",
        "runs",
        "outage, ms",
        "added by the entries (medians)",
        "address live, ms",
        "all state in the kernel, ms",
        "TCP stall, ms",
        "TCP alive",
    ];
    table(
        "Takeover with a large table",
        &head,
        &cells.collect::<Vec<_>>(),
    )
}

fn memory(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Memory(figures) => Some(figures.clone()),
        _ => None,
    };
    let mib = |both: [u64; 2]| format!("{} / {}", both[0] / 1024, both[1] / 1024);
    let rows = figures.iter().filter_map(of).map(|memory| {
        vec![
            memory.system.name().to_owned(),
            memory.entries.to_string(),
            mib(memory.empty_kib),
            mib(memory.filled_kib),
            mib(memory.peak_kib),
            format!(
                "{:.1} / {:.1}",
                memory.mib_per_100k[0], memory.mib_per_100k[1]
            ),
        ]
    });
    let head = [
        "system",
        "entries",
        "empty, MiB",
        "filled, MiB",
        "peak, MiB",
        "MiB per 100,000, active / standby",
    ];
    table(
        "Memory above the kernel's own",
        &head,
        &rows.collect::<Vec<_>>(),
    )
}

fn burst(figures: &[Figures]) -> String {
    let of = |figures: &Figures| match figures {
        Figures::Burst(figures) => Some(figures.clone()),
        _ => None,
    };
    let all: Vec<_> = figures.iter().filter_map(of).collect();
    let rows = all.iter().map(|burst| {
        let repaired = burst
            .repaired_ms
            .map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0}"));
        vec![
            burst.source.name().to_owned(),
            burst.system.name().to_owned(),
            format!("{} at {:.0}/s", burst.entries, burst.reached_per_s),
            burst.missing_at_end.to_string(),
            burst.missing.to_string(),
            repaired,
            burst.different.to_string(),
            burst.problem.clone().unwrap_or_default(),
        ]
    });
    let head = [
        "by",
        "system",
        "entries",
        "missing at the end",
        "1 s later",
        "whole after, ms",
        "different then",
        "problem",
    ];
    let mut text = table("Burst", &head, &rows.collect::<Vec<_>>());
    for burst in &all {
        let (system, source) = (burst.system.name(), burst.source.name());
        let said = match burst.told.as_slice() {
            [] => "nothing".to_owned(),
            lines => lines
                .iter()
                .map(|line| format!("`{line}`"))
                .collect::<Vec<_>>()
                .join("; "),
        };
        text.push_str(&format!("\n- {system}, {source}, said: {said}\n"));
    }
    text
}
