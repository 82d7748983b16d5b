//! Loss in one direction: one side hears, the other does not.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::{Gateway, Wire};

/// Long enough to see a pair that is parted, armed again and parted again.
const WINDOW: Duration = Duration::from_secs(4);

/// What one gateway says to the other is lost, on one wire or on all.
pub(super) struct Between {
    name: &'static str,
    about: &'static str,
    wires: &'static [Wire],
    from_active: bool,
}

macro_rules! between {
    ($($from:ident $to:ident $wire:literal $where:literal $wires:expr,)+) => {
        impl Between {
            $(pub(super) const $from: Self = Self {
                name: concat!("one-way-", $wire, "-from"),
                about: concat!("what the active says to the standby is lost ", $where),
                wires: $wires,
                from_active: true,
            };
            pub(super) const $to: Self = Self {
                name: concat!("one-way-", $wire, "-to"),
                about: concat!("what the standby says to the active is lost ", $where),
                wires: $wires,
                from_active: false,
            };)+
        }
    };
}

between! {
    FROM_ALL TO_ALL "all" "on every wire" &Wire::ALL,
    FROM_INSIDE TO_INSIDE "inside" "on the inside LAN" &[Wire::Inside],
    FROM_OUTSIDE TO_OUTSIDE "outside" "on the outside LAN" &[Wire::Outside],
    FROM_LINK TO_LINK "link" "on the link between them" &[Wire::Link],
    FROM_MANAGEMENT TO_MANAGEMENT "management" "on the management LAN" &[Wire::Management],
}

impl Scenario for Between {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn is_smoke(&self) -> bool {
        self.wires.len() == Wire::ALL.len() && self.from_active
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let from = if self.from_active {
            active
        } else {
            active.other()
        };
        let at = clock::now();
        stage.scene.lab.lose_between(self.wires, from)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.mend()
    }
}

/// What the active says to the manager is lost, or what the manager says to the active.
pub(super) struct AtManager {
    from_active: bool,
}

impl AtManager {
    pub(super) const FROM: Self = Self { from_active: true };
    pub(super) const TO: Self = Self { from_active: false };
}

impl Scenario for AtManager {
    fn name(&self) -> &'static str {
        match self.from_active {
            true => "one-way-manager-from",
            false => "one-way-manager-to",
        }
    }

    fn about(&self) -> &'static str {
        match self.from_active {
            true => "what the active says to the manager is lost",
            false => "what the manager says to the active is lost",
        }
    }

    fn needs_manager(&self) -> bool {
        true
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.lose_at_manager(active, self.from_active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.mend()
    }
}

/// The active hears everybody, and nobody hears it.
pub(super) struct Mute;

impl Scenario for Mute {
    fn name(&self) -> &'static str {
        "mute"
    }

    fn about(&self) -> &'static str {
        "the switch drops every frame that the active sends, and brings it all others"
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.make_mute(active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.mend()
    }
}

/// Everybody hears the active, and it hears nobody.
pub(super) struct Deaf;

impl Scenario for Deaf {
    fn name(&self) -> &'static str {
        "deaf"
    }

    fn about(&self) -> &'static str {
        "the switch drops every frame for the active, and brings all others what it sends"
    }

    fn window(&self) -> Option<Duration> {
        Some(WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.make_deaf(active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        stage.scene.lab.mend()
    }
}
