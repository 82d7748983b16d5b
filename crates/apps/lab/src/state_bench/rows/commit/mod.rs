//! What the level `commit` costs: two pools, one at that level and one at `bounded`, in turns.

mod latency;
mod setups;

use anyhow::Result;
use serde::Serialize;

pub(in super::super) use latency::Latencies;
pub(in super::super) use setups::Setups;

use super::super::subject::Kind;
use super::{Figures, Run};
use crate::report::Spread;

/// The pool at `bounded`, and the one at `commit`.
const LEVELS: [Kind; 2] = [Kind::Vnfpool, Kind::Commit];

/// Both levels beside each other, `bounded` first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct CommitFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) latencies: [Latencies; 2],
    /// What `commit` adds to the first packet of a connection, in milliseconds: the differences of
    /// the medians and of the 99th percentiles.
    pub(in super::super) added_first_ms: Option<Added>,
    /// To packets of an established connection.
    pub(in super::super) added_established_ms: Option<Added>,
    pub(in super::super) setups: [Setups; 2],
    /// New connections a second at `commit`, as a share of those at `bounded`.
    pub(in super::super) setups_share: Option<f64>,
}

/// The difference of two distributions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(in super::super) struct Added {
    pub(in super::super) p50: f64,
    pub(in super::super) p99: f64,
}

pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let figures = both(run).map(|both| Figures::Commit(Box::new(both)));
    run.settle("commit", Kind::Vnfpool, figures)
}

fn both(run: &mut Run<'_>) -> Result<CommitFigures> {
    let latencies = latency::measure(run)?;
    let setups = setups::measure(run)?;
    let added = |of: fn(&Latencies) -> _| Added::between(of(&latencies[0]), of(&latencies[1]));
    let share = setups[1].sustained_per_s.zip(setups[0].sustained_per_s);
    Ok(CommitFigures {
        system: Kind::Vnfpool,
        added_first_ms: added(|level| level.first_ms),
        added_established_ms: added(|level| level.established_ms),
        latencies,
        setups,
        setups_share: share.map(|(commit, bounded)| commit / bounded),
    })
}

impl Added {
    fn between(without: Option<Spread>, with: Option<Spread>) -> Option<Self> {
        let (without, with) = without.zip(with)?;
        Some(Self {
            p50: with.p50 - without.p50,
            p99: with.p99 - without.p99,
        })
    }
}
