//! Faults of the network around the active.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::{Gateway, Wire};
use crate::signals;

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

/// The end of `partition`, with connections that were opened while the gateways were deaf to each
/// other.
pub(super) struct HealPartition;

impl Scenario for HealPartition {
    fn name(&self) -> &'static str {
        "heal-partition"
    }

    fn about(&self) -> &'static str {
        "the gateways hear each other again; connections opened meanwhile"
    }

    fn prepare(&self, stage: &mut Stage<'_>) -> Result<()> {
        stage.scene.lab.set_partition(true)?;
        // Whoever wants to has decided by then; two owners is what some decide for.
        signals::sleep(stage.system.detection() * 4 + PARTED)
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_partition(false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// One wire between the gateways is cut, for all that are on it; the others work.
pub(super) struct OneWire {
    wire: Wire,
    name: &'static str,
    about: &'static str,
}

impl OneWire {
    pub(super) const LINK: Self = Self {
        wire: Wire::Link,
        name: "link-only",
        about: "only the link between the gateways is cut",
    };
    pub(super) const MANAGEMENT: Self = Self {
        wire: Wire::Management,
        name: "management-only",
        about: "only the management LAN is cut, for both gateways",
    };
}

impl Scenario for OneWire {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn window(&self) -> Option<Duration> {
        Some(ONE_WIRE_WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_wire(self.wire, false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.set_wire(self.wire, true)
    }
}

/// Both LAN interfaces of the standby go down.
pub(super) struct StandbyLink;

impl Scenario for StandbyLink {
    fn name(&self) -> &'static str {
        "standby-link"
    }

    fn about(&self) -> &'static str {
        "both LAN interfaces of the standby go down"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_lans_up(active.other(), false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_lans_up(active.other(), true)
    }
}

/// All ports of the standby go dead while their carriers stay up.
pub(super) struct StandbySilent;

impl Scenario for StandbySilent {
    fn name(&self) -> &'static str {
        "standby-silent"
    }

    fn about(&self) -> &'static str {
        "the switch drops every frame of the standby; its links stay up"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_cut(active.other(), true)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(active.other(), false)
    }
}

/// How long a partition lasts before it is healed, beside the time to notice it.
const PARTED: Duration = Duration::from_secs(2);
/// Long enough to see a wire that is needed for something after all.
const ONE_WIRE_WINDOW: Duration = Duration::from_secs(5);
