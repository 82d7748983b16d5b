//! A pool as its operator describes it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ElementId, PoolHandle, PortBlocks, SlotName, StateSpec, VirtualAddress};

/// A slot's number, unique within one manager for ever; it names the slot in datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId(pub u32);

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an element does for a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves the slot.
    Active,
    /// Synchronised and able to take the slot.
    Standby,
    /// Registered, holds no state.
    #[default]
    Spare,
}

impl Role {
    /// The role in one word, as the CLI, the log and the metrics print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Spare => "spare",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the last of three does when the other two are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnQuorumLoss {
    /// Serve, on positive evidence that nobody else does.
    #[default]
    Serve,
    /// Nobody serves until two meet.
    Stop,
}

/// Whether a returned preferred element takes its slot back by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switchback {
    /// Only when the operator says so.
    #[default]
    Manual,
    /// As soon as it is synchronised again.
    Auto,
}

/// The time constants of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Milliseconds between two heartbeats.
    pub heartbeat_interval_ms: u32,
    /// L: how long a promise of the successor lasts.
    pub lease_ms: u32,
    /// L_M: how long a grant of the manager lasts; at least the lease.
    pub manager_lease_ms: u32,
}

impl Timing {
    /// Heartbeat 10 ms, lease 50 ms, manager lease 1 s.
    pub const DEFAULT: Self = Self {
        heartbeat_interval_ms: 10,
        lease_ms: 50,
        manager_lease_ms: 1_000,
    };

    /// Heartbeat 5 ms, lease 25 ms, manager lease 1 s.
    pub const FAST: Self = Self {
        heartbeat_interval_ms: 5,
        lease_ms: 25,
        manager_lease_ms: 1_000,
    };

    /// What of it belongs to a term.
    #[must_use]
    pub const fn pace(self) -> Pace {
        Pace {
            heartbeat_interval_ms: self.heartbeat_interval_ms,
            lease_ms: self.lease_ms,
        }
    }

    /// The same at another pace.
    #[must_use]
    pub const fn at(self, pace: Pace) -> Self {
        Self {
            heartbeat_interval_ms: pace.heartbeat_interval_ms,
            lease_ms: pace.lease_ms,
            ..self
        }
    }

    /// The heartbeat interval.
    #[must_use]
    pub const fn heartbeat_interval(self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms as u64)
    }

    /// L, the lease.
    #[must_use]
    pub const fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms as u64)
    }

    /// L_M, the manager lease.
    #[must_use]
    pub const fn manager_lease(self) -> Duration {
        Duration::from_millis(self.manager_lease_ms as u64)
    }
}

/// What of the time constants belongs to a term: the manager may choose it anew with each one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pace {
    /// Milliseconds between two heartbeats, from 1.
    pub heartbeat_interval_ms: u32,
    /// L: how long a promise of the successor lasts, in milliseconds; more than a heartbeat.
    pub lease_ms: u32,
}

/// Between which values the manager may choose the lease (`lease = "auto"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseBounds {
    /// The shortest lease, in milliseconds.
    pub min_ms: u32,
    /// The longest lease, in milliseconds.
    pub max_ms: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A slot as its operator describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    /// Its name within the pool.
    pub name: SlotName,
    /// The addresses that move together.
    pub addresses: Vec<VirtualAddress>,
    /// The element that should serve when everything is well.
    pub preferred: Option<ElementId>,
    /// Whose ports are which, if the agents keep that apart in the ruleset.
    #[serde(default)]
    pub port_blocks: Option<PortBlocks>,
}

/// A pool as its operator describes it: instances of ONE function behind one name (draft §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Its name.
    pub handle: PoolHandle,
    /// The function that every element must provide, for example `nat-gateway`.
    pub function: String,
    /// Its time constants; with [`PoolSpec::lease_bounds`] those that it begins with.
    pub timing: Timing,
    /// `lease = "auto"`: the lease follows what is measured, within these bounds.
    #[serde(default)]
    pub lease_bounds: Option<LeaseBounds>,
    /// What the last of three does.
    pub on_quorum_loss: OnQuorumLoss,
    /// Whether a returned preferred element takes over by itself.
    pub switchback: Switchback,
    /// How its service state is replicated.
    #[serde(default)]
    pub state: StateSpec,
    /// Its slots, at least one.
    pub slots: Vec<SlotSpec>,
}

impl PoolSpec {
    /// The longest lease that any term of this pool may have, in milliseconds.
    #[must_use]
    pub fn lease_ms_max(&self) -> u32 {
        let bound = self.lease_bounds.map_or(0, |bounds| bounds.max_ms);
        self.timing.lease_ms.max(bound)
    }
}
