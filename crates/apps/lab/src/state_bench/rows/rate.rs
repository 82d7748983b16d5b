//! New connections a second: the highest rate of which the standby misses none, and their price.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::bed::{Bed, Busy, per_second};
use super::super::subject::Kind;
use super::climb::{self, Outcome};
use super::{Figures, Run};
use crate::clock;
use crate::namespaces::Gateway;
use crate::signals;

/// Offered a second. Further up than the kernel itself gets with a listener on such a machine.
const RATES: &[u32] = &[
    10_000, 20_000, 25_000, 30_000, 35_000, 40_000, 45_000, 50_000, 55_000, 60_000, 70_000, 80_000,
];
const QUICK_RATES: &[u32] = &[500, 1_000];
/// For the processor time: below what any of the systems masters.
const CPU_RATE: u32 = 20_000;
const LENGTH: Duration = Duration::from_secs(5);
const QUICK_LENGTH: Duration = Duration::from_secs(1);
/// What is not at the standby so long after the end counts as missing.
const GRACE: Duration = Duration::from_secs(1);
/// For the idle share of the processor time.
const IDLE: Duration = Duration::from_secs(3);

/// One system on its way up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct RateFigures {
    pub(in super::super) system: Kind,
    /// The highest rate reached in a step of which nothing was missing, connections a second.
    pub(in super::super) sustained_per_s: Option<f64>,
    pub(in super::super) steps: Vec<RateStep>,
}

/// One offered rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct RateStep {
    pub(in super::super) offered_per_s: u32,
    /// Entries that the active's kernel made, a second of sending.
    pub(in super::super) reached_per_s: f64,
    pub(in super::super) sent: u32,
    /// Entries at the active.
    pub(in super::super) opened: usize,
    /// Of them not at the standby right after the last packet.
    pub(in super::super) missing_at_end: u64,
    /// A second later.
    pub(in super::super) missing: u64,
    /// When all entries were compared, which takes a moment: those that the standby lacks or has with
    /// another translation.
    pub(in super::super) different: usize,
    /// Entries that only the standby has.
    pub(in super::super) surplus: usize,
    /// Processor time of the system at the active for 100,000 connections, in seconds.
    pub(in super::super) sender_cpu_s: f64,
    /// At the standby.
    pub(in super::super) receiver_cpu_s: f64,
    /// What of both the system uses in the same time when nothing happens.
    pub(in super::super) idle_cpu_s: [f64; 2],
    /// Of all processors, from the first packet to the last, in percent.
    pub(in super::super) busy_percent: f64,
    /// What else was wrong, such as a takeover.
    pub(in super::super) problem: Option<String>,
}

impl RateStep {
    const fn outcome(&self) -> Outcome {
        Outcome {
            reached: self.reached_per_s,
            is_clean: self.missing == 0 && self.different == 0 && self.problem.is_none(),
        }
    }
}

/// Each system up to where higher offers bring nothing, one rate after the other.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    let (rates, length) = match run.quick {
        true => (QUICK_RATES, QUICK_LENGTH),
        false => (RATES, LENGTH),
    };
    let kinds = run.contenders(&[Kind::Vnfpool, Kind::Ftfw, Kind::Direct]);
    let mut climbs: BTreeMap<&str, Vec<RateStep>> = BTreeMap::new();
    for rate in rates {
        for kind in &kinds {
            let steps = climbs.entry(kind.name()).or_default();
            if is_over(steps) {
                continue;
            }
            match step(run, *kind, *rate, length) {
                Ok(step) => steps.push(step),
                Err(error) => run.fail(&format!("rate {rate}/s, {}: {error:#}", kind.name()))?,
            }
        }
    }
    for kind in kinds {
        let steps = climbs.remove(kind.name()).unwrap_or_default();
        run.figures.push(Figures::Rate(RateFigures {
            system: kind,
            sustained_per_s: sustained(&steps),
            steps,
        }));
    }
    Ok(())
}

/// The price of connections, at one rate.
pub(super) fn measure_cpu(run: &mut Run<'_>) -> Result<()> {
    let (rate, length) = match run.quick {
        true => (QUICK_RATES[0], QUICK_LENGTH),
        false => (CPU_RATE, LENGTH),
    };
    for kind in run.contenders(&[Kind::Vnfpool, Kind::Ftfw, Kind::Direct]) {
        let step = step(run, kind, rate, length);
        let figures = step.map(|step| {
            let steps = vec![step];
            Figures::Cpu(RateFigures {
                system: kind,
                sustained_per_s: sustained(&steps),
                steps,
            })
        });
        run.settle("cpu", kind, figures)?;
    }
    Ok(())
}

