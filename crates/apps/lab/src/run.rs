//! One scenario, N times, in one laboratory.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::clock::{self, Nanos};
use crate::measure::{self, Figures, Window};
use crate::namespaces::Gateway;
use crate::process::resident_kib;
use crate::report::{Resident, Summary, summarise};
use crate::rival::{Keepalived, install_missing};
use crate::scenarios::{self, Injection, Loss, Scenario, Stage};
use crate::signals;
use crate::system::{Scene, System};
use crate::traffic::Traffic;
use crate::vnfpool::{Profile, TakeoverSteps, Vnfpool};

/// The undisturbed time before a fault; the connections have moved data by then.
const WARM_UP: Duration = Duration::from_millis(400);
/// What of it counts into the window: a loss before the fault would be a loss too.
const LEAD: Duration = Duration::from_millis(100);
/// The window is this and twice the detection time: TCP waits about twice an outage.
const WINDOW_BASE: Duration = Duration::from_millis(1900);
/// Echoes of the last probes are on their way for so long at most.
const LAST_ECHOES: Duration = Duration::from_millis(50);

/// So many runs, then everything is made anew: a member that fails again and again is taken back
/// later each time, and waiting for that measures nothing.
const RUNS_PER_LABORATORY: usize = 5;

/// What to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// keepalived + conntrackd, sending adverts at this interval.
    Keepalived {
        /// 1 s is its default, 10 ms the least that the protocol allows.
        advert: Duration,
        /// How its processes are scheduled.
        scheduling: Scheduling,
    },
}

/// How the rival's processes get the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduling {
    /// Before everything ordinary: the rival at its best.
    RealTime,
    /// As any other process, which is what its package does.
    Ordinary,
}

/// What [`lab_run`] is asked to do.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The name of a scenario.
    pub scenario: String,
    /// How many times.
    pub runs: u32,
    /// Whether to run vnfpool itself; without it only the rival is measured.
    pub own: bool,
    /// The timing profile of the pool.
    pub profile: Profile,
    /// Who goes through the same scenario afterwards.
    pub rivals: Vec<Rival>,
    /// One JSON object a system instead of a table.
    pub json: bool,
    /// Leave namespaces, configurations and logs in place; the daemons end.
    pub keep: bool,
}

/// Runs a scenario and prints its figures; progress goes to `progress`.
///
/// # Errors
/// When the laboratory cannot be built or a system does not start or recover. A system that
/// loses connections is a result, not an error.
pub fn lab_run(
    options: &RunOptions,
    output: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<Vec<Summary>> {
    signals::catch_interrupts();
    let scenario = scenarios::by_name(&options.scenario)?;
    if options.runs == 0 {
        bail!("--runs must be at least 1");
    }
    crate::need_root(&format!("vnfpool lab run {}", options.scenario))?;
    let mut contenders = Vec::new();
    if options.own {
        contenders.push(Contender::Own(options.profile));
    }
    for rival in options.rivals.clone() {
        if scenario.needs_manager() {
            writeln!(
                progress,
                "{}: not for keepalived, it has no manager",
                scenario.name()
            )?;
            continue;
        }
        install_missing(progress)?;
        contenders.push(Contender::Rival(rival));
    }
    crate::clean_interrupted(progress)?;
    let mut summaries = Vec::new();
    for contender in contenders {
        let summary = measure(scenario, contender, options.runs, options.keep, progress)?;
        if options.json {
            writeln!(output, "{}", serde_json::to_string(&summary)?)?;
        }
        summaries.push(summary);
    }
    if !options.json {
        writeln!(output, "{}", crate::report::table(&summaries))?;
        for budget in crate::report::budgets(&summaries) {
            writeln!(output, "where the time went: {budget}")?;
        }
        for loss in crate::report::losses(&summaries) {
            writeln!(output, "what was lost: {loss}")?;
        }
    }
    Ok(summaries)
}

/// Who goes through a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Contender {
    /// vnfpool itself.
    Own(Profile),
    /// Who it is compared with.
    Rival(Rival),
}

impl Contender {
    fn make(self) -> Result<Box<dyn System>> {
        Ok(match self {
            Self::Own(profile) => Box::new(Vnfpool::new(profile)?),
            Self::Rival(Rival::Keepalived { advert, scheduling }) => {
                Box::new(Keepalived::new(advert, scheduling))
            }
        })
    }
}

