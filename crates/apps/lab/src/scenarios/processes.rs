//! Faults of processes: killed, frozen, asked to stop.

use anyhow::Result;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;

/// SIGKILL to every process of the active.
pub(super) struct Kill;

impl Scenario for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of every process of the active"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        Ok(signal_all(stage, active, Signal::KILL))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.start_again(stage.scene, active)
    }
}

/// SIGSTOP to every process of the active: they are there, and do nothing.
pub(super) struct Freeze;

impl Scenario for Freeze {
    fn name(&self) -> &'static str {
        "freeze"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP of every process of the active"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        Ok(signal_all(stage, active, Signal::STOP))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        signal_all(stage, active, Signal::CONT);
        Ok(())
    }
}

/// SIGTERM to the active: it may hand over before it ends.
pub(super) struct Stop;

impl Scenario for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    fn about(&self) -> &'static str {
        "SIGTERM of the active, as for maintenance"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.system.ask_to_stop(active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.start_again(stage.scene, active)
    }
}

fn signal_all(stage: &mut Stage<'_>, gateway: Gateway, signal: Signal) -> Injection {
    // Looking for them takes longer than signalling them: that comes first.
    let processes = stage.system.processes(gateway);
    let at = clock::now();
    for process in processes {
        process.signal(signal);
    }
    Injection::at(at)
}