fn step(run: &mut Run<'_>, kind: Kind, rate: u32, length: Duration) -> Result<RateStep> {
    let mut bed = Bed::build(kind)?;
    let idle = match run.quick {
        true => QUICK_LENGTH,
        false => IDLE,
    };
    let before = cpu(&mut bed);
    signals::sleep(idle)?;
    let after = cpu(&mut bed);
    let share = (length + GRACE).as_secs_f64() / idle.as_secs_f64();
    let idle_cpu = [0, 1].map(|side| (after[side] - before[side]) * share);

    let held_before = bed.held()?;
    let opened_before = bed.opened()?;
    let busy = Busy::look()?;
    let before = cpu(&mut bed);
    let flows = rate.saturating_mul(u32::try_from(length.as_secs()).unwrap_or(u32::MAX));
    let sent = bed.generator.flood(0..flows, Some(rate), length)?;
    let ended = clock::now();
    let busy_percent = busy.since()?;
    let missing = |bed: &Bed| -> Result<u64> {
        // The standby first: what arrives meanwhile does not count.
        let held = bed.held()?.saturating_sub(held_before);
        Ok(bed
            .opened()?
            .saturating_sub(opened_before)
            .saturating_sub(held))
    };
    let missing_at_end = missing(&bed)?;
    clock::sleep_until(ended + clock::nanos(GRACE));
    let missing = missing(&bed)?;
    let after = cpu(&mut bed);
    let compared = bed.compare()?;
    let problem = bed.check().err().map(|error| format!("{error:#}"));
    signals::check()?;
    let of_100k = |seconds: f64| round(seconds * 100_000.0 / f64::from(sent.flows.max(1)));
    let step = RateStep {
        offered_per_s: rate,
        reached_per_s: per_second(compared.opened, sent.took).round(),
        sent: sent.flows,
        opened: compared.opened,
        missing_at_end,
        missing,
        different: compared.missing,
        surplus: compared.surplus,
        sender_cpu_s: of_100k(after[0] - before[0]),
        receiver_cpu_s: of_100k(after[1] - before[1]),
        idle_cpu_s: idle_cpu.map(of_100k),
        busy_percent: busy_percent.round(),
        problem,
    };
    writeln!(run.progress, "{}: {}", kind.name(), line(&step))?;
    Ok(step)
}

/// The processor time so far at the active and at the standby, in seconds.
fn cpu(bed: &mut Bed) -> [f64; 2] {
    Gateway::BOTH.map(|gateway| bed.cpu(gateway))
}

fn sustained(steps: &[RateStep]) -> Option<f64> {
    climb::sustained(steps.iter().map(RateStep::outcome))
}

/// Whether a system has come as far as it does.
fn is_over(steps: &[RateStep]) -> bool {
    let outcomes: Vec<Outcome> = steps.iter().map(RateStep::outcome).collect();
    climb::is_over(&outcomes)
}

fn line(step: &RateStep) -> String {
    let problem = step
        .problem
        .as_ref()
        .map_or_else(String::new, |problem| format!("; {problem}"));
    format!(
        "{}/s offered, {:.0}/s reached, {} of {} missing at the end, {} a second later ({} different, {} \
         too many), CPU of 100,000: {:.2} and {:.2} s (idle {:.2} and {:.2}), busy {:.0} %{problem}",
        step.offered_per_s,
        step.reached_per_s,
        step.missing_at_end,
        step.opened,
        step.missing,
        step.different,
        step.surplus,
        step.sender_cpu_s,
        step.receiver_cpu_s,
        step.idle_cpu_s[0],
        step.idle_cpu_s[1],
        step.busy_percent,
    )
}

/// To thousandths: the kernel tells hundredths of a second.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(reached: f64, missing: u64) -> RateStep {
        RateStep {
            offered_per_s: 0,
            reached_per_s: reached,
            sent: 0,
            opened: 0,
            missing_at_end: 0,
            missing,
            different: 0,
            surplus: 0,
            sender_cpu_s: 0.0,
            receiver_cpu_s: 0.0,
            idle_cpu_s: [0.0; 2],
            busy_percent: 0.0,
            problem: None,
        }
    }

    /// Goal: what is missing, different or wrong makes a step one that does not count.
    #[test]
    fn a_step_is_clean_without_a_loss_or_a_problem() {
        assert!(step(20e3, 0).outcome().is_clean);
        assert!(!step(20e3, 5).outcome().is_clean);
        let mut moved = step(40e3, 0);
        moved.problem = Some("a takeover".to_owned());
        assert!(!moved.outcome().is_clean);
        let mut other = step(40e3, 0);
        other.different = 1;
        assert_eq!(sustained(&[step(20e3, 0), other, moved]), Some(20e3));
    }
}
