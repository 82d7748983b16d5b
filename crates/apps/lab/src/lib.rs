//! The laboratory: namespaces, traffic, faults and measurement.
//!
//! A [`Lab`] is a set of network namespaces on this machine: a client and a monitor on an inside
//! LAN, two gateways, a server on an outside LAN, a manager on a management LAN. Real traffic goes
//! through the gateways' kernel NAT while a scenario does something to the active gateway. What
//! happened is measured from outside, from the client's and the monitor's packets, in the same way
//! for every system under test: vnfpool itself, and keepalived + conntrackd as its rival.
//!
//! What the gate costs is measured apart from that, in a network of its own ([`gate_cost()`]).
//!
//! Everything that a laboratory makes carries its id and is written down in `/run/vnfpool-lab`,
//! so that an interrupted run is cleaned up by the next.

mod bench;
mod clock;
mod command;
mod demo;
mod gate_cost;
mod matrix;
mod measure;
mod namespaces;
mod observe;
mod process;
mod realtime;
mod report;
mod rival;
mod run;
mod scenarios;
mod signals;
mod state_bench;
mod system;
#[cfg(test)]
mod tests;
mod traffic;
mod vnfpool;

use std::io::Write;

use anyhow::{Context as _, Result, ensure};

pub use bench::{BenchOptions, bench};
pub use demo::{DemoOptions, demo};
pub use gate_cost::{
    GateCost, GateCostOptions, GateLan, GateRules, GateUnderTest, LeaseUnderTest, PairFigures,
    gate_cost,
};
pub use matrix::{MatrixOptions, matrix};
pub use measure::{Balanced, FamilyFigures, Figures};
pub use namespaces::{
    Gateway, Lab, Namespace, SERVER_V4, SERVER_V6, Stale, TABLE, VIP_INSIDE_V4, VIP_INSIDE_V6,
    VIP_OUTSIDE_V4, VIP_OUTSIDE_V6, Watched,
};
pub use observe::Observer;
pub use report::{
    DemoReport, FamilySummary, LossSummary, Resident, Spread, StepReport, StepsSummary, Summary,
};
pub use run::{Rival, RunOptions, Scheduling, lab_run};
pub use state_bench::{StateOptions, StateRow, bench_state};
pub use traffic::Download;
pub use vnfpool::{Profile, TakeoverSteps, Vnf, element_file};

/// Prints the scenarios, one a line.
///
/// # Errors
/// When `output` cannot be written to.
pub fn lab_list(output: &mut dyn Write) -> Result<()> {
    for scenario in scenarios::all() {
        writeln!(output, "{:<22} {}", scenario.name(), scenario.about())
            .context("writing the list")?;
    }
    Ok(())
}

/// Removes what ended runs have left behind, kept laboratories included, and says what.
///
/// # Errors
/// When something cannot be removed.
pub fn clean(output: &mut dyn Write) -> Result<()> {
    clean_stale(true, output)
}

/// Fails without root: otherwise the first thing that is not permitted would fail, and only it be named.
pub(crate) fn need_root(command: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the laboratory needs root, since it makes network namespaces; try: sudo {command}"
    );
    Ok(())
}

/// What every run does first: as [`clean`], but what was kept on purpose stays.
pub(crate) fn clean_interrupted(output: &mut dyn Write) -> Result<()> {
    clean_stale(false, output)
}

fn clean_stale(kept: bool, output: &mut dyn Write) -> Result<()> {
    for stale in Lab::clean_stale(kept)? {
        let why = if stale.kept {
            "was kept by --keep"
        } else {
            "was left by an interrupted run"
        };
        writeln!(output, "removed laboratory {}, which {why}", stale.id)
            .context("writing progress")?;
    }
    Ok(())
}
