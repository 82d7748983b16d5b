//! The matrix as one self-contained page.

use std::fmt::Write as _;

use super::{
    COLUMNS, MatrixReport, MatrixRow, OWN, Outcome, RIVAL, cells, connections, note, runs, verdict,
};
use crate::report::html::{STYLE, escape};
use crate::report::markdown::machine;

/// Writes the page.
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
         <th class=\"system\">system</th>{heads}</tr></thead><tbody>"
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
        let _infallible = write!(html, "<td class=\"system\">{system}</td>");
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
