//! The figures of state replication: vnfpool and conntrackd, the same traffic, one run.
//!
//! Everything is seen from outside. Flows are opened by packets that a client sends through the
//! active gateway, and counted and compared in the kernels of both gateways; conntrackd, which
//! holds them in its own memory in its usual way, is asked for its count. What the programs use is
//! read from `/proc`. Each measurement has a laboratory of its own, so that nothing of one is left
//! in the next.
//!
//! Two rows are about what vnfpool alone has: the level `commit`, beside a pool at `bounded`, and a
//! function's own state, put by functions that the program brings along.

mod arrivals;
mod bed;
mod ctnetlink;
mod flood;
mod limits;
mod metrics;
mod report;
mod rows;
mod subject;
mod told;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::namespaces::Namespace;
use crate::report::check_writable;
use crate::rival::install_missing;
use crate::signals;
pub(crate) use ctnetlink::CLIENT;
use limits::RaisedLimits;
use rows::Run;
pub use rows::StateRow;

/// What [`bench_state`] is asked to do.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Only these rows; empty: all.
    pub rows: Vec<StateRow>,
    /// Whether conntrackd is measured too.
    pub rival: bool,
    /// Small sizes: to see that it works, not to judge by.
    pub quick: bool,
    /// How often a resynchronisation and a takeover are run, instead of as often as usual.
    pub runs: Option<u32>,
    /// One JSON object a row and system instead of the page.
    pub json: bool,
    /// Where to write the page in Markdown, anew after each row.
    pub report: PathBuf,
}

/// Measures the figures of state replication. Returns whether every row could be measured; one that
/// could not is named in the report, and the others go on.
///
/// # Errors
/// Without root, when the rival cannot be installed, when the report cannot be written, or on an
/// interrupt.
pub fn bench_state(
    options: &StateOptions,
    output: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<bool> {
    signals::catch_interrupts();
    crate::need_root("vnfpool bench state")?;
    check_writable(&options.report)?;
    if options.rival {
        install_missing(progress)?;
    }
    crate::clean_interrupted(progress)?;
    let _limits = RaisedLimits::raise()?;
    let mut run = Run {
        rival: options.rival,
        quick: options.quick,
        runs: options.runs.map(|runs| runs as usize),
        progress,
        figures: Vec::new(),
        failures: Vec::new(),
    };
    for row in selected(&options.rows) {
        writeln!(run.progress, "row {}", row.name())?;
        let told = run.figures.len();
        if let Err(error) = row.measure(&mut run) {
            run.fail(&format!("{}: {error:#}", row.name()))?;
        }
        if options.json {
            for figures in &run.figures[told..] {
                writeln!(output, "{}", serde_json::to_string(figures)?)?;
            }
            output.flush()?;
        }
        let page = report::page(&command(options), &run.figures, &run.failures);
        std::fs::write(&options.report, page)
            .with_context(|| format!("writing {}", options.report.display()))?;
    }
    if !options.json {
        let page = report::page(&command(options), &run.figures, &run.failures);
        write!(output, "{page}")?;
    }
    writeln!(run.progress, "written: {}", options.report.display())?;
    Ok(run.failures.is_empty())
}

/// Source and target ports of the connections in a namespace's kernel that go from the client to
/// ports of the server from 20 000 on.
///
/// # Errors
/// When the kernel does not show its connections.
pub(crate) fn flows_in(namespace: &Namespace) -> Result<BTreeSet<(u16, u16)>> {
    let flows = ctnetlink::dump(namespace)?.into_iter();
    let ports = flows.map(|flow| (flow.original.source.1, flow.original.target.1));
    Ok(ports.collect())
}

fn selected(rows: &[StateRow]) -> Vec<StateRow> {
    let is_wanted = |row: &StateRow| rows.is_empty() || rows.contains(row);
    StateRow::ALL.into_iter().filter(is_wanted).collect()
}

/// The command that does the same again.
fn command(options: &StateOptions) -> String {
    let mut command = String::from("vnfpool bench state");
    for row in &options.rows {
        command.push_str(&format!(" --only {}", row.name()));
    }
    if !options.rival {
        command.push_str(" --rival none");
    }
    if let Some(runs) = options.runs {
        command.push_str(&format!(" --runs {runs}"));
    }
    if options.quick {
        command.push_str(" --quick");
    }
    command
}
