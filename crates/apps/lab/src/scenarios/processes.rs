//! Faults of processes: killed, frozen, asked to stop.

use anyhow::Result;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage};
use crate::clock::{self, Nanos};
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

/// SIGTERM to the active, and SIGKILL to all of it a moment later: in the middle of its handover.
pub(super) struct StopKill;

/// The handover of a clean stop takes about as long, after the agent has heard of it.
const HANDOVER: Nanos = 800_000;

impl Scenario for StopKill {
    fn name(&self) -> &'static str {
        "stop-kill"
    }

    fn about(&self) -> &'static str {
        "SIGTERM of the active, and kill -9 at some moment of its handover"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        // Any moment will do, another one each time.
        let later = at % HANDOVER;
        stage.system.ask_to_stop(active)?;
        clock::sleep_until(at + later);
        signal_all(stage, active, Signal::KILL);
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.start_again(stage.scene, active)
    }
}

/// SIGKILL to the agent alone: whoever watches over it may start it again.
pub(super) struct AgentKill;

impl Scenario for AgentKill {
    fn name(&self) -> &'static str {
        "agent-kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the agent of the active alone"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let processes = stage.system.agent_processes(active);
        let at = clock::now();
        for process in processes {
            process.signal(Signal::KILL);
        }
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// The program of the active is replaced while it runs.
pub(super) struct AgentUpgrade;

impl Scenario for AgentUpgrade {
    fn name(&self) -> &'static str {
        "agent-upgrade"
    }

    fn about(&self) -> &'static str {
        "the program of the active is replaced, as by an upgrade"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.system.replace_agent(stage.scene, active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// Signals every process of a gateway.
pub(super) fn signal_all(stage: &mut Stage<'_>, gateway: Gateway, signal: Signal) -> Injection {
    // Looking for them takes longer than signalling them: that comes first.
    let processes = stage.system.processes(gateway);
    let at = clock::now();
    if signal == Signal::KILL {
        // As one: else the death of the first would be an event for the others, such as the order to
        // stop that an agent gets when its supervisor dies.
        processes
            .iter()
            .for_each(|process| process.signal(Signal::STOP));
    }
    for process in processes {
        process.signal(signal);
    }
    Injection::at(at)
}
