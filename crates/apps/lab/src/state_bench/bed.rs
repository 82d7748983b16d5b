//! A laboratory for one measurement: one system, its gateways' tables empty, and a generator.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::ctnetlink::{self, Flow};
use super::flood::{Generator, furnish_sink};
use super::subject::{Kind, Subject};
use crate::clock::{self, Nanos};
use crate::namespaces::{Gateway, Namespace, ProcessMark, write_sysctls};
use crate::process::{cpu_seconds, peak_resident_kib, resident_kib};
use crate::signals;
use crate::system::Scene;

/// Longer than any measurement: a flow of one packet must not end in the middle of it.
const UDP_TIMEOUT_S: &str = "3600";
/// What a start leaves to do is done by then.
const SETTLING: Duration = Duration::from_millis(500);

/// One system under measurement. Everything goes when it is dropped, the system first.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) subject: Subject,
    pub(super) generator: Arc<Generator>,
    pub(super) scene: Scene,
}

impl Bed {
    /// Builds the laboratory and starts the system in it.
    pub(super) fn build(kind: Kind) -> Result<Self> {
        Self::build_filled(kind, 0)
    }

    /// As [`Bed::build`], with so many established connections in the active's kernel already when
    /// the system starts.
    pub(super) fn build_filled(kind: Kind, entries: u32) -> Result<Self> {
        let mut scene = Scene::build().context("building the laboratory")?;
        for gateway in Gateway::BOTH {
            let settings = [("netfilter/nf_conntrack_udp_timeout", UDP_TIMEOUT_S)];
            scene
                .lab
                .namespace(gateway.name())?
                .run(|| write_sysctls(&settings))?;
        }
        furnish_sink(&scene.lab)?;
        let active = scene.lab.namespace(Gateway::Gw1.name())?;
        ctnetlink::insert(active, 0..entries, None).context("filling the active's table")?;
        let mut subject = Subject::new(kind)?;
        subject
            .start(&scene)
            .with_context(|| format!("starting {}", kind.name()))?;
        // Its tap sees every packet: it would be a part of what is measured.
        scene.observer.halt();
        let generator = Arc::new(Generator::open(&scene.lab)?);
        signals::sleep(SETTLING)?;
        Ok(Self {
            subject,
            generator,
            scene,
        })
    }

    pub(super) fn gateway(&self, gateway: Gateway) -> Result<&Namespace> {
        self.scene.lab.namespace(gateway.name())
    }

    /// What the standby holds: how many entries.
    pub(super) fn held(&self) -> Result<u64> {
        self.subject.held(&self.scene.lab)
    }

    /// What the active's kernel has: how many entries.
    pub(super) fn opened(&self) -> Result<u64> {
        ctnetlink::count(self.gateway(Gateway::Gw1)?)
    }

    /// Waits until the standby holds so many entries; returns when it did.
    pub(super) fn wait_held(&self, entries: u32, limit: Duration) -> Result<Nanos> {
        let mut held = 0;
        let waited = signals::wait_for("the standby to hold the whole table", limit, || {
            held = self.held()?;
            Ok((held >= u64::from(entries)).then(clock::now))
        });
        waited.with_context(|| format!("the standby holds {held} of {entries} entries"))
    }

    /// Kills everything of the system on the standby.
    pub(super) fn kill_standby(&mut self) -> Result<()> {
        let processes = self.subject.processes(Gateway::Gw2);
        for process in &processes {
            process.signal(Signal::KILL);
        }
        signals::wait_for(
            "killed processes to be gone",
            Duration::from_secs(5),
            || Ok((!processes.iter().any(ProcessMark::is_alive)).then_some(())),
        )
    }

    /// Starts the system on the standby again.
    pub(super) fn start_standby(&mut self) -> Result<()> {
        self.subject.start_standby(&self.scene)
    }

    /// Compares the measured flows of both kernels, one by one, wherever the system holds what it is
    /// told.
    pub(super) fn compare_kernels(&self) -> Result<Comparison> {
        let held = ctnetlink::dump(self.gateway(Gateway::Gw2)?)?;
        let opened = ctnetlink::dump(self.gateway(Gateway::Gw1)?)?;
        Ok(Comparison::of(&opened, &held))
    }

