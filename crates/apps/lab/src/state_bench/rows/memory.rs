//! Memory above the kernel's own.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::bed::Bed;
use super::super::subject::Kind;
use super::{Figures, Run, entries};
use crate::namespaces::Gateway;
use crate::signals;

/// For the standby to have everything.
const LIMIT: Duration = Duration::from_secs(60);
/// What was only needed on the way is given back by then.
const SETTLING: Duration = Duration::from_secs(5);
const QUICK_SETTLING: Duration = Duration::from_millis(500);

/// Memory of one system's processes, proportional set sizes, at the active and at the standby.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct MemoryFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) entries: u32,
    /// With empty tables, in KiB.
    pub(in super::super) empty_kib: [u64; 2],
    /// With that many entries at both ends.
    pub(in super::super) filled_kib: [u64; 2],
    /// The most that the processes have had resident at once until then.
    pub(in super::super) peak_kib: [u64; 2],
    /// What the entries cost, in MiB for 100,000.
    pub(in super::super) mib_per_100k: [f64; 2],
}

/// conntrackd without its external cache is left out, as in the row about resynchronisation.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    for kind in run.contenders(&[Kind::Vnfpool, Kind::Ftfw]) {
        let figures = memory(run, kind).map(Figures::Memory);
        run.settle("memory", kind, figures)?;
    }
    Ok(())
}

fn memory(run: &mut Run<'_>, kind: Kind) -> Result<MemoryFigures> {
    let entries = entries(run);
    let settling = if run.quick { QUICK_SETTLING } else { SETTLING };
    let empty_kib = {
        let mut bed = Bed::build(kind)?;
        signals::sleep(settling)?;
        Gateway::BOTH.map(|gateway| bed.memory_kib(gateway))
    };
    let mut bed = Bed::build_filled(kind, entries)?;
    bed.wait_held(entries, LIMIT)?;
    signals::sleep(settling)?;
    let filled_kib = Gateway::BOTH.map(|gateway| bed.memory_kib(gateway));
    let peak_kib = Gateway::BOTH.map(|gateway| bed.peak_kib(gateway));
    let figures = MemoryFigures {
        system: kind,
        entries,
        empty_kib,
        filled_kib,
        peak_kib,
        mib_per_100k: [0, 1].map(|end| per_100k(filled_kib[end], empty_kib[end], entries)),
    };
    writeln!(
        run.progress,
        "{}: {entries} entries, {:.1} and {:.1} MiB for 100,000 (active, standby), peaks {} and {} MiB",
        kind.name(),
        figures.mib_per_100k[0],
        figures.mib_per_100k[1],
        peak_kib[0] / 1024,
        peak_kib[1] / 1024,
    )?;
    Ok(figures)
}

/// In MiB, to hundredths; less than nothing is nothing.
#[expect(
    clippy::cast_precision_loss,
    reason = "KiB of a machine's memory, far below 2^53"
)]
fn per_100k(filled_kib: u64, empty_kib: u64, entries: u32) -> f64 {
    let mib = filled_kib.saturating_sub(empty_kib) as f64 / 1024.0;
    (mib * 100_000.0 / f64::from(entries.max(1)) * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_of_a_hundred_thousand() {
        assert!((per_100k(61_440, 10_240, 500_000) - 10.0).abs() < 1e-9);
        assert!(per_100k(10, 20, 500_000).abs() < 1e-9);
    }
}
