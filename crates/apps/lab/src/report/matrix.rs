//! The fault matrix: one row a scenario and system, as a table, as Markdown, as a page.

mod page;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use super::markdown::{machine, number};
use super::{Spread, Summary};
pub(crate) use page::matrix_page;

/// What came of one system in one scenario.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// Figures.
    Measured(Box<Summary>),
    /// It did not start, or the laboratory failed.
    NotMeasured(String),
    /// The scenario makes no sense for it.
    NotForIt(&'static str),
}

/// One scenario.
#[derive(Debug, Clone)]
pub(crate) struct MatrixRow {
    pub(crate) scenario: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keeps_connections: bool,
    pub(crate) breaks_nothing: bool,
    pub(crate) own: Outcome,
    pub(crate) rival: Option<Outcome>,
}

impl MatrixRow {
    /// What vnfpool promises and did not keep here.
    pub(crate) fn failures(&self) -> Vec<String> {
        match &self.own {
            Outcome::Measured(summary) => failures_of(summary, self),
            Outcome::NotMeasured(problem) => vec![format!("not measured: {problem}")],
            Outcome::NotForIt(_) => Vec::new(),
        }
    }

    /// One JSON object a system.
    pub(crate) fn objects(&self) -> Result<Vec<String>> {
        let mut objects = Vec::new();
        for (system, outcome) in self.systems() {
            let mut object = match outcome {
                Outcome::Measured(summary) => serde_json::to_value(summary)?,
                Outcome::NotMeasured(problem) => {
                    json!({ "scenario": self.scenario, "system": system, "problem": problem })
                }
                Outcome::NotForIt(_) => continue,
            };
            if system == OWN {
                let fields = object.as_object_mut().context("a row that is no object")?;
                fields.insert(
                    "keeps_connections".to_owned(),
                    json!(self.keeps_connections),
                );
                fields.insert("failures".to_owned(), json!(self.failures()));
            }
            objects.push(object.to_string());
        }
        Ok(objects)
    }

    fn systems(&self) -> Vec<(&'static str, &Outcome)> {
        let rival = self.rival.iter().map(|outcome| (RIVAL, outcome));
        std::iter::once((OWN, &self.own)).chain(rival).collect()
    }
}

/// The matrix, as far as it went.
#[derive(Debug, Clone)]
pub(crate) struct MatrixReport {
    /// Runs of each scenario.
    pub(crate) runs: u32,
    /// How many scenarios it has when it is complete.
    pub(crate) scenarios: usize,
    pub(crate) rows: Vec<MatrixRow>,
}

impl MatrixReport {
    /// Every scenario ran, and vnfpool kept what it promises in each.
    pub(crate) fn passed(&self) -> bool {
        self.rows.len() == self.scenarios && self.rows.iter().all(|row| row.failures().is_empty())
    }

    fn summaries(&self, system: &str) -> impl Iterator<Item = (&MatrixRow, &Summary)> {
        self.rows.iter().flat_map(move |row| {
            let of_system = row
                .systems()
                .into_iter()
                .filter(move |(name, _)| *name == system);
            of_system.filter_map(move |(_, outcome)| match outcome {
                Outcome::Measured(summary) => Some((row, summary.as_ref())),
                Outcome::NotMeasured(_) | Outcome::NotForIt(_) => None,
            })
        })
    }
}

fn failures_of(summary: &Summary, row: &MatrixRow) -> Vec<String> {
    let mut failures = Vec::new();
    if summary.two_owners_ms > 0 {
        failures.push(format!("two owners for {} ms", summary.two_owners_ms));
    }
    if summary.stale_frames > 0 {
        failures.push(format!("{} stale frames", summary.stale_frames));
    }
    let (alive, total) = connections(summary);
    if row.keeps_connections && alive < total {
        failures.push(format!("{} of {total} connections lost", total - alive));
    }
    if row.breaks_nothing && summary.takeovers > 0 {
        let (moved, runs) = (summary.takeovers, summary.runs);
        failures.push(format!("a false failover in {moved} of {runs} runs"));
    }
    if summary.recoveries < summary.runs {
        let not = summary.runs - summary.recoveries;
        let why = summary.not_ready.as_deref().unwrap_or("no reason is known");
        failures.push(format!(
            "not ready again after {not} of {} runs: {why}",
            summary.runs
        ));
    }
    failures
}

fn connections(summary: &Summary) -> (usize, usize) {
    (
        summary.tcp_alive + summary.ipv6.tcp_alive,
        summary.tcp_total + summary.ipv6.tcp_total,
    )
}

