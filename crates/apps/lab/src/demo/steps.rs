//! What the demonstration does to the pool, in order.

use anyhow::Result;

use crate::namespaces::Gateway;
use crate::scenarios::{self, Injection, Scenario, Stage};

/// One step.
pub(super) enum Step {
    /// A scenario; the pool is healed at its end and waited for, unless the next step does that.
    Scenario { name: &'static str, heals: bool },
    /// The end of the kill: the old active returns.
    Return,
}

/// The sequence.
pub(super) const STEPS: [Step; 6] = [
    Step::Scenario {
        name: "kill",
        heals: false,
    },
    Step::Return,
    Step::Scenario {
        name: "switchover",
        heals: true,
    },
    Step::Scenario {
        name: "freeze",
        heals: true,
    },
    Step::Scenario {
        name: "silent",
        heals: true,
    },
    Step::Scenario {
        name: "partition",
        heals: true,
    },
];

impl Step {
    /// A short name for machines.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Scenario { name, .. } => name,
            Self::Return => "return",
        }
    }

    /// What is about to be done, for people.
    pub(super) fn title(&self, active: Gateway) -> String {
        match self.name() {
            "kill" => format!("kill -9 of everything on {active}"),
            "return" => format!("{} comes back", active.other()),
            "switchover" => format!("planned switchover to {}", active.other()),
            "freeze" => format!("freeze (SIGSTOP) of everything on {active}"),
            "silent" => format!("{active} is cut off without carrier loss"),
            "partition" => "the gateways cannot hear each other".to_owned(),
            other => other.to_owned(),
        }
    }

    /// The label of its moment in the picture.
    pub(super) fn mark(&self) -> &'static str {
        match self.name() {
            "kill" => "kill -9",
            "return" => "started",
            "switchover" => "command",
            "freeze" => "SIGSTOP",
            "silent" => "cut",
            "partition" => "partition",
            other => other,
        }
    }

    /// What is to be known to read its figures, where the gateways have gates.
    pub(super) fn note(&self) -> Option<&'static str> {
        match self.name() {
            "kill" | "freeze" => Some(
                "Why the outage is shorter than the takeover: the processes are dead or stopped, the \
                 kernel is not. It goes on forwarding until the lease is over; then its gate closes, \
                 and the other gateway's opens.",
            ),
            _ => None,
        }
    }

    /// Does it to the pool whose active is `active`.
    pub(super) fn inject(&self, stage: &mut Stage<'_>, active: Gateway) -> Result<Injection> {
        match self {
            Self::Scenario { name, .. } => scenarios::by_name(name)?.inject(stage, active),
            Self::Return => {
                let at = crate::clock::now();
                stage.system.start_again(stage.scene, active.other())?;
                Ok(Injection::at(at))
            }
        }
    }

    /// Whether the pool has to be healed, and by which scenario.
    pub(super) fn healing(&self) -> Result<Option<&'static dyn Scenario>> {
        match self {
            Self::Scenario { name, heals: true } => scenarios::by_name(name).map(Some),
            Self::Scenario { .. } | Self::Return => Ok(None),
        }
    }

    /// Whether the pool has both members at the end of the step.
    pub(super) const fn ends_ready(&self) -> bool {
        match self {
            Self::Scenario { heals, .. } => *heals,
            Self::Return => true,
        }
    }
}
