//! vnfpool itself as a system under test: the real program, started as an operator would.

mod balancer;
mod files;
mod load;
mod status;
mod system;
mod takeover;
mod watermark;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::command;
use crate::namespaces::{Gateway, Lab};
use crate::process::{Daemon, last_lines};
use crate::signals;
use crate::system::{Scene, System};
use balancer::Balancers;
pub(crate) use balancer::{BACKENDS, PORT as BALANCED_PORT, SERVICE};
pub use files::element_file;
pub(crate) use load::LoadSize;
use load::Loads;
use status::SlotState;
use takeover::Marks;
pub use takeover::TakeoverSteps;
pub(crate) use watermark::Watermark;

const MANAGER_ADDRESS: &str = "10.9.0.10";
const MANAGER_PORT: &str = "7400";
/// How long anything may take that involves no fault: start, enrolment, snapshot, arming.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// After this time without the expected owner, it is looked again who is the active.
const OWNER_LIMIT: Duration = Duration::from_secs(2);
/// How long a stop may take: the active hands over first.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Where `element join` takes its token from.
const TOKEN_VARIABLE: &str = "VNFPOOL_TOKEN";
/// At which step of a failover a manager kills itself.
const CRASH_VARIABLE: &str = "VNFPOOL_CRASH_AT";
/// The program to test instead of the running one.
const BINARY_VARIABLE: &str = "VNFPOOL_BIN";

/// The timing of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// A heartbeat each 10 ms, a lease of 50 ms.
    #[default]
    Default,
    /// A heartbeat each 5 ms, a lease of 25 ms.
    Fast,
    /// A lease that follows what is measured; it begins with that of the default profile.
    Auto,
    /// As the default profile; first packets wait until the successor holds their connection.
    Commit,
}

impl Profile {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fast => "fast",
            Self::Auto => "auto",
            Self::Commit => "commit",
        }
    }

    /// What it is in `pool.toml`.
    const fn in_file(self) -> &'static str {
        match self {
            Self::Default => "profile = \"default\"",
            Self::Fast => "profile = \"fast\"",
            Self::Auto => "lease = \"auto\"",
            Self::Commit => "profile = \"default\"\n\n[state]\nconnections = \"commit\"",
        }
    }

    /// The profile of that name.
    ///
    /// # Errors
    /// For any other name.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "default" => Ok(Self::Default),
            "fast" => Ok(Self::Fast),
            "auto" => Ok(Self::Auto),
            "commit" => Ok(Self::Commit),
            _ => bail!("there is no profile {name:?}; there are default, fast, auto, commit"),
        }
    }

    const fn heartbeat(self) -> Duration {
        match self {
            Self::Default | Self::Auto | Self::Commit => Duration::from_millis(10),
            Self::Fast => Duration::from_millis(5),
        }
    }

    const fn lease(self) -> Duration {
        match self {
            Self::Default | Self::Auto | Self::Commit => Duration::from_millis(50),
            Self::Fast => Duration::from_millis(25),
        }
    }
}

/// The network function of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vnf {
    /// The kernel's NAT and filter.
    #[default]
    Gateway,
    /// The same, and a load balancer in user space beside it.
    LoadBalancer,
}

/// One manager and two elements.
#[derive(Debug)]
pub(crate) struct Vnfpool {
    program: PathBuf,
    profile: Profile,
    /// The host that the manager runs on.
    manager_host: &'static str,
    manager: Option<Daemon>,
    elements: [Option<Daemon>; 2],
    /// Beside the elements, if that is the function.
    balancers: Option<Box<Balancers>>,
    /// The same, of functions that are there to be measured.
    loads: Option<Box<Loads>>,
    marks: Marks,
}

impl Vnfpool {
    /// Uses the running program, or the one that `VNFPOOL_BIN` names.
    pub(crate) fn new(profile: Profile) -> Result<Self> {
        let program = match std::env::var_os(BINARY_VARIABLE) {
            Some(program) => PathBuf::from(program),
            None => std::env::current_exe().context("finding the running program")?,
        };
        // Daemons must not die with the lab's working directory or depend on it.
        let program = program
            .canonicalize()
            .with_context(|| format!("finding the program {}", program.display()))?;
        Ok(Self {
            program,
            profile,
            manager_host: "manager",
            manager: None,
            elements: [None, None],
            balancers: None,
            loads: None,
            marks: Marks::default(),
        })
    }

