//! The manager dies. Alone that must not matter; together with the active it is a lost quorum.

use std::time::Duration;

use anyhow::Result;

use super::{Injection, Scenario, Stage, processes};
use crate::clock;
use crate::namespaces::{Gateway, ProcessMark};
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

/// The manager dies between two steps of a failover, and is started again as soon as it is dead.
pub(super) struct Crash {
    step: &'static str,
    name: &'static str,
    about: &'static str,
}

macro_rules! crash {
    ($($constant:ident $step:literal $when:literal,)+) => {
        impl Crash {
            $(pub(super) const $constant: Self = Self {
                step: $step,
                name: concat!("crash-", $step),
                about: concat!("the active falls silent; the manager dies ", $when),
            };)+
        }
    };
}

crash! {
    RECORD_PREPARED "record-prepared" "when its disk has the record of the vote to come",
    VOTE_RECEIVED "vote-received" "with the successor's vote in its hands",
    VOTE_COUNTED "vote-counted" "when the vote is counted",
    RECORD_IN_FORCE "record-in-force" "before it tells anybody of the new record",
    VOTER_ANSWERED "voter-answered" "when only the new active has been told",
    MEMBERS_TOLD "members-told" "when its disk has the new record only as one that was prepared",
    RECORD_WRITTEN "record-written" "when its disk has the new record as such",
}

impl Scenario for Crash {
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
        self.step == Self::RECORD_WRITTEN.step
    }

    fn window(&self) -> Option<Duration> {
        Some(CRASH_WINDOW)
    }

    fn prepare(&self, stage: &mut Stage<'_>) -> Result<()> {
        stage.system.crash_at(stage.scene, self.step)?;
        // A failover seldom meets a manager that has just started.
        signals::sleep(SETTLED)
    }

    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        let at = clock::now();
        stage.scene.lab.set_cut(active, true)?;
        let what = format!("the manager to die at {}", self.step);
        signals::wait_for(&what, CRASH_LIMIT, || {
            let alive = stage.system.manager_processes();
            Ok((!alive.iter().any(ProcessMark::is_alive)).then_some(()))
        })?;
        stage.system.kill_manager()?;
        stage.system.restart_manager(stage.scene)?;
        Ok(Injection::at(at))
    }

    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()> {
        stage.scene.lab.set_cut(active, false)
    }
}

/// Whoever has just connected is given time before silence counts.
const SETTLED: Duration = Duration::from_secs(3);
/// A failover is over within this, even where it has to wait for a manager lease.
const CRASH_LIMIT: Duration = Duration::from_secs(5);
const CRASH_WINDOW: Duration = Duration::from_secs(4);
