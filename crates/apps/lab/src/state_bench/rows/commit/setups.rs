//! New connections a second at both levels.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::super::super::arrivals::Window;
use super::super::super::bed::{Bed, per_second};
use super::super::super::subject::Kind;
use super::super::Run;
use super::super::climb::{self, Outcome};
use super::LEVELS;
use super::latency::committed;
use crate::clock;
use crate::namespaces::Gateway;
use crate::signals;

/// Offered a second, all of them to both levels: one pause of 20 ms in a step, on a machine that does
/// something else as well, lowers the level, and the step does not count.
const RATES: &[u32] = &[20_000, 40_000, 50_000, 60_000, 70_000, 80_000, 90_000];
const QUICK_RATES: &[u32] = &[500];
const LENGTH: Duration = Duration::from_secs(4);
const QUICK_LENGTH: Duration = Duration::from_secs(1);
/// Packets on their way to the server at a time: as many clients that each wait for the answer to
/// the first packet before they begin the next connection. Without such a bound an offer above what
/// comes through fills the queue of held packets, and measures the downgrade; with one of 1,000 they
/// wait for nearly as long as that takes to begin, at 50,000/s.
const WINDOW: u32 = 256;
/// What is not at the standby so long after the end counts as missing.
const GRACE: Duration = Duration::from_secs(1);

/// One level at each offered rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super::super) struct Setups {
    pub(in super::super::super) system: Kind,
    /// The highest rate reached in a clean step, connections a second.
    pub(in super::super::super) sustained_per_s: Option<f64>,
    pub(in super::super::super) steps: Vec<SetupStep>,
}

/// One offered rate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super::super) struct SetupStep {
    pub(in super::super::super) offered_per_s: u32,
    /// Entries that the active's kernel made, a second of sending: it makes one when the first packet
    /// leaves.
    pub(in super::super::super) reached_per_s: f64,
    pub(in super::super::super) sent: u32,
    /// Entries at the active.
    pub(in super::super::super) opened: usize,
    /// Of them not, or with another translation, at the standby a second after the last packet.
    pub(in super::super::super) different: usize,
    /// First packets that left without waiting for the standby, at `commit`.
    pub(in super::super::super) unheld: Option<u64>,
    /// Processor time of the system for 100,000 connections, at the active and at the standby, in
    /// seconds.
    pub(in super::super::super) cpu_s: [f64; 2],
    /// What else was wrong, such as a takeover.
    pub(in super::super::super) problem: Option<String>,
}

impl SetupStep {
    fn outcome(&self) -> Outcome {
        Outcome {
            reached: self.reached_per_s,
            is_clean: self.different == 0
                && self.unheld.unwrap_or(0) == 0
                && self.problem.is_none(),
        }
    }
}

/// Both levels in turns, one rate after the other.
pub(super) fn measure(run: &mut Run<'_>) -> Result<[Setups; 2]> {
    let (rates, length) = match run.quick {
        true => (QUICK_RATES, QUICK_LENGTH),
        false => (RATES, LENGTH),
    };
    let mut climbs = LEVELS.map(|system| Setups {
        system,
        sustained_per_s: None,
        steps: Vec::new(),
    });
    for rate in rates {
        for climb in &mut climbs {
            let name = climb.system.name();
            match step(climb.system, *rate, length) {
                Ok(step) => {
                    writeln!(run.progress, "{name}: {}", line(&step))?;
                    climb.steps.push(step);
                }
                Err(error) => run.fail(&format!("commit {rate}/s, {name}: {error:#}"))?,
            }
        }
    }
    for climb in &mut climbs {
        climb.sustained_per_s = climb::sustained(climb.steps.iter().map(SetupStep::outcome));
    }
    Ok(climbs)
}

/// One offered rate in a laboratory of its own.
fn step(kind: Kind, rate: u32, length: Duration) -> Result<SetupStep> {
    let mut bed = Bed::build(kind)?;
    let before = committed(&bed, kind)?;
    let cpu_before = Gateway::BOTH.map(|gateway| bed.cpu(gateway));
    let window = Window::open(&bed.scene.lab, WINDOW)?;
    let flows = rate.saturating_mul(u32::try_from(length.as_secs()).unwrap_or(u32::MAX));
    let sent = bed
        .generator
        .flood_windowed(0..flows, rate, window, length)?;
    clock::sleep_until(clock::now() + clock::nanos(GRACE));
    let cpu_after = Gateway::BOTH.map(|gateway| bed.cpu(gateway));
    let compared = bed.compare()?;
    let problem = bed.check().err().map(|error| format!("{error:#}"));
    let packets = committed(&bed, kind)?.zip(before);
    signals::check()?;
    let of_100k = |side: usize| {
        let seconds = cpu_after[side] - cpu_before[side];
        (seconds * 1e8 / f64::from(sent.flows.max(1))).round() / 1000.0
    };
    Ok(SetupStep {
        offered_per_s: rate,
        reached_per_s: per_second(compared.opened, sent.took).round(),
        sent: sent.flows,
        opened: compared.opened,
        different: compared.missing,
        unheld: packets.map(|(now, before)| now.since(before).unheld),
        cpu_s: [of_100k(0), of_100k(1)],
        problem,
    })
}

fn line(step: &SetupStep) -> String {
    let unheld = step.unheld.map_or_else(String::new, |packets| {
        format!(", {packets} did not wait for the standby")
    });
    let problem = step
        .problem
        .as_ref()
        .map_or_else(String::new, |problem| format!("; {problem}"));
    format!(
        "{}/s offered, {:.0}/s set up, {} of {} not the same at the standby{unheld}, CPU of 100,000: {:.2} \
         and {:.2} s{problem}",
        step.offered_per_s,
        step.reached_per_s,
        step.different,
        step.opened,
        step.cpu_s[0],
        step.cpu_s[1],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a step in which the level was not held is none of the level.
    #[test]
    fn a_step_with_packets_that_did_not_wait_does_not_count() {
        let mut step = SetupStep {
            offered_per_s: 10_000,
            reached_per_s: 10e3,
            sent: 40_000,
            opened: 40_000,
            different: 0,
            unheld: Some(0),
            cpu_s: [0.0; 2],
            problem: None,
        };
        assert!(step.outcome().is_clean);
        step.unheld = Some(1);
        assert!(!step.outcome().is_clean);
        step.unheld = None;
        step.different = 1;
        assert!(!step.outcome().is_clean);
    }
}
