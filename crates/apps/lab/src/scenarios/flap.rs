//! A gateway that comes and goes: each time it could take the service back, and lose it again. A system
//! that knows quarantines has to say at the end that it is in one.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;
use crate::signals;

/// All ports of the first active go dead and come back, again and again.
pub(super) struct Flap;

impl Scenario for Flap {
    fn name(&self) -> &'static str {
        "flap"
    }

    fn about(&self) -> &'static str {
        "the switch drops every frame of the active for 800 ms, lets it be for 200 ms, for 2 minutes"
    }

    /// A quarantine that began late in the two minutes lasts as long as they did.
    fn patience(&self) -> Duration {
        FLAPPING
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        let end = at + clock::nanos(FLAPPING);
        while clock::now() < end {
            stage.scene.lab.set_cut(active, true)?;
            signals::sleep(DOWN)?;
            stage.scene.lab.set_cut(active, false)?;
            signals::sleep(UP)?;
        }
        if stage.system.is_quarantined(stage.scene, active)? == Some(false) {
            bail!("{active} has flapped for two minutes and is not in quarantine");
        }
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

const FLAPPING: Duration = Duration::from_secs(120);
const DOWN: Duration = Duration::from_millis(800);
const UP: Duration = Duration::from_millis(200);