    /// With another function than the kernel's.
    pub(crate) fn with(mut self, vnf: Vnf) -> Self {
        self.balancers = match vnf {
            Vnf::Gateway => None,
            Vnf::LoadBalancer => Some(Box::default()),
        };
        self
    }

    /// With a function beside each agent that loads the way to the successor.
    pub(crate) fn with_load(mut self, size: LoadSize) -> Self {
        self.loads = Some(Box::new(Loads::new(size)));
        self
    }

    /// Has these functions begin.
    pub(crate) fn begin_load(&self) {
        self.loads.iter().for_each(|loads| loads.begin());
    }

    /// What the one on a gateway has said; none before it has.
    pub(crate) fn load_said(&self, lab: &Lab, gateway: Gateway) -> Result<Option<String>> {
        match &self.loads {
            Some(loads) => loads.said(lab, gateway),
            None => Ok(None),
        }
    }

    /// Runs an operator's command where the operator is: beside the manager.
    pub(crate) fn operate(&self, lab: &Lab, arguments: &[&str]) -> Result<String> {
        let program = self.program.display().to_string();
        let admin = lab
            .directory()
            .join("manager/operator")
            .display()
            .to_string();
        let mut all = arguments.to_vec();
        all.extend(["--admin", &admin]);
        lab.namespace(self.manager_host)?
            .run(|| command::run(&program, &all, ""))
    }

    /// The state of the slot, as the manager reports it.
    fn state(&self, lab: &Lab) -> Result<SlotState> {
        status::parse(&self.operate(lab, &["status", "--json"])?)
    }

    /// Waits until the slot has an armed successor; returns the active.
    fn wait_armed(&self, lab: &Lab, limit: Duration) -> Result<Gateway> {
        let mut last = String::from("no answer from the manager yet");
        let waited = signals::wait_for("an armed successor", limit, || {
            self.check_daemons(lab)?;
            match self.state(lab) {
                Ok(state) => {
                    last = state.text;
                    Ok(state.active.filter(|_| state.armed && state.both_heard))
                }
                Err(error) => {
                    last = format!("{error:#}");
                    Ok(None)
                }
            }
        });
        waited.with_context(|| {
            format!(
                "the pool is not ready: {last}{}",
                complaints(lab, self.manager_host)
            )
        })
    }

    /// A daemon that has ended by itself is an error of its own, with its last words.
    fn check_daemons(&self, lab: &Lab) -> Result<()> {
        for gateway in Gateway::BOTH {
            check(
                lab,
                gateway.name(),
                "element",
                self.elements[gateway.index()].as_ref(),
            )?;
        }
        check(lab, self.manager_host, "manager", self.manager.as_ref())
    }

