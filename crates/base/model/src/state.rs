//! How service state is replicated, as the operator describes it (draft §5.2).

use serde::{Deserialize, Serialize};

/// How closely a successor's copy of a class of state has to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateLevel {
    /// Nothing is sent.
    None,
    /// A complete copy that follows as it can; nobody waits for it, and no successor needs it.
    Eventual,
    /// A successor is no further behind than the bounds.
    #[default]
    Bounded,
    /// As bounded, and the first packets of a connection leave only after the successor has it.
    Commit,
}

impl StateLevel {
    /// The level in one word, as files and the CLI write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eventual => "eventual",
            Self::Bounded => "bounded",
            Self::Commit => "commit",
        }
    }
}

/// What a pool demands of the replication of its kernels' connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSpec {
    /// The level.
    pub connections: StateLevel,
    /// Oldest change that a successor may not have yet, in milliseconds, from 1.
    pub lag_ms: u32,
    /// Most changes that a successor may not have yet, from 1.
    pub entries: u32,
    /// At `commit`: a packet that has waited for so long, in milliseconds, begins the downgrade to
    /// `bounded`, which ends by itself.
    pub commit_wait_ms: u32,
    /// Whether an element that can hold the state at a lesser level only may be the successor.
    pub accept_less: bool,
}

impl StateSpec {
    /// Bounded by a second and 50 000 changes.
    pub const DEFAULT: Self = Self {
        connections: StateLevel::Bounded,
        lag_ms: 1_000,
        entries: 50_000,
        commit_wait_ms: 20,
        accept_less: false,
    };
}

impl Default for StateSpec {
    fn default() -> Self {
        Self::DEFAULT
    }
}
