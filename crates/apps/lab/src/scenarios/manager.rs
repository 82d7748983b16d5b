//! The manager dies. Alone that must not matter; together with the active it is a lost quorum.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::Gateway;
use crate::signals;

/// How long the pool goes on alone before the active's network function fails as well.
const ALONE: Duration = Duration::from_millis(1500);
/// A lost quorum is served again only after a long silence: this is enough to see it.
const QUORUM_WINDOW: Duration = Duration::from_secs(5);

/// kill -9 of the manager, and while it is away the active's network function fails: both agents
/// live and are two of three, so they hand over between themselves.
pub(super) struct ManagerKill;

impl Scenario for ManagerKill {
    fn name(&self) -> &'static str {
        "manager-kill"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the manager; while it is away the active's network function fails"
    }

    fn needs_manager(&self) -> bool {
        true
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        stage.system.kill_manager()?;
        signals::sleep(ALONE)?;
        let at = clock::now();
        stage.scene.lab.set_forwarding(active, false)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_forwarding(active, true)?;
        stage.system.restart_manager(stage.scene)
    }
}

/// kill -9 of the manager and of everything on the active at once: what remains is one of three.
pub(super) struct QuorumLoss;

impl Scenario for QuorumLoss {
    fn name(&self) -> &'static str {
        "quorum-loss"
    }

    fn about(&self) -> &'static str {
        "kill -9 of the manager and of every process of the active at the same time"
    }

    fn needs_manager(&self) -> bool {
        true
    }

    fn window(&self) -> Option<Duration> {
        Some(QUORUM_WINDOW)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.system.kill_manager()?;
        processes::Kill.inject(stage, active)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.system.restart_manager(stage.scene)?;
        stage.system.start_again(stage.scene, active)
    }
}
