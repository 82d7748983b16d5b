//! From pairs of intervals to the cost of the gate.

use anyhow::{Context as _, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::report::{Spread, machine};

/// The rates of one pair of intervals, in packets a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PairFigures {
    /// With the open gate.
    pub with: f64,
    /// Without a gate.
    pub without: f64,
}

impl PairFigures {
    fn cost_percent(self) -> f64 {
        100.0 * (1.0 - self.with / self.without)
    }

    fn cost_ns(self) -> f64 {
        1e9 / self.with - 1e9 / self.without
    }

    /// For people, while it runs.
    pub(super) fn line(self) -> String {
        format!(
            "{:.0} packets/s without, {:.0} with the gate: {:.1} %, {:.0} ns a packet",
            self.without,
            self.with,
            self.cost_percent(),
            self.cost_ns()
        )
    }
}

/// What became of packets beside the rates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drops {
    /// Dropped by the gate before it was closed.
    pub(super) while_open: u64,
    /// Arrived while it was closed.
    pub(super) forwarded_closed: u64,
    /// Dropped while it was closed.
    pub(super) while_closed: u64,
}

/// What the gate costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateCost {
    /// How the gate is attached.
    pub gate: String,
    /// What else the gateway does with a packet.
    pub rules: String,
    /// How many pairs of intervals.
    pub pairs: usize,
    /// Packets a second without a gate.
    pub without: Spread,
    /// Packets a second with the open gate.
    pub with: Spread,
    /// With over without, in each pair.
    pub ratio: Spread,
    /// What the gate takes of the packets a second, in percent: median over the pairs.
    pub cost_percent: f64,
    /// The quarter of the pairs with the least cost lies below the first, that with the most above
    /// the second, in percent.
    pub cost_percent_quartiles: [f64; 2],
    /// Of a packet's whole way through both programs, in ns: median over the pairs.
    pub cost_ns: f64,
    /// Packets that the gate dropped before it was closed: not 0, a lease was renewed too late on a
    /// busy machine, and the rates with the gate are too low.
    pub dropped_while_open: u64,
    /// Packets that arrived at the end, with the gate closed under the same load.
    pub forwarded_while_closed: u64,
    /// Packets that the closed gate counted as dropped.
    pub dropped_while_closed: u64,
}

impl GateCost {
    pub(super) fn of(
        gate: String,
        rules: &str,
        pairs: &[PairFigures],
        drops: Drops,
    ) -> Result<Self> {
        let spread = |value: &dyn Fn(PairFigures) -> f64| {
            Spread::of(pairs.iter().copied().map(value)).context("no pair was measured")
        };
        let mut costs: Vec<f64> = pairs.iter().map(|pair| pair.cost_percent()).collect();
        costs.sort_by(f64::total_cmp);
        let quartile = |quarter: usize| costs[(costs.len() - 1) * quarter / 4];
        Ok(Self {
            gate,
            rules: rules.to_owned(),
            pairs: pairs.len(),
            without: spread(&|pair| pair.without)?,
            with: spread(&|pair| pair.with)?,
            ratio: spread(&|pair| pair.with / pair.without)?,
            cost_percent: spread(&PairFigures::cost_percent)?.p50,
            cost_percent_quartiles: [quartile(1), quartile(3)],
            cost_ns: spread(&PairFigures::cost_ns)?.p50,
            dropped_while_open: drops.while_open,
            forwarded_while_closed: drops.forwarded_closed,
            dropped_while_closed: drops.while_closed,
        })
    }

    /// Whether the gate did what it is for.
    pub(super) fn gates(&self) -> bool {
        self.forwarded_while_closed == 0 && self.dropped_while_closed > 0
    }
}

/// For people.
pub(super) fn text(cost: &GateCost) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_header(["", "min", "p50", "p99", "max"]);
    let rows = [
        ("packets/s without", cost.without, 0),
        ("packets/s with the gate", cost.with, 0),
        ("with / without, each pair", cost.ratio, 3),
    ];
    for (what, spread, digits) in rows {
        let four = [spread.min, spread.p50, spread.p99, spread.max];
        let mut cells = vec![what.to_owned()];
        cells.extend(four.map(|value| format!("{value:.digits$}")));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let [low, high] = cost.cost_percent_quartiles;
    let disturbed = match cost.dropped_while_open {
        0 => String::new(),
        dropped => format!(
            "\na lease was renewed too late: the open gate dropped {dropped}, the cost is overstated"
        ),
    };
    let closed = if cost.gates() {
        format!(
            "closed, it forwarded none and dropped {}",
            cost.dropped_while_closed
        )
    } else {
        format!(
            "FAILED: closed, it forwarded {} and dropped {}",
            cost.forwarded_while_closed, cost.dropped_while_closed
        )
    };
    format!(
        "{table}\n{}; rules: {}; {} pairs, 64-byte frames; {}\n\
         the gate costs {:.1} % (half of the pairs: {low:.1} to {high:.1} %), {:.0} ns a packet\n\
         {closed}{disturbed}",
        cost.gate,
        cost.rules,
        cost.pairs,
        machine(),
        cost.cost_percent,
        cost.cost_ns,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs() -> Vec<PairFigures> {
        [0.97, 0.98, 0.99, 1.0, 0.6]
            .map(|ratio| PairFigures {
                with: 500_000.0 * ratio,
                without: 500_000.0,
            })
            .into()
    }

    fn drops(forwarded_closed: u64, while_closed: u64) -> Drops {
        Drops {
            while_open: 0,
            forwarded_closed,
            while_closed,
        }
    }

    /// Goal: one disturbed pair does not move the figure.
    #[test]
    fn the_cost_is_the_median_of_the_pairs() {
        let cost = GateCost::of("tcx".to_owned(), "none", &pairs(), drops(0, 7)).unwrap();
        assert!((cost.cost_percent - 2.0).abs() < 1e-9, "{cost:?}");
        assert!((cost.ratio.p50 - 0.98).abs() < 1e-9, "{cost:?}");
        let [low, high] = cost.cost_percent_quartiles;
        assert!((low - 1.0).abs() < 1e-9 && (high - 3.0).abs() < 1e-9);
        // 1 / 490 kHz - 1 / 500 kHz
        assert!((cost.cost_ns - 40.8).abs() < 0.1, "{cost:?}");
        assert!(text(&cost).contains("the gate costs 2.0 %"));
    }

    #[test]
    fn a_gate_that_leaks_or_sees_nothing_is_a_failure() {
        let cost = |forwarded, dropped| {
            let drops = drops(forwarded, dropped);
            GateCost::of("tcx".to_owned(), "none", &pairs(), drops).unwrap()
        };
        assert!(cost(0, 1).gates());
        assert!(!cost(1, 1).gates());
        assert!(!cost(0, 0).gates());
        assert!(text(&cost(1, 1)).contains("FAILED"));
        assert!(GateCost::of(String::new(), "none", &[], drops(0, 1)).is_err());
    }
}
