//! What the agent tells a function.

use tokio::sync::mpsc;

use crate::Level;

/// Names a slot of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u32);

/// That this element is the active of a slot, in this epoch: what a put needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The slot.
    pub slot: SlotId,
    /// The fencing token; a higher one is newer. Pass it on to whatever the function writes to.
    pub epoch: u64,
}

/// What this element is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// It serves the slot. Comes again with a newer epoch when a successor joins or leaves.
    Active(Active),
    /// It may become the active at any moment: watch the classes.
    Standby {
        /// The slot.
        slot: SlotId,
        /// The fencing token.
        epoch: u64,
    },
    /// It holds no state of the slot, or what it holds is old.
    Spare {
        /// The slot.
        slot: SlotId,
        /// The fencing token.
        epoch: u64,
    },
    /// The slot is not this element's any more.
    Gone {
        /// The slot.
        slot: SlotId,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Connected and registered. Roles follow.
    Connected {
        /// The element's name.
        element: String,
        /// Its pool.
        pool: String,
    },
    /// What this element is. Sent for each slot after [`Event::Connected`], and with each change.
    Role(Role),
    /// A class of a slot that this element serves is held at this level from now on.
    Level {
        /// The slot.
        slot: SlotId,
        /// The class.
        class: String,
        /// It may be less than was demanded.
        level: Level,
        /// Why; empty if it is what was demanded.
        reason: String,
    },
    /// The agent's copy of a class is lost, since it is another process or this element became the
    /// active before it had everything, or old, since nobody has kept it whole up to then: put all that
    /// the function knows, and delete what is there and not so any more, then call
    /// [`crate::Table::restored`]. Until then the class is not complete at the successor.
    Restore {
        /// As what.
        active: Active,
        /// The class.
        class: String,
    },
    /// Changes were refused by the agent, which is no longer, or not yet, the active in their epoch.
    Refused {
        /// The slot.
        slot: SlotId,
        /// The class.
        class: String,
        /// How many.
        changes: u64,
        /// A stable word: `role`, `epoch`, `slot`, `class`, `full`.
        code: String,
        /// What to do.
        text: String,
    },
    /// The agent is gone: this element serves nothing until the next [`Event::Role`]. The connection
    /// is opened and the function registered again by itself; watches have to be begun again.
    Disconnected {
        /// Why.
        reason: String,
        /// Changes that the agent had not yet taken: they may be lost, or not.
        unknown: u64,
    },
}

/// The events, in order. They wait in a queue of which the connection waits for room: who does not
/// read them is not told anything else either.
#[derive(Debug)]
pub struct Events(pub(crate) mpsc::Receiver<Event>);

impl Events {
    /// The next event; none when every [`crate::Client`] is gone, or the agent turned the function away.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}
