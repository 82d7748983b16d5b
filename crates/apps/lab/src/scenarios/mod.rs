//! The faults and planned changes that a pool is put through, one struct each.

mod bulk;
mod clocks;
mod disk;
mod flap;
mod load;
mod manager;
mod network;
mod one_way;
mod planned;
mod ports;
mod processes;
mod reboot;
mod resume;
mod stutter;
mod two_box;
mod vnf;
mod watermark;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock::Nanos;
use crate::namespaces::Gateway;
use crate::system::{Scene, System};

/// What a scenario acts on.
pub(crate) struct Stage<'a> {
    pub(crate) scene: &'a Scene,
    pub(crate) system: &'a mut dyn System,
}

/// What the measurement has to know about an injected fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Injection {
    /// When it happened, or when the command was given.
    pub(crate) at: Nanos,
    /// When the command that caused it had returned, where there was one.
    pub(crate) returned: Option<Nanos>,
    /// What was said of the loss, and what was lost, where the scenario compares that.
    pub(crate) loss: Option<Loss>,
}

/// How many connections a takeover has lost, beside what the new active says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Loss {
    /// That so many may be missing.
    pub(crate) stated: u64,
    /// So many are.
    pub(crate) missing: u64,
}

impl Injection {
    /// A fault that happened at a moment.
    pub(crate) const fn at(at: Nanos) -> Self {
        Self {
            at,
            returned: None,
            loss: None,
        }
    }
}

/// One fault or planned change.
pub(crate) trait Scenario: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// One line for `lab list` and the report.
    fn about(&self) -> &'static str;

    /// Whether it makes sense only with a manager.
    fn needs_manager(&self) -> bool {
        false
    }

    /// How long it is watched; by default for as long as the system's timing asks for.
    fn window(&self) -> Option<Duration> {
        None
    }

    /// How long the pool may take after its end until it is ready again, where a system's own limit
    /// is not enough.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// How long the fault itself takes, where that is long: for whoever waits.
    fn lasts(&self) -> Option<Duration> {
        None
    }

    /// Whether nothing is broken in it, so that any role change is a false one.
    fn breaks_nothing(&self) -> bool {
        false
    }

    /// Whether `lab matrix` leaves it out unless it is named, since it takes so long.
    fn only_by_name(&self) -> bool {
        false
    }

    /// Whether connections have to survive it: not where all state is gone by the fault itself.
    fn keeps_connections(&self) -> bool {
        true
    }

    /// Whether it is of the few that `lab matrix --smoke` runs.
    fn is_smoke(&self) -> bool {
        false
    }

    /// Prepares the laboratory before the system starts in it.
    fn furnish(&self, _stage: &mut Stage<'_>) -> Result<()> {
        Ok(())
    }

    /// Brings the pool from the start (gw1 active) to where the scenario begins; the traffic
    /// starts after this.
    fn prepare(&self, _stage: &mut Stage<'_>) -> Result<()> {
        Ok(())
    }

    /// Does it to the pool whose active is `active`.
    fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection>;

    /// Ends the fault: the network is mended, processes run again. The pool may stay where it is.
    fn heal(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<()>;
}

const ALL: &[&dyn Scenario] = &[
    &processes::Kill,
    &processes::Freeze,
    &resume::Resume::AGENT,
    &resume::Resume::HALF_SECOND,
    &resume::Resume::SECONDS,
    &resume::Resume::MINUTE,
    &stutter::Stutter,
    &network::Silent,
    &network::Link,
    &network::Partition,
    &network::Heal,
    &network::HealPartition,
    &one_way::Between::FROM_ALL,
    &one_way::Between::TO_ALL,
    &one_way::Between::FROM_INSIDE,
    &one_way::Between::TO_INSIDE,
    &one_way::Between::FROM_OUTSIDE,
    &one_way::Between::TO_OUTSIDE,
    &one_way::Between::FROM_LINK,
    &one_way::Between::TO_LINK,
    &one_way::Between::FROM_MANAGEMENT,
    &one_way::Between::TO_MANAGEMENT,
    &one_way::AtManager::FROM,
    &one_way::AtManager::TO,
    &one_way::Mute,
    &one_way::Deaf,
    &network::OneWire::LINK,
    &network::OneWire::MANAGEMENT,
    &network::StandbyLink,
    &network::StandbySilent,
    &processes::Stop,
    &processes::StopKill,
    &processes::AgentKill,
    &processes::AgentUpgrade,
    &planned::Switchover,
    &planned::Switchback,
    &manager::ManagerKill,
    &manager::QuorumLoss,
    &manager::Crash::RECORD_PREPARED,
    &manager::Crash::VOTE_RECEIVED,
    &manager::Crash::VOTE_COUNTED,
    &manager::Crash::RECORD_IN_FORCE,
    &manager::Crash::VOTER_ANSWERED,
    &manager::Crash::MEMBERS_TOLD,
    &manager::Crash::RECORD_WRITTEN,
    &two_box::TwoBox::ACTIVE_ALONE,
    &two_box::TwoBox::ACTIVE_WITH_MANAGER,
    &two_box::TwoBox::STANDBY_ALONE,
    &two_box::TwoBox::STANDBY_WITH_MANAGER,
    &vnf::VnfFail,
    &bulk::BulkKill::STANDBY,
    &bulk::BulkKill::ACTIVE,
    &ports::NatPorts,
    &watermark::Watermark::FREEZE,
    &watermark::Watermark::KILL,
    &watermark::Watermark::SILENT,
    &reboot::BothReboot,
    &flap::Flap,
    &disk::Disk::FULL,
    &disk::Disk::ERROR,
    &disk::Disk::SLOW,
    &clocks::ClockSteps,
    &load::Load::PROCESSOR,
    &load::Load::MIXED,
    &load::Load::LONG,
    &load::Load::MEMORY,
    &load::Load::DISK,
    &load::LoadKill,
];

/// All scenarios.
pub(crate) fn all() -> &'static [&'static dyn Scenario] {
    ALL
}

/// The scenario of that name.
///
/// # Errors
/// When there is none; the message has one that was probably meant, or lists those there are.
pub(crate) fn by_name(name: &str) -> Result<&'static dyn Scenario> {
    ALL.iter()
        .copied()
        .find(|scenario| scenario.name() == name)
        .with_context(|| match closest(name) {
            Some(meant) => format!(
                "there is no scenario {name:?}; did you mean {meant:?}? `vnfpool lab list` has all"
            ),
            None => {
                let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name()).collect();
                let names = names.join(", ");
                format!("there is no scenario {name:?}; there are {names}")
            }
        })
}

/// The scenario that was probably meant.
fn closest(name: &str) -> Option<&'static str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let names = ALL.iter().map(|scenario| scenario.name());
    let best = names.min_by_key(|known| distance(known))?;
    (distance(best) <= 1 + best.len() / 4).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_told_what_was_meant() {
        let told = |name| by_name(name).map(|_| ()).unwrap_err().to_string();
        assert!(told("kil").contains("did you mean \"kill\"?"));
        assert!(told("agent-kil").contains("did you mean \"agent-kill\"?"));
        let unlike = told("earthquake");
        assert!(!unlike.contains("did you mean"), "{unlike}");
        assert!(unlike.contains("there are kill, freeze, "), "{unlike}");
    }
}