    fn start_manager(&mut self, lab: &Lab, crash_at: Option<&str>) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["manager", "run", "--dir"])
            .arg(lab.directory().join("manager"));
        if let Some(step) = crash_at {
            command.env(CRASH_VARIABLE, step);
        }
        self.manager = Some(Daemon::start(lab, self.manager_host, "manager", command)?);
        let mut last = None;
        let answered = signals::wait_for("the manager to answer", READY_LIMIT, || {
            // Only the manager: an element may be stopped on purpose just now.
            check(lab, self.manager_host, "manager", self.manager.as_ref())?;
            match self.operate(lab, &["status", "--json"]) {
                Ok(_) => Ok(Some(())),
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        });
        match (answered, last) {
            (Err(timeout), Some(error)) => Err(error.context(timeout)),
            (answered, _) => answered,
        }
    }

    fn enrol(&self, lab: &Lab, gateway: Gateway) -> Result<()> {
        let created = self.operate(
            lab,
            &[
                "token",
                "create",
                "--pool",
                "edge",
                "--element",
                gateway.name(),
            ],
        )?;
        let token = created.trim();
        let directory = element_directory(lab, gateway);
        let directory = directory.display().to_string();
        let manager = format!("{MANAGER_ADDRESS}:{MANAGER_PORT}");
        // A token is a secret: not in a command line, which everybody sees and messages repeat.
        let mut join = Command::new(&self.program);
        join.args(["element", "join", "--dir", &directory])
            .args(["--manager", &manager])
            .env(TOKEN_VARIABLE, token);
        lab.namespace(gateway.name())?
            .run(|| command::run_prepared(&mut join, ""))
            .with_context(|| format!("enrolling element {gateway}"))?;
        let path = lab.directory().join(gateway.name()).join("element.toml");
        let directory = Path::new(&directory);
        let mut text = element_file(gateway, directory, &manager);
        if self.balancers.is_some() || self.loads.is_some() {
            text.push_str(&balancer::in_element_file(directory));
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    fn start_element(&mut self, lab: &Lab, gateway: Gateway) -> Result<()> {
        let mut command = Command::new(&self.program);
        command
            .args(["element", "supervise", "--config"])
            .arg(element_directory(lab, gateway).join("element.toml"));
        let daemon = Daemon::start(lab, gateway.name(), "element", command)?;
        self.elements[gateway.index()] = Some(daemon);
        if let Some(balancers) = &mut self.balancers {
            balancers.start(&self.program, lab, gateway)?;
        }
        if let Some(loads) = &mut self.loads {
            loads.start(&self.program, lab, gateway)?;
        }
        Ok(())
    }

    fn start_missing(&mut self, lab: &Lab) -> Result<()> {
        if !self.manager.as_ref().is_some_and(Daemon::is_alive) {
            self.manager = None;
            self.start_manager(lab, None)?;
        }
        for gateway in Gateway::BOTH {
            let element = &self.elements[gateway.index()];
            if let Some(daemon) = element.as_ref().filter(|daemon| daemon.is_alive()) {
                daemon.signal(Signal::CONT);
            } else {
                self.elements[gateway.index()] = None;
                self.start_element(lab, gateway)?;
            }
        }
        Ok(())
    }
}

impl Vnfpool {
    /// From a running pool in whatever state to gw1 active, gw2 armed, and seen so from outside.
    fn bring_to_start(&mut self, scene: &Scene) -> Result<()> {
        let armed = self.wait_armed(&scene.lab, READY_LIMIT);
        // Also when it failed: what an element has pinned outlives it.
        for element in self.elements.iter_mut().flatten() {
            for process in element.processes() {
                scene.lab.remember_pins(&process)?;
            }
        }
        let mut active = armed?;
        let began = Instant::now();
        loop {
            if active != Gateway::Gw1 {
                self.switchover(scene, Gateway::Gw1)?;
            }
            match scene.wait_owner(Gateway::Gw1, OWNER_LIMIT) {
                Ok(()) => break,
                Err(error) if began.elapsed() > READY_LIMIT => return Err(error),
                Err(_) => signals::check()?,
            }
            // Right after its start the manager names who was active when the pair was made.
            active = self.wait_armed(&scene.lab, READY_LIMIT)?;
        }
        self.wait_armed(&scene.lab, READY_LIMIT).map(drop)
    }
}

/// Fails when a daemon that should run has ended, with its last words.
fn check(lab: &Lab, host: &str, what: &str, daemon: Option<&Daemon>) -> Result<()> {
    if daemon.is_some_and(|daemon| !daemon.is_alive()) {
        let log = lab.directory().join(format!("{host}-{what}.log"));
        bail!("the {what} on {host} has ended: {}", last_lines(&log));
    }
    Ok(())
}

/// The newest warning or error in each daemon's log, for the message of a failure.
fn complaints(lab: &Lab, manager_host: &str) -> String {
    let manager = format!("{manager_host}-manager.log");
    let logs = [manager.as_str(), "gw1-element.log", "gw2-element.log"];
    logs.into_iter().fold(String::new(), |mut text, log| {
        let written = fs::read_to_string(lab.directory().join(log)).unwrap_or_default();
        let is_complaint = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
        if let Some(line) = written.lines().rfind(is_complaint) {
            text.push_str(&format!("\n  {log}: {line}"));
        }
        text
    })
}

pub(super) fn element_log(lab: &Lab, gateway: Gateway) -> PathBuf {
    lab.directory().join(format!("{gateway}-element.log"))
}

pub(super) fn manager_log(lab: &Lab) -> PathBuf {
    lab.directory().join("manager-manager.log")
}

fn element_directory(lab: &Lab, gateway: Gateway) -> PathBuf {
    lab.directory().join(gateway.name())
}
