//! The figures as Markdown: the tables of `docs/performance.md`.

use super::rows::{Figures, RateFigures};
use super::subject::Kind;
use crate::report::{Spread, machine};

/// The whole page: the machine, the command, a table a row, what could not be measured.
pub(super) fn page(command: &str, figures: &[Figures], failures: &[String]) -> String {
    let mut page = format!("Machine: {}. Command: `{command}`.\n", machine());
    page.push_str(&rate(figures));
    page.push_str(&cpu(figures));
    page.push_str(&lag(figures));
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
