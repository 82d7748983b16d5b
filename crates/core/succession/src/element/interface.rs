//! What goes into the machine of an element and what comes out of it.

use std::time::Duration;

use vnfpool_model::{Epoch, Role, Time};
use vnfpool_wire::datagram::{Member, Message, NodeId};

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
    /// The elements of the pool other than this one; replaces what was known.
    Peer {
        /// The peer's number.
        node: NodeId,
        /// False: it left the pool.
        present: bool,
    },
    /// Whether the network function of this element works.
    Able(bool),
    /// What is proved of the copy of service state that `peer`, which this active feeds, holds (I5).
    InSync {
        /// The standby.
        peer: Member,
        /// Everything that happened before this time, on this machine's clock, is there: the
        /// standby acknowledged what was sent then. None: the copy is no longer complete, or no
        /// longer fed.
        as_of: Option<Time>,
    },
    /// Hand the slot to the successor, when it has all service state: an operator's switchover, a
    /// clean stop.
    HandOver,
    /// Hand the slot to the successor, whatever it has: the alternative is that nobody serves.
    Resign,
    /// The state stream has carried everything to the successor ([`Effect::Drain`]).
    Drained,
    /// A witness of the LAN with this index answered (S3).
    Witness {
        /// Index of the LAN, below [`super::LANS_MAX`].
        lan: usize,
    },
    /// How many LANs are to be served, each with a witness; none: no evidence is possible.
    WitnessLans(Option<usize>),
    /// A sign of life that proves nothing else: a datagram that does not authenticate, an
    /// announcement of a virtual address by somebody else, a link that came up (S2, S5).
    SignOfLife,
}

/// What the driver has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send over every path.
    Send {
        /// The receiver.
        to: NodeId,
        /// What it says.
        message: Message,
    },
    /// Let the gate be open until `until`, in `epoch`; [`Time::ZERO`] closes it.
    Gate {
        /// The epoch that this belongs to.
        epoch: Epoch,
        /// The deadline on this machine's clock.
        until: Time,
    },
    /// The gate has just opened for `epoch`: tell the LANs.
    Announce {
        /// The epoch that this belongs to.
        epoch: Epoch,
    },
    /// Bring everything that the stopped data plane has produced to the successor and answer
    /// [`Input::Drained`].
    Drain {
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// Ask the witnesses of every LAN (S3).
    AskWitnesses,
    /// Something worth telling.
    Notify(Notice),
}

/// What the machine tells the rest of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The role, the epoch or the peer changed.
    RoleChanged {
        /// The new epoch.
        epoch: Epoch,
        /// The new role.
        role: Role,
        /// The other member of the pair.
        peer: Option<Member>,
        /// Why.
        cause: Cause,
    },
    /// A vote to split the pair went out.
    Voted {
        /// The term that it ends.
        term: u64,
        /// The active splits off a successor that is silent, unable or out of sync; else the
        /// successor claims the slot.
        disarms: bool,
        /// Since when the peer has been silent.
        silence: Duration,
    },
    /// A handover was asked for and cannot be.
    HandOverRefused(Refusal),
    /// A handover is complete: the successor serves.
    HandedOver {
        /// The epoch in which it does.
        epoch: Epoch,
    },
    /// The slot is served without a second voter (S1–S7), or no longer is.
    Unconfirmed {
        /// The term.
        term: u64,
        /// Whether it is unconfirmed now.
        now: bool,
    },
}

/// Why a role changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The manager's record says so.
    Record,
    /// The pair split: this element's vote was accepted.
    Failover,
    /// The pair split: this active goes on alone.
    Disarm,
    /// Handed over by the former active.
    Handover,
}

impl Cause {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Failover => "failover",
            Self::Disarm => "disarm",
            Self::Handover => "handover",
        }
    }
}

/// Why a handover is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This element does not serve the slot.
    NotActive,
    /// No successor is armed.
    NotArmed,
    /// The pair is being split.
    Voting,
    /// The successor has not been heard in this epoch.
    SuccessorSilent,
    /// The successor could not serve.
    SuccessorUnable,
    /// The successor does not have all service state yet, or not any more.
    SuccessorBehind,
    /// A handover is under way already.
    UnderWay,
}

impl Refusal {
    /// What the operator reads.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotActive => "this element does not serve the slot",
            Self::NotArmed => "no successor is armed",
            Self::Voting => "the pair is being split",
            Self::SuccessorSilent => "the successor has not been heard in this epoch",
            Self::SuccessorUnable => "the successor is not able to serve",
            Self::SuccessorBehind => "the successor does not have all service state",
            Self::UnderWay => "a handover is under way already",
        }
    }
}
