//! What goes into the machine of the manager and what comes out of it.

use std::time::Duration;

use vnfpool_model::Pace;
use vnfpool_wire::datagram::{Message, NodeId, Record};

use super::damping::{Quarantined, Release};

/// What happens to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// An authenticated message of `from` about this slot.
    Received {
        /// The sender, as its key proves.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// What the last [`Effect::Persist`] said is on disk.
    Persisted,
    /// The operator's word, or a hypervisor's: this element is gone (R14).
    Fenced(NodeId),
    /// Two elements must not be a pair: they share a host or a risk group; or may again.
    Apart {
        /// One element.
        one: NodeId,
        /// The other.
        other: NodeId,
        /// True: never a pair.
        apart: bool,
    },
    /// Another element is the preferred one.
    Preferred(Option<NodeId>),
    /// The pace of the terms to come (R17). One whose lease is longer than the settings allow is
    /// ignored.
    Pace(Pace),
    /// The operator's word that this element, in quarantine or not, has a clean slate (R11).
    Pardoned(NodeId),
}

/// What the disk holds of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Beside it the record of the next term, in force as soon as one member votes for it (5n).
    pub prepared: Option<Record>,
}

impl Stored {
    /// A record with nothing beside it.
    #[must_use]
    pub const fn of(record: Record) -> Self {
        Self {
            record,
            prepared: None,
        }
    }

    /// The newest record that may have been told to anybody, which is the one to begin with. What
    /// is not of the very next term was left behind by a record that replaced it.
    #[must_use]
    pub fn newest(&self) -> Record {
        let next = self.record.term + 1;
        self.prepared
            .filter(|prepared| prepared.term == next)
            .unwrap_or(self.record)
    }
}

/// What the driver has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send to an element.
    Send {
        /// The receiver.
        to: NodeId,
        /// What it says.
        message: Message,
    },
    /// Bring this to disk, in place of what was there, and answer [`Input::Persisted`]; retry until
    /// it is there.
    Persist {
        /// All that the disk is to hold of the slot.
        stored: Stored,
        /// The decision that waits for it; none waits for a preparation (5n).
        decision: Option<Decision>,
    },
    /// The record is in force.
    Decided {
        /// The record.
        record: Record,
        /// Why.
        decision: Decision,
        /// How long the decision waited for the disk.
        disk: Duration,
        /// The record was prepared before it was decided (5n).
        prepared: bool,
    },
    /// A vote was refused.
    VoteRefused {
        /// Whose.
        from: NodeId,
        /// Why.
        reason: VoteRefusal,
    },
    /// An element has lost its place too often: it is not armed for now (R11).
    Quarantined(Quarantined),
    /// Its quarantine is over.
    Released {
        /// Whose.
        node: NodeId,
        /// Why.
        cause: Release,
    },
}

/// Why the manager changed a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The slot is given for the first time.
    First,
    /// R10: a member of the pair voted and goes on alone.
    Split {
        /// Who voted.
        by: NodeId,
        /// Who was active as far as the manager knew.
        failover: bool,
    },
    /// R10: a member voted that could not serve; another element was taken.
    SplitToOther {
        /// Who voted.
        by: NodeId,
    },
    /// R11: a synchronised standby is armed.
    Armed,
    /// R17: the same pair at another pace.
    Paced,
    /// R12: the lone active was silent until its grant ran out.
    Replaced {
        /// Who was.
        silent: NodeId,
    },
    /// R13: a member came back in a new life.
    Restarted {
        /// Who.
        node: NodeId,
    },
    /// R14: a member was declared gone.
    Fenced {
        /// Who.
        node: NodeId,
    },
}

impl Decision {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Split { failover: true, .. } => "failover",
            Self::Split {
                failover: false, ..
            } => "disarmed",
            Self::SplitToOther { .. } => "failover-to-other",
            Self::Armed => "armed",
            Self::Paced => "paced",
            Self::Replaced { .. } => "replaced",
            Self::Restarted { .. } => "restarted",
            Self::Fenced { .. } => "fenced",
        }
    }
}

/// Why a vote was refused (R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteRefusal {
    /// It is about another term than the record's.
    OtherTerm,
    /// The sender in this life is not of the pair, or no successor is armed.
    NotOfThePair,
    /// Its token is too old or of an earlier boot.
    TokenTooOld,
    /// A manager lease of somebody else runs.
    GrantRuns,
    /// No able element is left.
    NobodyAble,
}

impl VoteRefusal {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherTerm => "other-term",
            Self::NotOfThePair => "not-of-the-pair",
            Self::TokenTooOld => "token-too-old",
            Self::GrantRuns => "grant-runs",
            Self::NobodyAble => "nobody-able",
        }
    }
}
