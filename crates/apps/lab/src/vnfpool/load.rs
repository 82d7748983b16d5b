//! A function beside each agent that loads the way to the successor, instead of one that serves.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::process::{Daemon, last_lines};

/// What its log is called.
const WHAT: &str = "load";

/// How much it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadSize {
    /// Rounds of puts, then of commits.
    pub(crate) rounds: usize,
    pub(crate) round: Duration,
    /// Callers that commit over one connection.
    pub(crate) callers: usize,
}

/// The two of them.
#[derive(Debug)]
pub(super) struct Loads {
    size: LoadSize,
    instances: [Option<Daemon>; 2],
}

impl Loads {
    pub(super) const fn new(size: LoadSize) -> Self {
        Self {
            size,
            instances: [None, None],
        }
    }

    /// Starts the one of a gateway; it waits for its agent, and for [`Loads::begin`].
    pub(super) fn start(&mut self, program: &Path, lab: &Lab, gateway: Gateway) -> Result<()> {
        let LoadSize {
            rounds,
            round,
            callers,
        } = self.size;
        let mut command = Command::new(program);
        command
            .args(["sdk-load", "--socket"])
            .arg(lab.directory().join(gateway.name()).join("sdk.sock"))
            .args(["--rounds", &rounds.to_string()])
            .args(["--round-ms", &round.as_millis().to_string()])
            .args(["--callers", &callers.to_string()]);
        self.instances[gateway.index()] = None;
        let daemon = Daemon::start(lab, gateway.name(), WHAT, command)?;
        self.instances[gateway.index()] = Some(daemon);
        Ok(())
    }

    /// Has both begin.
    pub(super) fn begin(&self) {
        for instance in self.instances.iter().flatten() {
            instance.signal(Signal::USR1);
        }
    }

    /// What the one of a gateway has said; none before it has.
    pub(super) fn said(&self, lab: &Lab, gateway: Gateway) -> Result<Option<String>> {
        let log = lab.directory().join(format!("{gateway}-{WHAT}.log"));
        let text =
            fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
        let is_it = |line: &&str| line.starts_with('{') && line.ends_with('\n');
        if let Some(line) = text.split_inclusive('\n').find(is_it) {
            return Ok(Some(line.to_owned()));
        }
        let instance = self.instances[gateway.index()].as_ref();
        if !instance.is_some_and(Daemon::is_alive) {
            bail!("the function on {gateway} ended: {}", last_lines(&log));
        }
        Ok(None)
    }

    pub(super) fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        let instance = self.instances[gateway.index()].as_mut();
        instance.map(Daemon::processes).unwrap_or_default()
    }
}