/// All runs of one system, in as many laboratories as that takes.
///
/// # Errors
/// When a laboratory cannot be built, or a system does not start or get back to its start.
pub(crate) fn measure(
    scenario: &dyn Scenario,
    contender: Contender,
    runs: u32,
    keep: bool,
    progress: &mut dyn Write,
) -> Result<Summary> {
    let mut figures = Vec::new();
    loop {
        // The same laboratory, built afresh: nothing that another system has left in a kernel
        // (devices, programs, addresses) can be in the way.
        let scene = Scene::build().context("building the laboratory")?;
        // Declared after the laboratory: it ends its processes before their namespaces go.
        let mut system = contender.make()?;
        let mut stage = Stage {
            scene: &scene,
            system: system.as_mut(),
        };
        let measured = measure_here(scenario, runs, &mut stage, &mut figures, progress);
        let failed = measured.is_err() || figures.iter().any(|run| run.failed(scenario));
        if keep && failed {
            scene.lab.keep()?;
            let directory = scene.lab.directory().display();
            let id = scene.lab.id();
            writeln!(progress, "kept: logs in {directory}, namespaces {id}-*")?;
        }
        let resident = measured?;
        if figures.len() >= runs as usize {
            return Ok(summarise(
                scenario.name(),
                system.name(),
                &system.profile(),
                &figures,
                resident,
            ));
        }
    }
}

/// The next runs in one laboratory; returns the resident memory after them.
fn measure_here(
    scenario: &dyn Scenario,
    runs: u32,
    stage: &mut Stage<'_>,
    figures: &mut Vec<RunFigures>,
    progress: &mut dyn Write,
) -> Result<Resident> {
    let (name, profile) = (stage.system.name(), stage.system.profile());
    writeln!(progress, "{name}: starting ({profile})")?;
    if let Some(lasts) = scenario.lasts() {
        let (scenario, seconds) = (scenario.name(), lasts.as_secs());
        writeln!(progress, "{name}: one run of {scenario} takes {seconds} s")?;
    }
    scenario
        .furnish(stage)
        .context("furnishing the laboratory")?;
    stage.system.start(stage.scene)?;
    for here in 0..RUNS_PER_LABORATORY {
        let run = figures.len() + 1;
        if here > 0 {
            let reset = stage.system.reset(stage.scene);
            reset.context("bringing the pool back to its start")?;
        }
        let one = run_once(stage, scenario).with_context(|| format!("in run {run} of {runs}"))?;
        let scenario = scenario.name();
        writeln!(progress, "{name} {scenario} {run}/{runs}: {}", one.line())?;
        figures.push(one);
        if run >= runs as usize {
            break;
        }
    }
    let gateways = Gateway::BOTH.map(|gateway| resident_kib(&stage.system.processes(gateway)));
    Ok(Resident {
        manager_kib: resident_kib(&stage.system.manager_processes()),
        gateway_kib: gateways.into_iter().max().unwrap_or(0),
    })
}

/// The figures of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunFigures {
    pub(crate) figures: Figures,
    /// Where the time of the takeover went, if there was one and the system tells.
    pub(crate) steps: Option<TakeoverSteps>,
    /// How often the system itself decided who serves or may take over, if it tells.
    pub(crate) decisions: Option<usize>,
    /// How long the operator's command took, in ms, where there was one.
    pub(crate) command_ms: Option<f64>,
    /// From the end of the fault until the pool was ready for the next one, in ms, or why it did
    /// not get ready.
    pub(crate) recovery: Result<f64, String>,
    /// What the takeover lost, where the scenario looks.
    pub(crate) loss: Option<Loss>,
}

impl RunFigures {
    /// Whether somebody will want to read the logs of this run.
    fn failed(&self, scenario: &dyn Scenario) -> bool {
        let moved = self.figures.takeover_ms.is_some() || self.decisions.is_some_and(|n| n > 0);
        self.recovery.is_err() || (scenario.breaks_nothing() && moved)
    }

