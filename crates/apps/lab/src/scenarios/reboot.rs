//! Both gateways boot at once, as after a power cut: nothing of any connection is left.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

use super::{Injection, Scenario, Stage, processes};
use crate::namespaces::Gateway;
use crate::signals;

/// Both gateways lose their processes and what their kernels hold, and start again.
pub(super) struct BothReboot;

impl Scenario for BothReboot {
    fn name(&self) -> &'static str {
        "both-reboot"
    }

    fn about(&self) -> &'static str {
        "both gateways boot at once and take 2 s: processes, connections and devices are gone"
    }

    fn keeps_connections(&self) -> bool {
        false
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let injection = processes::signal_all(stage, active, Signal::KILL);
        processes::signal_all(stage, active.other(), Signal::KILL);
        // Nothing of their kernels goes on either.
        for gateway in Gateway::BOTH {
            stage.scene.lab.set_cut(gateway, true)?;
            stage.scene.lab.forget_kernel_state(gateway)?;
        }
        signals::sleep(BOOT)?;
        for gateway in Gateway::BOTH {
            stage.scene.lab.set_cut(gateway, false)?;
        }
        for gateway in Gateway::BOTH {
            stage.system.start_again(stage.scene, gateway)?;
        }
        Ok(injection)
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

const BOOT: Duration = Duration::from_secs(2);
/// Long enough to serve again.
const WINDOW: Duration = Duration::from_secs(6);
