//! Planned changes: nothing may be lost.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage};
use crate::clock;
use crate::namespaces::Gateway;

/// The operator moves the service to the other gateway.
pub(super) struct Switchover;

impl Scenario for Switchover {
    fn name(&self) -> &'static str {
        "switchover"
    }

    fn about(&self) -> &'static str {
        "the operator moves the service to the other gateway"
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        switch_to(stage, active.other())
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

/// The operator moves the service back to the preferred gateway.
pub(super) struct Switchback;

impl Scenario for Switchback {
    fn name(&self) -> &'static str {
        "switchback"
    }

    fn about(&self) -> &'static str {
        "the operator moves the service back to the preferred gateway"
    }

    fn prepare(&self, stage: &mut Stage<'_>) -> Result<()> {
        switch_to(stage, Gateway::Gw2)?;
        let limit = stage.system.detection() * 4 + Duration::from_secs(5);
        stage.scene.wait_owner(Gateway::Gw2, limit)?;
        stage.system.wait_ready(stage.scene)?;
        Ok(())
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        switch_to(stage, active.other())
    }

    fn heal(&self, _stage: &mut Stage<'_>, _active: Gateway) -> Result<()> {
        Ok(())
    }
}

fn switch_to(stage: &mut Stage<'_>, to: Gateway) -> Result<Injection> {
    let at = clock::now();
    stage.system.switchover(stage.scene, to)?;
    Ok(Injection {
        at,
        returned: Some(clock::now()),
        loss: None,
    })
}
