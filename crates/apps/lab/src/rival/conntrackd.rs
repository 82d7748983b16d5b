//! conntrackd: beside keepalived, or alone where only the replication is measured.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::config;
use crate::command;
use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::process::{Daemon, last_lines};
use crate::signals;

const PROGRAM: &str = "/usr/sbin/conntrackd";

/// Where the standby keeps what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// In the daemon; a commit brings it into the kernel when the gateway becomes active. The
    /// default of the package.
    External,
    /// In the kernel at once (`DisableExternalCache On`).
    Kernel,
}

/// conntrackd on both gateways, with the virtual addresses fixed at gw1.
#[derive(Debug)]
pub(crate) struct Conntrackd {
    cache: Cache,
    daemons: [Option<Daemon>; 2],
}

impl Conntrackd {
    pub(crate) const fn new(cache: Cache) -> Self {
        Self {
            cache,
            daemons: [None, None],
        }
    }

    /// Starts both, and has the virtual addresses at gw1.
    pub(crate) fn start(&mut self, lab: &Lab) -> Result<()> {
        let active = lab.namespace(Gateway::Gw1.name())?.name();
        let batch = "addr add 10.1.0.254/24 dev in\naddr add 10.2.0.254/24 dev out\n";
        command::run("ip", &["-n", active, "-batch", "-"], batch)
            .context("giving gw1 the virtual addresses")?;
        for gateway in Gateway::BOTH {
            write_configuration(lab, gateway, self.cache)?;
            self.daemons[gateway.index()] = Some(start(lab, gateway)?);
        }
        Ok(())
    }

    /// Starts the daemon of a gateway again, after it was killed.
    pub(crate) fn start_again(&mut self, lab: &Lab, gateway: Gateway) -> Result<()> {
        self.daemons[gateway.index()] = None;
        self.daemons[gateway.index()] = Some(start(lab, gateway)?);
        Ok(())
    }

    /// Every process on a gateway.
    pub(crate) fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        self.daemons[gateway.index()]
            .as_mut()
            .map(Daemon::processes)
            .unwrap_or_default()
    }

    /// Fails when a daemon has ended by itself.
    pub(crate) fn check(&self, lab: &Lab) -> Result<()> {
        for gateway in Gateway::BOTH {
            let daemon = &self.daemons[gateway.index()];
            if daemon.as_ref().is_some_and(|daemon| !daemon.is_alive()) {
                let said = last_lines(&log(lab, gateway));
                bail!("conntrackd on {gateway} has ended: {said}");
            }
        }
        Ok(())
    }
}

/// Asks the daemon of a gateway something, or tells it to do something.
pub(crate) fn ask(lab: &Lab, gateway: Gateway, what: &[&str]) -> Result<String> {
    let conf = configuration(lab, gateway).display().to_string();
    let mut arguments = vec!["-C", &conf];
    arguments.extend(what);
    command::run(PROGRAM, &arguments, "")
}

/// What the daemon of a gateway writes.
pub(crate) fn log(lab: &Lab, gateway: Gateway) -> PathBuf {
    lab.directory()
        .join(format!("{gateway}-conntrackd.own.log"))
}

pub(super) fn configuration(lab: &Lab, gateway: Gateway) -> PathBuf {
    lab.directory().join(format!("{gateway}-conntrackd.conf"))
}

pub(super) fn write_configuration(lab: &Lab, gateway: Gateway, cache: Cache) -> Result<()> {
    let path = configuration(lab, gateway);
    fs::write(&path, config::conntrackd(gateway, lab.directory(), cache))
        .with_context(|| format!("writing {}", path.display()))
}

/// Starts the daemon of a gateway and waits until it answers.
pub(super) fn start(lab: &Lab, gateway: Gateway) -> Result<Daemon> {
    for leftover in ["conntrackd.lock", "conntrackd.ctl"] {
        // Only there after a kill.
        let _absent = fs::remove_file(lab.directory().join(format!("{gateway}-{leftover}")));
    }
    let mut command = Command::new(PROGRAM);
    command.arg("-C").arg(configuration(lab, gateway));
    let daemon = Daemon::start(lab, gateway.name(), "conntrackd", command)?;
    signals::wait_for("conntrackd to answer", Duration::from_secs(10), || {
        Ok(ask(lab, gateway, &["-s"]).ok().map(|_| ()))
    })?;
    Ok(daemon)
}
