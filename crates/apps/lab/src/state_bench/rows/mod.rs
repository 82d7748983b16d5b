//! What is measured, a row each.

mod burst;
mod climb;
mod commit;
mod lag;
mod memory;
mod rate;
mod resync;
mod sdk;
mod takeover;

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

pub(super) use burst::BurstFigures;
pub(super) use commit::{Added, CommitFigures, Latencies, Setups};
pub(super) use lag::LagFigures;
pub(super) use memory::MemoryFigures;
pub(super) use rate::{RateFigures, RateStep};
pub(super) use resync::ResyncFigures;
pub(super) use sdk::SdkFigures;
pub(super) use takeover::TakeoverFigures;

use super::subject::Kind;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateRow {
    /// New connections a second of which the standby misses none.
    Rate,
    /// The processor time of 100,000 connections at a rate that both systems master.
    Cpu,
    /// From a packet at the active until its entry is in the standby's kernel.
    Lag,
    /// A large table, brought to a standby that has nothing.
    Resync,
    /// The silent death of an active with a large table.
    Takeover,
    /// Memory above the kernel's own.
    Memory,
    /// More at once than anybody can follow.
    Burst,
    /// What the level `commit` costs new connections, and leaves alone.
    Commit,
    /// What a network function gets that has its own state replicated.
    Sdk,
}

impl StateRow {
    /// Every row, in the order in which they are measured.
    pub const ALL: [Self; 9] = [
        Self::Rate,
        Self::Cpu,
        Self::Lag,
        Self::Resync,
        Self::Takeover,
        Self::Memory,
        Self::Burst,
        Self::Commit,
        Self::Sdk,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Cpu => "cpu",
            Self::Lag => "lag",
            Self::Resync => "resync",
            Self::Takeover => "takeover",
            Self::Memory => "memory",
            Self::Burst => "burst",
            Self::Commit => "commit",
            Self::Sdk => "sdk",
        }
    }

    /// Measures it for these systems.
    pub(super) fn measure(self, run: &mut Run<'_>) -> Result<()> {
        match self {
            Self::Rate => rate::measure(run),
            Self::Cpu => rate::measure_cpu(run),
            Self::Lag => lag::measure(run),
            Self::Resync => resync::measure(run),
            Self::Takeover => takeover::measure(run),
            Self::Memory => memory::measure(run),
            Self::Burst => burst::measure(run),
            Self::Commit => commit::measure(run),
            Self::Sdk => sdk::measure(run),
        }
    }
}

/// What was measured of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "row", rename_all = "lowercase")]
pub(super) enum Figures {
    Rate(RateFigures),
    Cpu(RateFigures),
    Lag(LagFigures),
    Resync(ResyncFigures),
    Takeover(TakeoverFigures),
    Memory(MemoryFigures),
    Burst(BurstFigures),
    Commit(Box<CommitFigures>),
    Sdk(SdkFigures),
}

/// A large table, and a small one.
const ENTRIES: u32 = 500_000;
const QUICK_ENTRIES: u32 = 5_000;

/// How many entries the rows about large tables have.
const fn entries(run: &Run<'_>) -> u32 {
    if run.quick { QUICK_ENTRIES } else { ENTRIES }
}

/// One run of the bench, for the rows: who is measured, how much, and where figures go.
pub(super) struct Run<'a> {
    pub(super) rival: bool,
    pub(super) quick: bool,
    /// How often the rows with runs are run, instead of as often as usual.
    pub(super) runs: Option<usize>,
    pub(super) progress: &'a mut dyn Write,
    /// What was measured so far.
    pub(super) figures: Vec<Figures>,
    /// What could not be.
    pub(super) failures: Vec<String>,
}

impl Run<'_> {
    /// How often something is run that usually is `usual` times.
    pub(super) fn runs(&self, usual: usize) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// Those of `kinds` that take part.
    pub(super) fn contenders(&self, kinds: &[Kind]) -> Vec<Kind> {
        let takes_part = |kind: &&Kind| self.rival || **kind == Kind::Vnfpool;
        kinds.iter().filter(takes_part).copied().collect()
    }

    /// Keeps what was measured, or why it could not be; only an interrupt ends the run.
    pub(super) fn settle(
        &mut self,
        what: &str,
        kind: Kind,
        measured: Result<Figures>,
    ) -> Result<()> {
        match measured {
            Ok(figures) => self.figures.push(figures),
            Err(error) => self.fail(&format!("{what}, {}: {error:#}", kind.name()))?,
        }
        Ok(())
    }

    /// Notes what could not be measured.
    pub(super) fn fail(&mut self, failure: &str) -> Result<()> {
        crate::signals::check()?;
        writeln!(self.progress, "not measured: {failure}")?;
        self.failures.push(failure.to_owned());
        Ok(())
    }
}
