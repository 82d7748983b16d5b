//! Two boxes and no third: the manager lives on one of the gateways.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::Gateway;

/// The manager is on one box, and one box loses its power.
pub(super) struct TwoBox {
    name: &'static str,
    about: &'static str,
    manager_on: Gateway,
    lost: Gateway,
}

impl TwoBox {
    pub(super) const ACTIVE_ALONE: Self = Self {
        name: "two-box-active",
        about: "two boxes, the manager beside the standby: the box of the active is lost",
        manager_on: Gateway::Gw2,
        lost: Gateway::Gw1,
    };
    pub(super) const STANDBY_WITH_MANAGER: Self = Self {
        name: "two-box-standby-manager",
        about: "two boxes, the manager beside the standby: the box of these two is lost",
        manager_on: Gateway::Gw2,
        lost: Gateway::Gw2,
    };
    pub(super) const ACTIVE_WITH_MANAGER: Self = Self {
        name: "two-box-active-manager",
        about: "two boxes, the manager beside the active: the box of these two is lost",
        manager_on: Gateway::Gw1,
        lost: Gateway::Gw1,
    };
    pub(super) const STANDBY_ALONE: Self = Self {
        name: "two-box-standby",
        about: "two boxes, the manager beside the active: the box of the standby is lost",
        manager_on: Gateway::Gw1,
        lost: Gateway::Gw2,
    };
}

impl Scenario for TwoBox {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn needs_manager(&self) -> bool {
        true
    }

    fn is_smoke(&self) -> bool {
        self.name == Self::ACTIVE_WITH_MANAGER.name
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn furnish(&self, stage: &mut Stage<'_>) -> Result<()> {
        stage.system.put_manager_on(stage.scene, self.manager_on)
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        // Without power its kernel forwards nothing, and its links are dead.
        stage.scene.lab.set_cut(self.lost, true)?;
        if self.lost == self.manager_on {
            stage.system.kill_manager()?;
        }
        processes::signal_all(stage, self.lost, rustix::process::Signal::KILL);
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(self.lost, false)?;
        if self.lost == self.manager_on {
            stage.system.restart_manager(stage.scene)?;
        }
        stage.system.start_again(stage.scene, self.lost)
    }
}

/// The box that is left serves on evidence, after a second and some.
const WINDOW: Duration = Duration::from_secs(5);
