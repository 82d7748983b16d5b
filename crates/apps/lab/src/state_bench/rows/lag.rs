//! From a packet at the active until its entry is in the standby's kernel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::super::bed::Bed;
use super::super::ctnetlink::Listener;
use super::super::subject::Kind;
use super::{Figures, Run};
use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::Gateway;
use crate::report::Spread;
use crate::run::random_below;
use crate::signals;

const SAMPLES: u16 = 500;
const QUICK_SAMPLES: u16 = 40;
/// Between two samples: half of this and up to as much again, so that no period of the system is met.
const SPACING: Nanos = 10 * MILLISECOND;
/// Flows a second beside the samples.
const BACKGROUND_RATE: u32 = 5_000;
/// A destination port that no flow of the background has.
const PORT: u16 = 19_999;
const FIRST_SOURCE: u16 = 10_000;
/// An entry that is not there so long after the last sample does not come.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lag of one system, with and without other connections beside it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct LagFigures {
    pub(in super::super) system: Kind,
    /// Other new connections a second meanwhile.
    pub(in super::super) background_per_s: u32,
    pub(in super::super) samples: usize,
    /// Samples whose entry never came.
    pub(in super::super) lost: usize,
    /// From the moment before the packet was sent by the client, in milliseconds.
    pub(in super::super) lag_ms: Option<Spread>,
}

/// Each system that writes into the standby's kernel at once, idle and beside other connections.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    for background in [0, BACKGROUND_RATE] {
        for kind in run.contenders(&[Kind::Vnfpool, Kind::Direct]) {
            let figures = lag(run, kind, background).map(Figures::Lag);
            run.settle("lag", kind, figures)?;
        }
    }
    Ok(())
}

fn lag(run: &mut Run<'_>, kind: Kind, background: u32) -> Result<LagFigures> {
    let samples = if run.quick { QUICK_SAMPLES } else { SAMPLES };
    let mut bed = Bed::build(kind)?;
    let listener = Listener::start(bed.gateway(Gateway::Gw2)?, PORT)?;
    let flood = match background {
        0 => None,
        rate => Some(Arc::clone(&bed.generator).in_background(0..u32::MAX / 2, rate)?),
    };
    // The first entries of a stream are not those that are asked for here.
    signals::sleep(Duration::from_millis(300))?;
    let mut sent: HashMap<u16, Nanos> = HashMap::new();
    for source in (FIRST_SOURCE..).take(usize::from(samples)) {
        signals::check()?;
        clock::sleep_until(clock::now() + SPACING / 2 + random_below(SPACING));
        sent.insert(source, bed.generator.send_one(source, PORT, 0)?);
    }
    let mut seen = HashMap::new();
    let end = clock::now() + clock::nanos(PATIENCE);
    while seen.len() < sent.len() && clock::now() < end {
        signals::sleep(Duration::from_millis(20))?;
        seen.extend(listener.take());
    }
    if let Some(flood) = flood {
        flood.finish()?;
    }
    bed.check()?;
    if listener.is_deaf() {
        bail!("events were lost on their way to the measurement itself");
    }
    let lags = seen
        .iter()
        .filter_map(|(source, at)| at.checked_sub(*sent.get(source)?));
    let figures = LagFigures {
        system: kind,
        background_per_s: background,
        samples: sent.len(),
        lost: sent
            .keys()
            .filter(|source| !seen.contains_key(source))
            .count(),
        lag_ms: Spread::of(lags.map(clock::millis)),
    };
    writeln!(run.progress, "{}: {}", kind.name(), line(&figures))?;
    Ok(figures)
}

fn line(figures: &LagFigures) -> String {
    let lag = figures.lag_ms.map_or_else(
        || "nothing came".to_owned(),
        |lag| {
            format!(
                "{:.3} / {:.3} / {:.3} / {:.3} ms",
                lag.min, lag.p50, lag.p99, lag.max
            )
        },
    );
    format!(
        "lag beside {}/s: {lag} (min / p50 / p99 / max), {} of {} lost",
        figures.background_per_s, figures.lost, figures.samples
    )
}