    /// For people, while it runs.
    fn line(&self) -> String {
        let Figures {
            ipv4,
            ipv6,
            two_owners_ms,
            takeover_ms,
            role_changes,
            stale_frames,
            ..
        } = &self.figures;
        let recovery = match &self.recovery {
            Ok(ms) => format!("ready again {ms:.0} ms after its end"),
            Err(why) => format!("not ready again: {why}"),
        };
        let takeover =
            takeover_ms.map_or_else(|| "none".to_owned(), |takeover| format!("{takeover:.1} ms"));
        let decisions = match self.decisions {
            Some(decisions) => format!(", decisions {decisions}"),
            None => String::new(),
        };
        let loss = match self.loss {
            Some(Loss { stated, missing }) => {
                format!(", connections missing {missing}, stated at most {stated}")
            }
            None => String::new(),
        };
        format!(
            "outage {:.1} ms, lost {}, TCP {}/{}, two owners {two_owners_ms} ms, \
             stale frames {stale_frames}, takeover {takeover}, role changes {role_changes}\
             {decisions}{loss}, {recovery}",
            ipv4.outage_ms,
            ipv4.probes_lost,
            ipv4.tcp_alive + ipv6.tcp_alive,
            ipv4.tcp_total + ipv6.tcp_total,
        )
    }
}

/// One run in a laboratory whose pool is at its start.
///
/// # Errors
/// When the traffic does not flow before the fault, or the network cannot be mended.
pub(crate) fn run_once(stage: &mut Stage<'_>, scenario: &dyn Scenario) -> Result<RunFigures> {
    scenario.prepare(stage).context("preparing the scenario")?;
    let scene = stage.scene;
    scene.observer.clear();
    let traffic = Traffic::start(&scene.lab)?;
    let settled = clock::now();
    traffic.wait_all_moved(settled, Duration::from_secs(5))?;
    signals::sleep(WARM_UP)?;
    let active = scene.owner()?;
    clock::sleep_until(clock::now() + random_below(clock::nanos(stage.system.heartbeat())));
    let from = clock::now() - clock::nanos(LEAD);
    stage.system.mark_logs(&scene.lab);
    let injection = scenario.inject(stage, active)?;
    let length = WINDOW_BASE + stage.system.detection() * 2;
    signals::sleep(scenario.window().unwrap_or(length))?;
    let to = clock::now();
    traffic.wait_all_moved(to, Duration::from_secs(2) + stage.system.detection() * 3)?;
    signals::sleep(LAST_ECHOES)?;
    let window = Window {
        from,
        fault: injection.at,
        to,
    };
    let figures = measure::figures(window, active, &traffic.log(), &scene.observer.sightings());
    let steps = figures
        .takeover_ms
        .and_then(|_| stage.system.takeover_steps(&scene.lab, active.other()));
    let decisions = stage.system.decisions(&scene.lab);
    drop(traffic);
    scenario.heal(stage, active).context("healing the fault")?;
    stage.scene.lab.mend()?;
    Ok(RunFigures {
        figures,
        steps,
        decisions,
        command_ms: command_ms(injection),
        recovery: recovery(stage, scenario.patience())?,
        loss: injection.loss,
    })
}

/// Waits until the pool is ready again. One that does not get ready is a result, not an error.
fn recovery(stage: &mut Stage<'_>, patience: Duration) -> Result<Result<f64, String>> {
    let healed = clock::now();
    let ready = loop {
        let ready = stage.system.wait_ready(stage.scene);
        signals::check()?;
        if ready.is_ok() || clock::now() >= healed + clock::nanos(patience) {
            break ready;
        }
    };
    Ok(ready
        .map(|_| clock::millis(clock::now() - healed))
        .map_err(|error| format!("{error:#}")))
}

fn command_ms(injection: Injection) -> Option<f64> {
    injection
        .returned
        .map(|returned| clock::millis(returned - injection.at))
}

/// A random time below `limit`, so that faults hit every phase of a heartbeat.
pub(crate) fn random_below(limit: Nanos) -> Nanos {
    let mut bytes = [0; 8];
    let drawn = std::fs::File::open("/dev/urandom")
        .and_then(|mut source| std::io::Read::read_exact(&mut source, &mut bytes));
    // Without a random source the phase is not spread; the figures stay honest otherwise.
    drawn.map_or(0, |()| u64::from_ne_bytes(bytes) % limit.max(1))
}
