//! The figures as a table for a terminal.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use super::{Spread, StepReport, Summary};

/// One row per summary, IPv4 unless a column says otherwise.
pub(crate) fn table(summaries: &[Summary]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header([
        "scenario",
        "system",
        "runs",
        "outage ms\nmin/p50/max",
        "lost\np50/max",
        "TCP alive\nv4, v6",
        "TCP stall ms\np50/max",
        "two owners\nms",
        "no owner\nms",
        "takeover ms\np50/max",
        "role changes\np50/max",
        "decisions\np50/max",
    ]);
    for summary in summaries {
        table.add_row([
            summary.scenario.clone(),
            format!("{}\n{}", summary.system, summary.profile),
            summary.runs.to_string(),
            three(summary.outage_ms),
            two(summary.probes_lost),
            format!(
                "{}/{}, {}/{}",
                summary.tcp_alive,
                summary.tcp_total,
                summary.ipv6.tcp_alive,
                summary.ipv6.tcp_total
            ),
            two(summary.tcp_stall_ms),
            summary.two_owners_ms.to_string(),
            summary.no_owner_ms.to_string(),
            two(summary.takeover_ms),
            two(summary.role_changes),
            two(summary.decisions),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn three(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |spread| format!("{:.0}/{:.0}/{:.0}", spread.min, spread.p50, spread.max),
    )
}

fn two(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "-".to_owned(),
        |spread| format!("{:.0}/{:.0}", spread.p50, spread.max),
    )
}

/// Where the table of a load balancer says how many connections are with their backend.
const BALANCED_COLUMN: usize = 6;

/// One row per step of the demonstration.
pub(crate) fn demo_table(steps: &[StepReport]) -> String {
    let is_balanced = steps.iter().any(|step| step.balanced.is_some());
    let mut table = Table::new();
    let mut header = vec![
        "",
        "step",
        "outage ms\nv4, v6",
        "probes lost\nv4, v6",
        "takeover\nms",
        "TCP alive\nv4, v6",
        "two owners\nms",
        "no owner\nms",
    ];
    if is_balanced {
        header.insert(BALANCED_COLUMN, "with their\nbackend");
    }
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    for step in steps {
        let (v4, v6) = (&step.figures.ipv4, &step.figures.ipv6);
        let mut row = vec![
            if step.passed() { "ok" } else { "FAILED" }.to_owned(),
            step.title.clone(),
            format!("{:.0}, {:.0}", v4.outage_ms, v6.outage_ms),
            format!("{}, {}", v4.probes_lost, v6.probes_lost),
            step.figures
                .takeover_ms
                .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}")),
            format!(
                "{}/{}, {}/{}",
                v4.tcp_alive, v4.tcp_total, v6.tcp_alive, v6.tcp_total
            ),
            step.figures.two_owners_ms.to_string(),
            step.figures.no_owner_ms.to_string(),
        ];
        if let Some(balanced) = &step.balanced {
            let kept = format!("{}/{}", balanced.kept, balanced.total);
            row.insert(BALANCED_COLUMN, kept);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
