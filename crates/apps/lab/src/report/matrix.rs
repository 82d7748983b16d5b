//! The fault matrix: one row a scenario and system, as a table, as Markdown, as a page.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde_json::json;

use super::html::{STYLE, escape};
use super::markdown::{machine, number};
use super::{Spread, Summary};

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
    pub(crate) own: Outcome,
    pub(crate) rival: Option<Outcome>,
}

impl MatrixRow {
    /// What vnfpool promises and did not keep here.
    pub(crate) fn failures(&self) -> Vec<String> {
        match &self.own {
            Outcome::Measured(summary) => failures_of(summary, self.keeps_connections),
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

fn failures_of(summary: &Summary, keeps_connections: bool) -> Vec<String> {
    let mut failures = Vec::new();
    if summary.two_owners_ms > 0 {
        failures.push(format!("two owners for {} ms", summary.two_owners_ms));
    }
    if summary.stale_frames > 0 {
        failures.push(format!("{} stale frames", summary.stale_frames));
    }
    let (alive, total) = connections(summary);
    if keeps_connections && alive < total {
        failures.push(format!("{} of {total} connections lost", total - alive));
    }
    if summary.recoveries < summary.runs {
        let not = summary.runs - summary.recoveries;
        failures.push(format!(
            "not ready again after {not} of {} runs",
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

/// As one self-contained page.
pub(crate) fn matrix_page(report: &MatrixReport) -> String {
    let mut html = String::new();
    let class = if report.passed() { "good" } else { "bad" };
    let _infallible = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>vnfpool fault matrix</title><style>{STYLE}</style></head><body><main>\
         <h1>Everything that can break</h1>\
         <p class=\"soft\">Two gateways under real traffic, every fault of the laboratory, {} of \
         each. Measured from outside.</p>\
         <p class=\"verdict {class}\">{}</p>",
        runs(report),
        escape(&verdict(report)),
    );
    cards(&mut html, report);
    let heads: String = COLUMNS
        .iter()
        .map(|name| format!("<th>{name}</th>"))
        .collect();
    let _infallible = write!(
        html,
        "<section><div class=\"scroll\"><table class=\"matrix\"><thead><tr><th>scenario</th>\
         <th>system</th>{heads}</tr></thead><tbody>"
    );
    for row in &report.rows {
        page_row(&mut html, row);
    }
    let _infallible = write!(
        html,
        "</tbody></table></div></section><footer><p>Outage: the longest run of lost probes, one a \
         millisecond, through the gateways' NAT; the worse of IPv4 and IPv6, median / largest. \
         Connections: TCP, moved data before the fault and after it. Two owners, no owner: an ARP \
         question for the virtual address each 5 ms, answered by both gateways or by nobody, over \
         all runs. Role changes: how often the answers moved to the other gateway. Stale frames: \
         sent by one gateway while the other one served, on both LANs. Ready again: from the end \
         of the fault until there was an active and a synchronised standby. {}</p></footer>\
         </main></body></html>",
        escape(&machine())
    );
    html
}

fn page_row(html: &mut String, row: &MatrixRow) {
    let systems = row.systems();
    let failures = row.failures();
    let (class, sign) = if failures.is_empty() {
        ("good", "✓")
    } else {
        ("bad", "✗")
    };
    for (index, (system, outcome)) in systems.iter().enumerate() {
        html.push_str("<tr>");
        if index == 0 {
            let _infallible = write!(
                html,
                "<td rowspan=\"{}\"><span class=\"{class}\">{sign}</span> <b>{}</b><br>\
                 <span class=\"soft\">{}</span>",
                systems.len(),
                escape(row.scenario),
                escape(row.about)
            );
            for failure in &failures {
                let _infallible =
                    write!(html, "<br><span class=\"bad\">{}</span>", escape(failure));
            }
            html.push_str("</td>");
        }
        let _infallible = write!(html, "<td>{system}</td>");
        match note(outcome) {
            Some(note) => {
                let columns = COLUMNS.len();
                let note = escape(&note);
                let _infallible = write!(
                    html,
                    "<td colspan=\"{columns}\" class=\"soft note\">{note}</td>"
                );
            }
            None => {
                let marks = marks(outcome, row.keeps_connections);
                for (cell, is_bad) in cells(outcome).iter().zip(marks) {
                    let class = if is_bad { " class=\"bad\"" } else { "" };
                    let _infallible = write!(html, "<td{class}>{}</td>", escape(cell));
                }
            }
        }
        html.push_str("</tr>");
    }
}

/// Which cells are bad news, whoever they are of.
fn marks(outcome: &Outcome, keeps_connections: bool) -> [bool; COLUMNS.len()] {
    let Outcome::Measured(summary) = outcome else {
        return [false; COLUMNS.len()];
    };
    let (alive, total) = connections(summary);
    [
        false,
        keeps_connections && alive < total,
        summary.two_owners_ms > 0,
        false,
        false,
        summary.stale_frames > 0,
        summary.recoveries < summary.runs,
    ]
}

fn cards(html: &mut String, report: &MatrixReport) {
    let two_owners = |system: &str| -> u64 {
        report
            .summaries(system)
            .map(|(_, summary)| summary.two_owners_ms)
            .sum()
    };
    let lost = |system: &str| -> (usize, usize) {
        let kept = report
            .summaries(system)
            .filter(|(row, _)| row.keeps_connections);
        kept.map(|(_, summary)| connections(summary))
            .fold((0, 0), |(lost, all), (alive, total)| {
                (lost + total - alive, all + total)
            })
    };
    html.push_str("<div class=\"cards\">");
    let has_rival = report.rows.iter().any(|row| row.rival.is_some());
    for system in [OWN, RIVAL]
        .into_iter()
        .filter(|name| *name == OWN || has_rival)
    {
        let (lost, total) = lost(system);
        let cards = [
            (
                format!("{} ms", two_owners(system)),
                format!("{system}: with two owners of the virtual address"),
                two_owners(system) == 0,
            ),
            (
                format!("{lost} of {total}"),
                format!("{system}: connections lost that could live"),
                lost == 0,
            ),
        ];
        for (value, text, is_good) in cards {
            let class = if is_good { "" } else { " class=\"bad\"" };
            let _infallible = write!(
                html,
                "<div class=\"card\"><b{class}>{value}</b><span>{text}</span></div>"
            );
        }
    }
    html.push_str("</div>");
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