/// The columns after scenario and system, for all three forms.
const COLUMNS: [&str; 7] = [
    "outage",
    "connections",
    "two owners",
    "no owner",
    "role changes",
    "stale frames",
    "ready again",
];

fn cells(outcome: &Outcome) -> Vec<String> {
    let Outcome::Measured(summary) = outcome else {
        return vec![String::from("–"); COLUMNS.len()];
    };
    let (alive, total) = connections(summary);
    let ready = match summary.recovery_ms {
        _ if summary.recoveries < summary.runs => "no".to_owned(),
        Some(spread) => format!("{:.1} s", spread.max / 1000.0),
        None => "–".to_owned(),
    };
    vec![
        format!(
            "{} ms",
            p50_max(worse(summary.outage_ms, summary.ipv6.outage_ms))
        ),
        format!("{alive} / {total}"),
        format!("{} ms", summary.two_owners_ms),
        format!("{} ms", summary.no_owner_ms),
        p50_max(summary.role_changes),
        summary.stale_frames.to_string(),
        ready,
    ]
}

/// Of the two families the one with the longer outage.
fn worse(one: Option<Spread>, other: Option<Spread>) -> Option<Spread> {
    match (one, other) {
        (Some(one), Some(other)) if other.max > one.max => Some(other),
        (one, other) => one.or(other),
    }
}

fn p50_max(spread: Option<Spread>) -> String {
    match spread {
        Some(Spread { p50, max, .. }) if p50 < max => format!("{} / {}", number(p50), number(max)),
        Some(Spread { max, .. }) if max.fract() == 0.0 => format!("{max:.0}"),
        Some(Spread { max, .. }) => number(max),
        None => "–".to_owned(),
    }
}

fn note(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Measured(_) => None,
        Outcome::NotMeasured(problem) => Some(format!("not measured: {problem}")),
        Outcome::NotForIt(why) => Some(format!("not for it: {why}")),
    }
}

/// For a terminal.
pub(crate) fn matrix_table(report: &MatrixReport) -> String {
    let mut table = Table::new();
    let header = ["", "scenario", "system"].into_iter().chain(COLUMNS);
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(header.collect::<Vec<_>>());
    for row in &report.rows {
        for (system, outcome) in row.systems() {
            let sign = match (system, row.failures().is_empty()) {
                (OWN, true) => "ok",
                (OWN, false) => "FAILED",
                _ => "",
            };
            let mut line = vec![sign.to_owned(), row.scenario.to_owned(), system.to_owned()];
            line.extend(cells(outcome));
            table.add_row(line);
        }
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{table}\n{}", verdict(report));
    for row in &report.rows {
        for failure in row.failures() {
            let _infallible = write!(text, "\n  {}: {failure}", row.scenario);
        }
    }
    text
}

/// For `docs/performance.md`.
pub(crate) fn matrix_markdown(report: &MatrixReport) -> String {
    let mut page = format!(
        "Machine: {}; {} of each. {}.\n\n| scenario | system | {} |\n|---|---|{}\n",
        machine(),
        runs(report),
        verdict(report),
        COLUMNS.join(" | "),
        "---|".repeat(COLUMNS.len()),
    );
    for row in &report.rows {
        for (system, outcome) in row.systems() {
            if matches!(outcome, Outcome::NotForIt(_)) {
                continue;
            }
            let cells = cells(outcome).join(" | ");
            let _infallible = writeln!(page, "| {} | {system} | {cells} |", row.scenario);
        }
    }
    for row in &report.rows {
        for failure in row.failures() {
            let _infallible = write!(page, "\nFailed: {}: {failure}\n", row.scenario);
        }
    }
    page
}

fn verdict(report: &MatrixReport) -> String {
    let failed = report
        .rows
        .iter()
        .filter(|row| !row.failures().is_empty())
        .count();
    let (done, all) = (report.rows.len(), report.scenarios);
    match (failed, done == all) {
        (0, true) => format!("Passed: {all} scenarios, never two owners, no connection lost"),
        (0, false) => format!("{done} of {all} scenarios so far, none failed"),
        (failed, true) => format!("Failed: {failed} of {all} scenarios"),
        (failed, false) => format!("{done} of {all} scenarios so far, {failed} failed"),
    }
}

fn runs(report: &MatrixReport) -> String {
    match report.runs {
        1 => "one run".to_owned(),
        runs => format!("{runs} runs"),
    }
}

const OWN: &str = "vnfpool";
const RIVAL: &str = "keepalived";

#[cfg(test)]
mod tests;
