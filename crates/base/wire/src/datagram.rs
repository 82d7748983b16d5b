//! The succession messages in their fixed layout (little-endian, no padding).
//!
//! The datagram around them (magic, version, kind, key id, sequence, authentication tag) belongs
//! to the transport; this module sees the kind and the authenticated body. Times named `sent_at`
//! are on the sender's boot-time clock, times named `echo` on the receiver's: what it sent comes
//! back to it, so that no two clocks are ever compared.

mod codec;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use vnfpool_model::{Epoch, Incarnation, Pace, Time};

/// The longest lease of a record, in milliseconds; nobody waits for a promise of days.
pub const LEASE_MS_MAX: u32 = 3_600_000;

/// The largest body in bytes.
pub const BODY_BYTES_MAX: usize = 96;

/// A node that speaks about slots: the manager or an element, numbered by the manager.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

impl NodeId {
    /// The manager; elements are numbered from 1.
    pub const MANAGER: Self = Self(0);
}

/// An element in one of its lives.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Member {
    /// The element's number, never [`NodeId::MANAGER`].
    pub node: NodeId,
    /// Which life of its agent is meant.
    pub incarnation: Incarnation,
}

/// What the manager's store holds for a slot: a term, and the pair and the pace that it has for
/// ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The term, from 1.
    pub term: u64,
    /// The member that is active in even turns, and the one that may hold a manager lease.
    pub first: Member,
    /// The other member; none when no successor is armed.
    pub second: Option<Member>,
    /// How often its members speak, and how long their promises last.
    pub pace: Pace,
}

impl Record {
    /// Whether a successor is armed.
    #[must_use]
    pub const fn armed(&self) -> bool {
        self.second.is_some()
    }

    /// Whether `member` is one of the pair.
    #[must_use]
    pub fn names(&self, member: Member) -> bool {
        self.first == member || self.second == Some(member)
    }

    /// The other member of the pair.
    #[must_use]
    pub fn peer_of(&self, member: Member) -> Option<Member> {
        if self.first == member {
            self.second
        } else if self.second == Some(member) {
            Some(self.first)
        } else {
            None
        }
    }
}

/// The manager's token: its boot number and its clock when it answered. Ordered; the age of a
/// vote is judged by it, on the manager's clock alone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Token {
    /// The manager's boot number, counted in its store.
    pub boot: u64,
    /// Its boot-time clock.
    pub clock: Time,
}

/// Active to successor (docs/succession.md, R2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Heartbeat {
    /// The turn of the record's term.
    pub turn: u16,
    /// The record the sender acts under.
    pub record: Record,
    /// When it was sent.
    pub sent_at: Time,
    /// The newest `sent_at` the sender has of the receiver; zero: none.
    pub echo: Time,
}

/// Successor to active (R3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ack {
    /// The epoch of the heartbeat.
    pub epoch: Epoch,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// When it was sent.
    pub sent_at: Time,
    /// The heartbeat's `sent_at`.
    pub echo: Time,
    /// The sender promises not to split for one lease from its receipt of the heartbeat.
    pub promise: bool,
    /// The sender could serve now.
    pub able: bool,
}

/// Active to successor: the slot is yours (R5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handover {
    /// The new epoch, in which the receiver is active.
    pub epoch: Epoch,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// When it was sent.
    pub sent_at: Time,
    /// The receiver's first lease counts from here; zero: an empty lease.
    pub echo: Time,
}

/// Element to manager (R6): registration, keep-alive and renewal in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The newest epoch the sender knows; the turn is a hint for display.
    pub epoch: Epoch,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// When it was sent.
    pub sent_at: Time,
    /// The sender has had an answer within the last manager lease.
    pub heard_manager: bool,
    /// The sender could serve now.
    pub able: bool,
    /// The sender is of an armed pair and holds no manager lease any more: what opens its gate is
    /// its peer's promise alone.
    pub renounces: bool,
    /// A standby that is in sync with the sender and heard in both directions (R11).
    pub candidate: Option<Member>,
}

/// Manager to element (R7), also the answer to a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Info {
    /// The record, on disk before it is sent; none when the slot has never been given.
    pub record: Option<Record>,
    /// The manager's token.
    pub token: Token,
    /// The `sent_at` of the message this answers.
    pub echo: Time,
    /// The receiver may serve for one manager lease from `echo`.
    pub grant: bool,
}

/// Element to manager: the one vote (R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Split {
    /// The term to be ended.
    pub term: u64,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// When it was sent.
    pub sent_at: Time,
    /// The newest token the sender has.
    pub token: Token,
    /// The sender could serve now.
    pub able: bool,
}

/// Element to every other element (S4): who is alive, and who still hears the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gossip {
    /// The newest epoch the sender knows.
    pub epoch: Epoch,
    /// The life of the sender.
    pub incarnation: Incarnation,
    /// When it was sent.
    pub sent_at: Time,
    /// The newest `sent_at` the sender has of the receiver; zero: none.
    pub echo: Time,
    /// Milliseconds since the manager's last word; `u32::MAX`: never.
    pub manager_silence_ms: u32,
    /// The sender could serve now.
    pub able: bool,
}

/// A message about one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Handover`].
    Handover(Handover),
    /// See [`Request`].
    Request(Request),
    /// See [`Info`].
    Info(Info),
    /// See [`Split`].
    Split(Split),
    /// See [`Gossip`].
    Gossip(Gossip),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A kind that this version does not know.
    #[error("message kind {kind} is unknown")]
    UnknownKind {
        /// The kind in the datagram's header.
        kind: u8,
    },
    /// Fewer or more bytes than the kind has.
    #[error("a message of kind {kind} has another length than {length} bytes")]
    Length {
        /// The kind in the datagram's header.
        kind: u8,
        /// The body's length.
        length: usize,
    },
    /// A value outside its range.
    #[error("a message of kind {kind} has a field out of range")]
    Field {
        /// The kind in the datagram's header.
        kind: u8,
    },
}
