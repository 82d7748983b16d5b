//! The demonstration: a pool of two gateways under real traffic, hit by one fault after another.
//!
//! The same connections, probes and download run through all steps.

mod screen;
mod steps;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock::{self, Nanos};
use crate::measure::{self, Window};
use crate::namespaces::{Gateway, Lab};
use crate::report::{self, DemoReport, StepReport};
use crate::rival::{Keepalived, install_missing};
use crate::run::{Rival, random_below};
use crate::scenarios::Stage;
use crate::signals;
use crate::system::{Scene, System};
use crate::traffic::{Bulk, Traffic};
use crate::vnfpool::{Profile, Vnf, Vnfpool};
use screen::Screen;
use steps::{STEPS, Step};

/// The undisturbed time in front of each step.
const LEAD: Duration = Duration::from_millis(300);
/// How long a fault lasts.
const FAULT: Duration = Duration::from_millis(1200);
/// The undisturbed time after the pool is ready again.
const TAIL: Duration = Duration::from_millis(300);
/// How long a connection may take to move data again.
const TCP_LIMIT: Duration = Duration::from_secs(3);
const LAST_ECHOES: Duration = Duration::from_millis(50);

/// What [`demo`] is asked to do.
#[derive(Debug, Clone, Default)]
pub struct DemoOptions {
    /// The timing profile of the pool.
    pub profile: Profile,
    /// The network function.
    pub vnf: Vnf,
    /// Show the rival instead of vnfpool.
    pub rival: Option<Rival>,
    /// One JSON object a step instead of lines and a table.
    pub json: bool,
    /// Leave the laboratory up at the end.
    pub keep: bool,
    /// Where the page is written; `vnfpool-demo.html` in the working directory by default.
    pub report: Option<PathBuf>,
}

/// Runs the demonstration; results go to `output`, what is going on to standard error.
///
/// Returns whether it passed: no connection lost, never two owners, the download intact.
///
/// # Errors
/// When the laboratory cannot be built, the pool does not start, the run is interrupted, or the
/// page cannot be written. What a fault does to the pool is a result, not an error.
pub fn demo(options: &DemoOptions, output: &mut dyn Write) -> Result<bool> {
    crate::need_root("vnfpool demo")?;
    let path = options.report.clone();
    let path = path.unwrap_or_else(|| PathBuf::from("vnfpool-demo.html"));
    report::check_writable(&path)?;
    signals::catch_interrupts();
    let mut screen = Screen::new(output, options.json, STEPS.len() + 2);
    crate::clean_interrupted(&mut screen)?;
    screen.doing("building the laboratory: seven network namespaces");
    let scene = Scene::build().context("building the laboratory")?;
    let mut system = system_of(options, &mut screen)?;
    screen.doing(&format!(
        "starting {} ({})",
        system.name(),
        system.profile()
    ));
    let run = run_steps(&scene, system.as_mut(), options.vnf, &mut screen);
    if options.keep {
        scene.lab.keep()?;
    }
    let report = run?;
    std::fs::write(&path, report::page(&report))
        .with_context(|| format!("writing the report to {}", path.display()))?;
    screen.finish(&report, &path)?;
    if options.keep {
        screen.note(&look_around(&scene.lab, system.name(), options.vnf))?;
        // Its daemons go on; the laboratory's record lets `lab clean` end them.
        std::mem::forget(system);
    }
    Ok(report.passed())
}

fn system_of(options: &DemoOptions, screen: &mut Screen<'_>) -> Result<Box<dyn System>> {
    match options.rival {
        None => Ok(Box::new(Vnfpool::new(options.profile)?.with(options.vnf))),
        Some(Rival::Keepalived { advert, scheduling }) => {
            install_missing(screen)?;
            Ok(Box::new(Keepalived::new(advert, scheduling)))
        }
    }
}

fn run_steps(
    scene: &Scene,
    system: &mut dyn System,
    vnf: Vnf,
    screen: &mut Screen<'_>,
) -> Result<DemoReport> {
    system.start(scene).context("starting the pool")?;
    screen.done();
    screen.doing("opening connections through the pool");
    let (client, server) = (
        scene.lab.namespace("client")?,
        scene.lab.namespace("server")?,
    );
    let traffic = Traffic::start_with(&scene.lab, vnf)?;
    let bulk = Bulk::start(client, server)?;
    traffic.wait_all_moved(clock::now(), TCP_LIMIT)?;
    screen.done();
    if let Some(visits) = system.visits() {
        let balanced = measure::balanced(None, &traffic.log(), &visits);
        let (total, spread) = (balanced.total, balanced.spread());
        screen.note(&format!(
            "the load balancer has spread {total} connections over three backends: {spread}"
        ))?;
    }
    let mut report = DemoReport {
        system: format!("{} ({})", system.name(), system.profile()),
        vnf,
        steps: Vec::new(),
        download: None,
        machine: machine(),
    };
    let mut stage = Stage { scene, system };
    let mut active = scene.sole_owner()?;
    for step in &STEPS {
        let done = run_step(&mut stage, step, active, &traffic, screen)?;
        active = done.serving();
        screen.step(&done)?;
        let is_over = done.problem.is_some();
        report.steps.push(done);
        if is_over {
            break;
        }
    }
    screen.doing("finishing the download");
    report.download = Some(bulk.finish());
    Ok(report)
}

