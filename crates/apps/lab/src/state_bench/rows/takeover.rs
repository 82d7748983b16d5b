//! The silent death of an active with a large table, and of one with an empty table.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::super::ctnetlink;
use super::super::subject::{Kind, external_entries};
use super::{Figures, Run, entries};
use crate::clock;
use crate::namespaces::{Gateway, Lab};
use crate::process::cpu_seconds;
use crate::report::Spread;
use crate::rival::{Keepalived, ask_conntrackd};
use crate::run::{RunFigures, Scheduling, run_once};
use crate::scenarios::{self, Injection, Scenario, Stage};
use crate::signals;
use crate::system::{Scene, System};
use crate::vnfpool::{Profile, Vnfpool};

const RUNS: usize = 5;
/// keepalived at its protocol's minimum, real-time scheduled: its best figures.
const ADVERT: Duration = Duration::from_millis(10);
/// Connections that wait for a commit live on when it comes.
const WINDOW: Duration = Duration::from_secs(12);
const QUICK_WINDOW: Duration = Duration::from_secs(2);
/// For the standby to have everything before the fault, and to have it in its kernel after it.
const LIMIT: Duration = Duration::from_secs(60);
/// A bringing of the whole table takes a second.
const ASK_AGAIN: Duration = Duration::from_secs(8);
/// A system that has used less than this at both gateways together in that time has nothing to do
/// but heartbeats, in seconds.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_CPU_S: f64 = 0.25;
/// How often the new active's kernel is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// What a takeover cost one system at one size of its table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct TakeoverFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) entries: u32,
    pub(in super::super) runs: usize,
    /// The longest run of lost probes, IPv4, as `lab run silent` has it.
    pub(in super::super) outage_ms: Option<Spread>,
    /// From the fault until the other gateway owned the address.
    pub(in super::super) takeover_ms: Option<Spread>,
    /// From the fault until all entries were in the new active's kernel; 0 where they were there
    /// before it.
    pub(in super::super) state_ms: Option<Spread>,
    /// The longest silence on connections that lived, median of a run.
    pub(in super::super) tcp_stall_ms: Option<Spread>,
    pub(in super::super) tcp_alive: usize,
    pub(in super::super) tcp_total: usize,
}

pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    for entries in [0, entries(run)] {
        for kind in run.contenders(&[Kind::Vnfpool, Kind::Ftfw]) {
            let figures = takeovers(run, kind, entries).map(Figures::Takeover);
            run.settle(&format!("takeover with {entries} entries"), kind, figures)?;
        }
    }
    Ok(())
}

fn takeovers(run: &mut Run<'_>, kind: Kind, entries: u32) -> Result<TakeoverFigures> {
    let runs = run.runs(RUNS);
    let window = if run.quick { QUICK_WINDOW } else { WINDOW };
    let mut all = Vec::new();
    let mut states = Vec::new();
    for number in 1..=runs {
        let (figures, state_ms) = takeover(kind, entries, window)
            .with_context(|| format!("in run {number} of {runs}"))?;
        writeln!(
            run.progress,
            "{} silent, {entries} entries, {number}/{runs}: outage {:.1} ms, all state {}",
            kind.name(),
            figures.figures.ipv4.outage_ms,
            state_ms.map_or_else(|| "never".to_owned(), |ms| format!("after {ms:.0} ms")),
        )?;
        states.extend(state_ms);
        all.push(figures);
    }
    let v4 = || all.iter().map(|run| &run.figures.ipv4);
    Ok(TakeoverFigures {
        system: kind,
        entries,
        runs,
        outage_ms: Spread::of(v4().map(|v4| v4.outage_ms)),
        takeover_ms: Spread::of(all.iter().filter_map(|run| run.figures.takeover_ms)),
        state_ms: Spread::of(states),
        tcp_stall_ms: Spread::of(v4().map(|v4| v4.tcp_stall_ms)),
        tcp_alive: v4().map(|v4| v4.tcp_alive).sum(),
        tcp_total: v4().map(|v4| v4.tcp_total).sum(),
    })
}

