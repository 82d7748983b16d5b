//! Faults of the network around the active.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;

/// All ports of the active go dead while their carriers stay up.
pub(super) struct Silent;

impl Scenario for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn is_smoke(&self) -> bool {
        true
    }

    fn about(&self) -> &'static str {
        "the switch drops every frame of the active; its links stay up"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_cut(active, true)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(active, false)
    }
}

/// Both LAN interfaces of the active go down.
pub(super) struct Link;

impl Scenario for Link {
    fn name(&self) -> &'static str {
        "link"
    }

    fn about(&self) -> &'static str {
        "both LAN interfaces of the active go down"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_lans_up(active, false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_lans_up(active, true)
    }
}

/// The gateways cannot hear each other; both are on the LANs and hear everybody else.
pub(super) struct Partition;

impl Scenario for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    fn about(&self) -> &'static str {
        "the gateways cannot hear each other, everybody else can hear both"
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_partition(true)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.set_partition(false)
    }
}

/// The end of `silent`, with connections that were opened while the old active was away.
pub(super) struct Heal;

impl Scenario for Heal {
    fn name(&self) -> &'static str {
        "heal"
    }

    fn is_smoke(&self) -> bool {
        true
    }

    fn about(&self) -> &'static str {
        "a silent active comes back and never knew; connections opened meanwhile"
    }

    fn prepare(&self, stage: &mut Stage<'_>) -> Result<()> {
        stage.scene.lab.set_cut(Gateway::Gw1, true)?;
        let limit = stage.system.detection() * 4 + Duration::from_secs(5);
        stage.scene.wait_owner(Gateway::Gw2, limit)
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_cut(Gateway::Gw1, false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}