/// The moments of one step.
struct Course {
    fault: Nanos,
    marks: Vec<(Nanos, String)>,
    problem: Option<String>,
}

fn run_step(
    stage: &mut Stage<'_>,
    step: &Step,
    active: Gateway,
    traffic: &Traffic,
    screen: &mut Screen<'_>,
) -> Result<StepReport> {
    let scene = stage.scene;
    scene.observer.clear();
    let from = clock::now();
    signals::sleep(LEAD)?;
    let title = step.title(active);
    screen.doing(&title);
    clock::sleep_until(clock::now() + random_below(clock::nanos(stage.system.heartbeat())));
    let course = follow(stage, step, active)?;
    let to = clock::now();
    traffic.wait_all_moved(to, TCP_LIMIT + stage.system.detection() * 3)?;
    signals::sleep(LAST_ECHOES)?;
    let (log, sightings) = (traffic.log(), scene.observer.sightings());
    let window = Window {
        from,
        fault: course.fault,
        to,
    };
    screen.done();
    let balanced = stage.system.visits();
    let balanced = balanced.map(|visits| measure::balanced(Some(window), &log, &visits));
    let has_gates = stage.system.name() == "vnfpool";
    Ok(StepReport {
        step: step.name().to_owned(),
        title,
        active_before: active,
        active_after: scene.sole_owner().ok(),
        figures: measure::figures(window, active, &log, &sightings),
        balanced,
        problem: course.problem,
        note: step.note().filter(|_| has_gates),
        timeline: report::timeline((from, course.fault, to), &course.marks, &log, &sightings),
    })
}

/// Injects, waits, heals, and waits until the pool is ready again. Only an interrupt is an error:
/// a pool that does not get ready is what the step has to report.
fn follow(stage: &mut Stage<'_>, step: &Step, active: Gateway) -> Result<Course> {
    let before = clock::now();
    let mut course = Course {
        fault: before,
        marks: Vec::new(),
        problem: None,
    };
    let result = follow_through(stage, step, active, &mut course);
    signals::check()?;
    if let Err(error) = result {
        course.problem = Some(format!("{error:#}"));
    }
    signals::sleep(TAIL)?;
    Ok(course)
}

fn follow_through(
    stage: &mut Stage<'_>,
    step: &Step,
    active: Gateway,
    course: &mut Course,
) -> Result<()> {
    let injection = step.inject(stage, active)?;
    course.fault = injection.at;
    course.marks.push((injection.at, step.mark().to_owned()));
    signals::sleep(FAULT + stage.system.detection() * 2)?;
    if let Some(scenario) = step.healing()? {
        if step.name() != "switchover" {
            course.marks.push((clock::now(), "healed".to_owned()));
        }
        scenario.heal(stage, active)?;
    }
    if step.ends_ready() {
        stage.system.wait_ready(stage.scene)?;
        course.marks.push((clock::now(), "ready".to_owned()));
    }
    Ok(())
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "Linux {}, {cores} cores, vnfpool {}, {}.",
        kernel.trim(),
        env!("CARGO_PKG_VERSION"),
        jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC")
    )
}

fn look_around(lab: &Lab, system: &str, vnf: Vnf) -> String {
    let id = lab.id();
    let directory = lab.directory().display();
    let operate =
        format!("ip netns exec {id}-manager vnfpool --admin {directory}/manager/operator");
    let mut text = format!(
        "the laboratory {id} stays up. Look around:\n  \
         ip netns exec {id}-client ping 10.2.0.10\n  \
         ip netns exec {id}-gw1 ip address; ip netns exec {id}-gw1 conntrack -L\n  \
         ls {directory}            # configurations and logs\n"
    );
    if system == "vnfpool" {
        text.push_str(&format!(
            "  {operate} status\n  {operate} switchover edge\n"
        ));
    }
    if vnf == Vnf::LoadBalancer {
        text.push_str(&format!(
            "  ls {directory}/gw?/sdk.sock    # where functions register (docs/sdk.md)\n"
        ));
    }
    text.push_str("remove it with: vnfpool lab clean");
    text
}