    /// Compares the measured flows of both gateways, one by one.
    pub(super) fn compare(&self) -> Result<Comparison> {
        // The standby first: what arrives during the look at the active does not count.
        let held = self.subject.held_flows(&self.scene.lab)?;
        let mut opened = ctnetlink::dump(self.gateway(Gateway::Gw1)?)?;
        if !self.subject.shows_translations() {
            opened.iter_mut().for_each(|flow| flow.reply = None);
        }
        Ok(Comparison::of(&opened, &held))
    }

    /// The processor time that the system has used so far on a gateway, in seconds.
    pub(super) fn cpu(&mut self, gateway: Gateway) -> f64 {
        cpu_seconds(&self.subject.processes(gateway))
    }

    /// The memory of the system on a gateway, in KiB (proportional set size).
    pub(super) fn memory_kib(&mut self, gateway: Gateway) -> u64 {
        resident_kib(&self.subject.processes(gateway))
    }

    /// The most that its processes on a gateway have had resident, in KiB.
    pub(super) fn peak_kib(&mut self, gateway: Gateway) -> u64 {
        peak_resident_kib(&self.subject.processes(gateway))
    }

    /// Fails when the system is not what it was at the start: gw1 active, everything running.
    pub(super) fn check(&mut self) -> Result<()> {
        self.subject.check(&self.scene)
    }
}

/// Two tables beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Comparison {
    /// At the active.
    pub(super) opened: usize,
    /// At the active, and not in the same form at the standby.
    pub(super) missing: usize,
    /// At the standby, and not in the same form at the active.
    pub(super) surplus: usize,
}

impl Comparison {
    /// Of sorted tables.
    fn of(opened: &[Flow], held: &[Flow]) -> Self {
        let not_in = |one: &[Flow], other: &[Flow]| {
            one.iter()
                .filter(|flow| other.binary_search(flow).is_err())
                .count()
        };
        Self {
            opened: opened.len(),
            missing: not_in(opened, held),
            surplus: not_in(held, opened),
        }
    }
}

/// The share of all processors that was busy between two looks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    all: u64,
    idle: u64,
}

impl Busy {
    /// A first look.
    pub(super) fn look() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let line = stat.lines().next().unwrap_or_default();
        let ticks = line.split_whitespace().skip(1).take(8);
        let ticks: Vec<u64> = ticks.filter_map(|tick| tick.parse().ok()).collect();
        Ok(Self {
            all: ticks.iter().sum(),
            // Idle, and idle while a disk is waited for.
            idle: ticks.iter().skip(3).take(2).sum(),
        })
    }

    /// In percent, since that look.
    #[expect(clippy::cast_precision_loss, reason = "ticks, far below 2^53")]
    pub(super) fn since(self) -> Result<f64> {
        let now = Self::look()?;
        let all = now.all.saturating_sub(self.all).max(1) as f64;
        let idle = now.idle.saturating_sub(self.idle) as f64;
        Ok(100.0 * (1.0 - idle / all))
    }
}

/// `count` in a time, a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of entries, far below 2^53"
)]
pub(super) fn per_second(count: usize, took: Nanos) -> f64 {
    count as f64 * 1e9 / took.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::super::ctnetlink::Ends;
    use super::*;

    /// Goal: an entry with another translation is missing, and one too many.
    #[test]
    fn tables_are_compared_entry_by_entry() {
        let flow = |source: u16, translated: u16| Flow {
            protocol: 17,
            original: Ends {
                source: (ctnetlink::CLIENT, source),
                target: (ctnetlink::SERVER, 20_000),
            },
            reply: Some(Ends {
                source: (ctnetlink::SERVER, 20_000),
                target: (ctnetlink::SERVER, translated),
            }),
        };
        let opened = [flow(1, 1), flow(2, 2), flow(3, 3)];
        let held = [flow(1, 1), flow(2, 7)];
        let compared = Comparison::of(&opened, &held);
        assert_eq!(
            (compared.opened, compared.missing, compared.surplus),
            (3, 2, 1)
        );
    }
}
