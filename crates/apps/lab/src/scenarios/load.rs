//! Nothing is broken, but the machine has no time.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;
use crate::process::Daemon;

/// How long the machine is kept busy.
const LOADED: Duration = Duration::from_secs(60);

/// Full CPU load for a minute: any takeover is a false one.
pub(super) struct Load;

impl Scenario for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn about(&self) -> &'static str {
        "a minute of full CPU load (stress-ng) and no fault: any takeover is a false one"
    }

    fn window(&self) -> Option<Duration> {
        // `inject` has waited already.
        Some(Duration::from_millis(200))
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let mut stress = Command::new("stress-ng");
        stress.args(["--quiet", "--cpu", "4"]);
        let at = clock::now();
        let stress = Daemon::start(&stage.scene.lab, "client", "stress-ng", stress)
            .context("making load (apt-get install stress-ng)")?;
        crate::signals::sleep(LOADED)?;
        drop(stress);
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}
