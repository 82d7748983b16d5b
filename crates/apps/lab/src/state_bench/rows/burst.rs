//! More at once than anybody can follow: what is missing, for how long, and who says so.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::bed::{Bed, per_second};
use super::super::ctnetlink;
use super::super::subject::Kind;
use super::super::told::Told;
use super::{Figures, Run};
use crate::clock::{self, Nanos};
use crate::namespaces::Gateway;
use crate::signals;

const ENTRIES: u32 = 300_000;
const QUICK_ENTRIES: u32 = 3_000;
/// What has not arrived by then does not arrive, or nobody wants to wait for it.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);
/// A burst of packets ends by itself after this.
const FLOOD_LIMIT: Duration = Duration::from_secs(30);

/// How the entries come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Source {
    /// By packets through the gateway.
    Packets,
    /// Entered into the kernel's table, which is faster.
    Ctnetlink,
}

impl Source {
    pub(in super::super) const fn name(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Ctnetlink => "ctnetlink",
        }
    }
}

/// What a burst did to one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct BurstFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) source: Source,
    /// Entries at the active, and how many a second came.
    pub(in super::super) entries: u64,
    pub(in super::super) reached_per_s: f64,
    /// Not at the standby right after the last one.
    pub(in super::super) missing_at_end: u64,
    /// A second later.
    pub(in super::super) missing: u64,
    /// From the last one until nothing was missing; none within a minute.
    pub(in super::super) repaired_ms: Option<f64>,
    /// In the end, every entry compared: not at the standby, or in another form.
    pub(in super::super) different: usize,
    /// What the system said about it: new lines of its logs that warn, counters of losses.
    pub(in super::super) told: Vec<String>,
    /// What else was wrong, such as a takeover.
    pub(in super::super) problem: Option<String>,
}

pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    for source in [Source::Ctnetlink, Source::Packets] {
        for kind in run.contenders(&[Kind::Vnfpool, Kind::Ftfw, Kind::Direct]) {
            let figures = burst(run, kind, source).map(Figures::Burst);
            run.settle(&format!("burst of {}", source.name()), kind, figures)?;
        }
    }
    Ok(())
}

fn burst(run: &mut Run<'_>, kind: Kind, source: Source) -> Result<BurstFigures> {
    let entries = if run.quick { QUICK_ENTRIES } else { ENTRIES };
    let mut bed = Bed::build(kind)?;
    let told = Told::begin(&bed)?;
    let (held, opened) = (bed.held()?, bed.opened()?);
    let took = open_all(&bed, source, entries)?;
    let ended = clock::now();
    let missing = |bed: &Bed| -> Result<u64> {
        let held = bed.held()?.saturating_sub(held);
        Ok(bed.opened()?.saturating_sub(opened).saturating_sub(held))
    };
    let missing_at_end = missing(&bed)?;
    let (missing_later, repaired) = watch(&bed, ended, missing_at_end, &missing)?;
    let opened_in_all = bed.opened()?.saturating_sub(opened);
    let compared = bed.compare()?;
    let problem = bed.check().err().map(|error| format!("{error:#}"));
    signals::check()?;
    let figures = BurstFigures {
        system: kind,
        source,
        entries: opened_in_all,
        reached_per_s: per_second(compared.opened, took).round(),
        missing_at_end,
        missing: missing_later,
        repaired_ms: repaired.map(|at| clock::millis(at - ended).round()),
        different: compared.missing,
        told: told.end(&bed)?,
        problem,
    };
    writeln!(run.progress, "{}: {}", kind.name(), line(&figures))?;
    Ok(figures)
}

/// Opens them as fast as it goes; returns how long that took.
fn open_all(bed: &Bed, source: Source, entries: u32) -> Result<Nanos> {
    match source {
        Source::Packets => Ok(bed.generator.flood(0..entries, None, FLOOD_LIMIT)?.took),
        Source::Ctnetlink => ctnetlink::insert(bed.gateway(Gateway::Gw1)?, 0..entries, None),
    }
}

/// Looks on until nothing is missing; returns what was missing after a second, and the moment at
/// which nothing was.
fn watch(
    bed: &Bed,
    ended: Nanos,
    at_end: u64,
    missing: &dyn Fn(&Bed) -> Result<u64>,
) -> Result<(u64, Option<Nanos>)> {
    let second = ended + clock::nanos(Duration::from_secs(1));
    let end = ended + clock::nanos(LIMIT);
    let mut repaired = (at_end == 0).then(clock::now);
    while repaired.is_none() && clock::now() + clock::nanos(LOOK) < second {
        signals::sleep(LOOK)?;
        repaired = (missing(bed)? == 0).then(clock::now);
    }
    clock::sleep_until(second);
    let later = missing(bed)?;
    if later > 0 {
        // What was whole for a moment has lost something since.
        repaired = None;
    }
    while repaired.is_none() && clock::now() < end {
        signals::sleep(LOOK)?;
        repaired = (missing(bed)? == 0).then(clock::now);
    }
    Ok((later, repaired))
}

fn line(figures: &BurstFigures) -> String {
    let repaired = figures.repaired_ms.map_or_else(
        || "never whole".to_owned(),
        |ms| format!("whole after {ms:.0} ms"),
    );
    let problem = figures
        .problem
        .as_ref()
        .map_or_else(String::new, |problem| format!("; {problem}"));
    let said = if figures.told.is_empty() {
        "nothing"
    } else {
        "something"
    };
    format!(
        "{} entries by {} at {:.0}/s, {} missing at the end, {} a second later, {repaired}, {} different in \
         the end, {said} was said{problem}",
        figures.entries,
        figures.source.name(),
        figures.reached_per_s,
        figures.missing_at_end,
        figures.missing,
        figures.different,
    )
}
