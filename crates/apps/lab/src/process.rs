//! The daemons under test: started inside a namespace, signalled as a whole, never left behind.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::clock::{self, Nanos};
use crate::namespaces::{Lab, ProcessMark};
use crate::signals;

/// A killed process is gone within this, or the kernel has its reasons.
const KILL_LIMIT: Nanos = 1_000 * clock::MILLISECOND;

/// A daemon and everything that it has started. Dropping it kills them all.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    mark: ProcessMark,
    /// Descendants seen so far: a child that outlives its parent is still ours to end.
    known: Vec<ProcessMark>,
}

impl Daemon {
    /// Starts `command` in the namespace of `host`; its output goes to `<host>-<what>.log` in
    /// the laboratory's directory.
    pub(crate) fn start(lab: &Lab, host: &str, what: &str, mut command: Command) -> Result<Self> {
        let log = lab.directory().join(format!("{host}-{what}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let errors = output.try_clone().context("sharing a log file")?;
        let child = lab.namespace(host)?.run(|| {
            command
                .envs(lab.variables(host))
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                // Ctrl-C is for the laboratory; it ends its daemons itself.
                .process_group(0)
                .spawn()
                .with_context(|| format!("starting {what} on {host}"))
        })?;
        let pid = i32::try_from(child.id()).context("a process number beyond i32")?;
        let Some(mark) = ProcessMark::of(pid, &format!("{what} on {host}")) else {
            bail!("{what} on {host} ended at once: {}", last_lines(&log));
        };
        lab.remember(mark.clone())?;
        Ok(Self {
            child,
            mark,
            known: Vec::new(),
        })
    }

    /// Whether the daemon itself still runs.
    pub(crate) fn is_alive(&self) -> bool {
        self.mark.is_alive()
    }

    /// Sends a signal to the daemon alone.
    pub(crate) fn signal(&self, signal: Signal) {
        self.mark.signal(signal);
    }

    /// The daemon and its living descendants.
    pub(crate) fn processes(&mut self) -> Vec<ProcessMark> {
        for mark in self.mark.descendants() {
            if !self.known.contains(&mark) {
                self.known.push(mark);
            }
        }
        self.known.retain(ProcessMark::is_alive);
        std::iter::once(self.mark.clone())
            .chain(self.known.iter().cloned())
            .collect()
    }

    /// Asks the daemon to end, and kills it when it has not within `limit`.
    pub(crate) fn stop(mut self, limit: Duration) -> Result<()> {
        self.processes();
        self.signal(Signal::TERM);
        // Gone in time or not: dropping kills what is left.
        let _too_slow = signals::wait_for("a daemon to end", limit, || {
            self.child.try_wait().context("waiting for a daemon")
        });
        signals::check()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for process in self.processes() {
            process.signal(Signal::KILL);
            process.signal(Signal::CONT);
        }
        // It was killed: this only collects it.
        let _collected = self.child.wait();
        // Whoever starts its successor must not find a child of it still ending.
        let end = clock::now() + KILL_LIMIT;
        while self.known.iter().any(ProcessMark::is_alive) && clock::now() < end {
            clock::sleep_until(clock::now() + clock::MILLISECOND);
        }
    }
}

/// The resident memory of processes together, in KiB; what several of them share counts once (their
/// proportional set sizes).
pub(crate) fn resident_kib(processes: &[ProcessMark]) -> u64 {
    let of = |process: &ProcessMark| {
        let status = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes.iter().filter_map(of).sum()
}

/// The most that processes have had resident, each for itself, in KiB: the sum of their high-water
/// marks.
pub(crate) fn peak_resident_kib(processes: &[ProcessMark]) -> u64 {
    let of = |process: &ProcessMark| {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    processes.iter().filter_map(of).sum()
}

/// The processor time that processes have used together, with all their threads, in seconds: user and
/// system time, to the hundredth of a second that the kernel tells.
pub(crate) fn cpu_seconds(processes: &[ProcessMark]) -> f64 {
    let of = |process: &ProcessMark| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
        // The second field is the name in brackets and may hold anything; utime and stime are the
        // 14th and the 15th.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u32>().ok();
        Some(f64::from(next()?) + f64::from(next()?))
    };
    let ticks: f64 = processes.iter().filter_map(of).sum();
    // USER_HZ is 100 on every architecture that we know.
    ticks / 100.0
}

/// The end of a log, for an error message.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(5);
    if lines.is_empty() {
        "it said nothing".to_owned()
    } else {
        lines[from..].join(" | ")
    }
}
