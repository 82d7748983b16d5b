//! What is on its way from one node to another.

use std::fmt;

use vnfpool_succession::manager::Stored;
use vnfpool_wire::datagram::Message;

/// A message with its addresses; node 0 is the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Letter {
    /// Who sent it.
    pub from: usize,
    /// To whom.
    pub to: usize,
    /// What it says.
    pub body: Body,
}

/// What a letter says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A message of succession.
    Message(Message),
    /// An announcement of the virtual address, heard by others: a sign of life.
    Announcement,
    /// The manager's disk has what it was given.
    Written(Stored),
}

impl Letter {
    /// A word about it for the story.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.body {
            Body::Message(Message::Heartbeat(_)) => "heartbeat",
            Body::Message(Message::Ack(m)) if m.promise => "ack (promise)",
            Body::Message(Message::Ack(_)) => "ack (plain)",
            Body::Message(Message::Handover(_)) => "handover",
            Body::Message(Message::Request(_)) => "request",
            Body::Message(Message::Info(m)) if m.grant => "info (grant)",
            Body::Message(Message::Info(_)) => "info",
            Body::Message(Message::Split(_)) => "vote",
            Body::Message(Message::Gossip(_)) => "gossip",
            Body::Announcement => "announcement",
            Body::Written(stored) if stored.prepared.is_some() => "prepared record on disk",
            Body::Written(_) => "record on disk",
        }
    }

    /// The term that it speaks of.
    fn term(&self) -> u64 {
        match self.body {
            Body::Message(message) => match message {
                Message::Heartbeat(m) => m.record.term,
                Message::Ack(m) => m.epoch.term,
                Message::Handover(m) => m.epoch.term,
                Message::Request(m) => m.epoch.term,
                Message::Info(m) => m.record.map_or(0, |r| r.term),
                Message::Split(m) => m.term,
                Message::Gossip(m) => m.epoch.term,
            },
            Body::Written(stored) => stored.newest().term,
            Body::Announcement => 0,
        }
    }
}

/// How people call a node.
#[must_use]
pub const fn name(node: usize) -> &'static str {
    match node {
        0 => "M",
        1 => "A",
        2 => "B",
        _ => "C",
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (name(self.from), name(self.to));
        write!(f, "{from}>{to} {} of term {}", self.kind(), self.term())
    }
}
