//! The manager's disk fails or is slow, and in this moment a failover is needed: its record has to
//! be on disk before anybody is told of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;
use crate::process::Daemon;
use crate::signals;

/// What is wrong with the disk while the active falls silent.
pub(super) struct Disk {
    name: &'static str,
    about: &'static str,
    fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Full,
    /// What strace does to the system calls that bring data to the disk.
    Injected(&'static str),
}

impl Disk {
    pub(super) const FULL: Self = Self {
        name: "disk-full",
        about: "the manager's disk is full for 2 s, and the active falls silent",
        fault: Fault::Full,
    };
    pub(super) const ERROR: Self = Self {
        name: "disk-error",
        about: "fsync on the manager's disk fails for 2 s (strace), and the active falls silent",
        fault: Fault::Injected("error=EIO"),
    };
    pub(super) const SLOW: Self = Self {
        name: "disk-slow",
        about: "each fsync on the manager's disk takes 2 s (strace), and the active falls silent",
        fault: Fault::Injected("delay_enter=2000000"),
    };
}

impl Scenario for Disk {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn needs_manager(&self) -> bool {
        true
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn furnish(&self, stage: &mut Stage<'_>) -> Result<()> {
        if self.fault != Fault::Full {
            return Ok(());
        }
        let store = stage.system.store(stage.scene)?;
        std::fs::create_dir_all(&store).with_context(|| format!("making {}", store.display()))?;
        // Goes with the laboratory's directory.
        mount(
            "tmpfs",
            &store,
            "tmpfs",
            MountFlags::empty(),
            c"size=16m,mode=700",
        )
        .with_context(|| format!("mounting a small disk at {}", store.display()))
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let failing = Failing::begin(stage, self.fault)?;
        signals::sleep(BEFORE)?;
        let at = clock::now();
        stage.scene.lab.set_cut(active, true)?;
        signals::sleep(LASTS)?;
        failing.end()?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(active, false)
    }
}

/// A disk that fails, until the end.
enum Failing {
    Ballast(PathBuf),
    Traced(Vec<Daemon>),
}

impl Failing {
    fn begin(stage: &mut Stage<'_>, fault: Fault) -> Result<Self> {
        match fault {
            Fault::Full => {
                let path = stage.system.store(stage.scene)?.join("ballast");
                let mut ballast = std::fs::File::create(&path).context("filling the disk")?;
                // To its last page.
                while ballast.write_all(&[1; 4096]).is_ok() {}
                Ok(Self::Ballast(path))
            }
            Fault::Injected(what) => {
                let threads = stage.system.store_threads();
                if threads.is_empty() {
                    bail!("no thread of the manager writes its store");
                }
                // Only those: whoever is traced is stopped at each system call, and the thread
                // that decides must not be.
                let traced = threads.into_iter().map(|thread| trace(stage, thread, what));
                Ok(Self::Traced(traced.collect::<Result<_>>()?))
            }
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Self::Ballast(path) => std::fs::remove_file(path).context("emptying the disk"),
            Self::Traced(tracers) => tracers
                .into_iter()
                .try_for_each(|tracer| tracer.stop(DETACH_LIMIT)),
        }
    }
}

fn trace(stage: &Stage<'_>, thread: i32, what: &str) -> Result<Daemon> {
    let mut strace = Command::new("strace");
    strace
        .args(["-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"])
        .args(["-e", &format!("inject=fsync,fdatasync:{what}")])
        .args(["-p", &thread.to_string()]);
    let tracer = Daemon::start(&stage.scene.lab, "client", "strace", strace)
        .context("failing a disk (apt-get install strace)")?;
    signals::wait_for("strace to attach", ATTACH_LIMIT, || {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        Ok(tracer.filter(|tracer| tracer.trim() != "0").map(drop))
    })?;
    Ok(tracer)
}

/// How long the disk fails before the active falls silent, and afterwards.
const BEFORE: Duration = Duration::from_millis(300);
const LASTS: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(3);
const ATTACH_LIMIT: Duration = Duration::from_secs(5);
/// A delayed system call ends first.
const DETACH_LIMIT: Duration = Duration::from_secs(5);
