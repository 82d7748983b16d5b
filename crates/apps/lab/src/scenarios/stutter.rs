//! An active that wakes late, again and again: nothing has failed, and nobody should take over.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::Gateway;
use crate::signals;

/// The processes of the first active stand still for a moment, twice a second.
pub(super) struct Stutter;

impl Scenario for Stutter {
    fn name(&self) -> &'static str {
        "stutter"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP of the active's processes for 35 ms, twice a second for 30 s: nothing has failed"
    }

    fn breaks_nothing(&self) -> bool {
        true
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        for _ in 0..TIMES {
            processes::signal_all(stage, active, Signal::STOP);
            signals::sleep(STILL)?;
            processes::signal_all(stage, active, Signal::CONT);
            signals::sleep(BETWEEN)?;
        }
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        processes::signal_all(stage, active, Signal::CONT);
        Ok(())
    }
}

const TIMES: u32 = 60;
const STILL: Duration = Duration::from_millis(35);
const BETWEEN: Duration = Duration::from_millis(465);