/// One takeover in a laboratory of its own; with the time until all state was there.
fn takeover(kind: Kind, entries: u32, window: Duration) -> Result<(RunFigures, Option<f64>)> {
    let scene = Scene::build().context("building the laboratory")?;
    let mut system: Box<dyn System> = match kind {
        Kind::Vnfpool => Box::new(Vnfpool::new(Profile::Default)?),
        Kind::Commit => Box::new(Vnfpool::new(Profile::Commit)?),
        Kind::Ftfw | Kind::Direct => Box::new(Keepalived::new(ADVERT, Scheduling::RealTime)),
    };
    let active = scene.lab.namespace(Gateway::Gw1.name())?;
    ctnetlink::insert(active, 0..entries, None).context("filling the table")?;
    system.start(&scene)?;
    wait_synchronised(&scene.lab, kind, entries)?;
    wait_quiet(system.as_mut())?;
    wait_synchronised(&scene.lab, kind, entries)?;
    let arrival = Arrival::new(u64::from(entries));
    let mut stage = Stage {
        scene: &scene,
        system: system.as_mut(),
    };
    let silent = Silent {
        window,
        arrival: Arc::clone(&arrival),
    };
    let figures = run_once(&mut stage, &silent)?;
    Ok((figures, arrival.found()))
}

/// Waits until the standby holds the whole table. What conntrackd's scripts do at the start, all at
/// once, may leave it with a part: then it is asked for everything again, as they do.
fn wait_synchronised(lab: &Lab, kind: Kind, entries: u32) -> Result<()> {
    let standby = lab.namespace(Gateway::Gw2.name())?;
    let mut held = 0;
    let mut asked = clock::now();
    let waited = signals::wait_for("the standby to hold the table", LIMIT, || {
        held = match kind {
            Kind::Vnfpool | Kind::Commit | Kind::Direct => ctnetlink::count(standby)?,
            Kind::Ftfw => external_entries(&ask_conntrackd(lab, Gateway::Gw2, &["-s"])?)?,
        };
        if held >= u64::from(entries) {
            return Ok(Some(()));
        }
        if kind == Kind::Ftfw && clock::now() - asked > clock::nanos(ASK_AGAIN) {
            asked = clock::now();
            ask_conntrackd(lab, Gateway::Gw2, &["-n"])?;
        }
        signals::sleep(Duration::from_millis(50))?;
        Ok(None)
    });
    waited.with_context(|| format!("the standby holds {held} of {entries} entries"))
}

/// Waits until the system has nothing to do at either gateway: a table that is still being looked
/// through would keep the connections waiting that are opened next.
fn wait_quiet(system: &mut dyn System) -> Result<()> {
    let used = |system: &mut dyn System| {
        let of = |gateway| cpu_seconds(&system.processes(gateway));
        Gateway::BOTH.map(of).iter().sum::<f64>()
    };
    signals::wait_for("the system to have nothing to do", LIMIT, || {
        let before = used(system);
        signals::sleep(QUIET)?;
        Ok((used(system) - before < QUIET_CPU_S).then_some(()))
    })
}

/// As `silent`, watched for longer, and not healed before all state is where it has to be.
struct Silent {
    window: Duration,
    arrival: Arc<Arrival>,
}

impl Scenario for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn about(&self) -> &'static str {
        "as silent, with a table"
    }

    fn window(&self) -> Option<Duration> {
        Some(self.window)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let injection = scenarios::by_name("silent")?.inject(stage, active)?;
        Arc::clone(&self.arrival).watch(&stage.scene.lab, active, injection.at)?;
        Ok(injection)
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        // State that never comes is a result.
        let _never = signals::wait_for("all state", LIMIT, || Ok(self.arrival.found().map(|_| ())));
        signals::check()?;
        scenarios::by_name("silent")?.heal(stage, active)
    }
}

/// When the table of the new active is whole.
struct Arrival {
    entries: u64,
    found_ms: Mutex<Option<f64>>,
}

impl Arrival {
    fn new(entries: u64) -> Arc<Self> {
        Arc::new(Self {
            entries,
            found_ms: Mutex::new(None),
        })
    }

    /// In milliseconds after the fault.
    fn found(&self) -> Option<f64> {
        *self.found_ms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the table from now on, until it is whole.
    fn watch(self: Arc<Self>, lab: &Lab, failed: Gateway, fault: clock::Nanos) -> Result<()> {
        let namespace = lab.namespace(failed.other().name())?.clone();
        if ctnetlink::count(&namespace)? >= self.entries {
            *self.found_ms.lock().unwrap_or_else(PoisonError::into_inner) = Some(0.0);
            return Ok(());
        }
        let cuts = lab.cuts();
        let inside = namespace.clone();
        // It ends with the fault, at the latest.
        namespace.spawn_ordinary("arrival", move || {
            while cuts[failed.index()].load(Ordering::Relaxed) != 0 {
                if ctnetlink::count(&inside).is_ok_and(|count| count >= self.entries) {
                    let after = clock::millis(clock::now() - fault);
                    *self.found_ms.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
                    return;
                }
                std::thread::sleep(LOOK);
            }
        })?;
        Ok(())
    }
}
