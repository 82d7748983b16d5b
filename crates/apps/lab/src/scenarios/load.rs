//! The machine has no time, no memory bandwidth or a busy disk.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::mount_bind;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::Gateway;
use crate::process::Daemon;
use crate::signals;

/// Nothing is broken while the machine is kept busy: any takeover is a false one.
pub(super) struct Load {
    name: &'static str,
    about: &'static str,
    stress: &'static [&'static str],
    lasts: Duration,
    /// Whether it works on the disk, beside the manager's store.
    on_disk: bool,
    only_by_name: bool,
}

/// Every kind of work at once: processors, memory, context switches, new processes.
const MIXED: &[&str] = &["--cpu", "4", "--vm", "2", "--switch", "2", "--fork", "2"];

impl Load {
    pub(super) const PROCESSOR: Self = Self {
        name: "load",
        about: "a minute of full CPU load (stress-ng) and no fault: any takeover is a false one",
        stress: &["--cpu", "4"],
        lasts: Duration::from_secs(60),
        on_disk: false,
        only_by_name: false,
    };
    pub(super) const MIXED: Self = Self {
        name: "load-mixed",
        about: "a minute of processor, memory, switches and forks at once, and no fault",
        stress: MIXED,
        lasts: Duration::from_secs(60),
        on_disk: false,
        only_by_name: false,
    };
    pub(super) const LONG: Self = Self {
        name: "load-long",
        about: "the same for ten minutes; the matrix runs it only by name",
        stress: MIXED,
        lasts: Duration::from_secs(600),
        on_disk: false,
        only_by_name: true,
    };
    pub(super) const MEMORY: Self = Self {
        name: "load-memory",
        about: "20 s in which 2 GiB are mapped and written again and again, and no fault",
        stress: &["--vm", "2", "--vm-bytes", "1g"],
        lasts: Duration::from_secs(20),
        on_disk: false,
        only_by_name: false,
    };
    pub(super) const DISK: Self = Self {
        name: "load-disk",
        about: "20 s in which the manager's disk is written full of synchronous files, and no fault",
        stress: &["--hdd", "2", "--hdd-bytes", "64m", "--hdd-opts", "fsync"],
        lasts: Duration::from_secs(20),
        on_disk: true,
        only_by_name: false,
    };
}

impl Scenario for Load {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn window(&self) -> Option<Duration> {
        // `inject` has waited already.
        Some(Duration::from_millis(200))
    }

    fn lasts(&self) -> Option<Duration> {
        Some(self.lasts)
    }

    fn breaks_nothing(&self) -> bool {
        true
    }

    fn only_by_name(&self) -> bool {
        self.only_by_name
    }

    fn furnish(&self, stage: &mut Stage<'_>) -> Result<()> {
        // Who has no manager has nothing on a disk.
        if let (true, Ok(store)) = (self.on_disk, stage.system.store(stage.scene)) {
            let on_disk = stage.scene.lab.scratch()?.join("store");
            for path in [&on_disk, &store] {
                std::fs::create_dir_all(path)
                    .with_context(|| format!("making {}", path.display()))?;
            }
            mount_bind(&on_disk, &store).context("putting the manager's store on the disk")?;
        }
        Ok(())
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        let _stress = stress(stage, self.stress, self.on_disk)?;
        signals::sleep(self.lasts)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// The active dies on a machine that has no time.
pub(super) struct LoadKill;

impl Scenario for LoadKill {
    fn name(&self) -> &'static str {
        "load-kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of every process of the active under full CPU load (stress-ng)"
    }

    fn window(&self) -> Option<Duration> {
        // `inject` has waited already.
        Some(Duration::from_millis(200))
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let _stress = stress(stage, Load::PROCESSOR.stress, false)?;
        signals::sleep(UNDER_LOAD)?;
        let injection = processes::signal_all(stage, active, Signal::KILL);
        signals::sleep(AFTER_DEATH + stage.system.detection() * 2)?;
        Ok(injection)
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.start_again(stage.scene, active)
    }
}

fn stress(stage: &Stage<'_>, arguments: &[&str], on_disk: bool) -> Result<Daemon> {
    let lab = &stage.scene.lab;
    let mut stress = Command::new("stress-ng");
    stress.arg("--quiet").args(arguments);
    if on_disk {
        stress.arg("--temp-path").arg(lab.scratch()?);
    }
    Daemon::start(lab, "client", "stress-ng", stress)
        .context("making load (apt-get install stress-ng)")
}

const UNDER_LOAD: Duration = Duration::from_secs(2);
const AFTER_DEATH: Duration = Duration::from_secs(2);
