//! Who stood still and goes on: it knows of nothing that happened meanwhile.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::namespaces::Gateway;
use crate::signals;

/// The active stands still for a time and then goes on, with all its traffic before its door.
pub(super) struct Resume {
    name: &'static str,
    about: &'static str,
    still: Duration,
    /// Whether its kernel stands still as well: what arrives then waits, and comes in at once.
    whole: bool,
}

impl Resume {
    pub(super) const HALF_SECOND: Self = Self {
        name: "resume-500ms",
        about: "the whole active stands still for 0.5 s, then goes on with what has queued up",
        still: Duration::from_millis(500),
        whole: true,
    };
    pub(super) const SECONDS: Self = Self {
        name: "resume-5s",
        about: "the whole active stands still for 5 s, then goes on with what has queued up",
        still: Duration::from_secs(5),
        whole: true,
    };
    pub(super) const MINUTE: Self = Self {
        name: "resume-60s",
        about: "the whole active stands still for a minute, then goes on with what has queued up",
        still: Duration::from_secs(60),
        whole: true,
    };
    pub(super) const AGENT: Self = Self {
        name: "agent-pause",
        about: "SIGSTOP of the active's processes for 0.5 s, while its kernel forwards on",
        still: Duration::from_millis(500),
        whole: false,
    };
}

impl Scenario for Resume {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn is_smoke(&self) -> bool {
        self.whole && self.still < Duration::from_secs(1)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let injection = processes::signal_all(stage, active, Signal::STOP);
        if self.whole {
            // A moment later, which only lets more in: what its kernel passes on until then is
            // covered by the lease that it has.
            stage.scene.lab.set_held(active, true)?;
        }
        signals::sleep(self.still)?;
        if self.whole {
            // Its kernel first: a processor that runs again takes interrupts before programs.
            stage.scene.lab.set_held(active, false)?;
        }
        processes::signal_all(stage, active, Signal::CONT);
        Ok(injection)
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}
