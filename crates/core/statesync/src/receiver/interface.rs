//! What a receiver is told, what it wants done, and its figures.

use bytes::Bytes;

use crate::Item;
use crate::class::Level;
use crate::wire::{Frame, Refusal, WireError};

/// What happens to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiverInput {
    /// A stream from the active is open.
    Connected,
    /// It is gone.
    Disconnected,
    /// A frame came.
    Frame(Frame),
    /// The stream held something that is no frame.
    Malformed(WireError),
    /// All actions up to `ticket` are carried out.
    Applied(Ticket),
    /// An entry could not be written: it is not in the copy.
    Unapplied {
        /// Its key.
        key: Bytes,
    },
    /// The copy cannot be written any more: the session is over.
    ApplyFailed,
    /// A part of a sweep asked for with [`ReceiverAction::StartSweep`].
    ///
    /// What the driver keeps: a chunk shows everything that was carried out before the last but one
    /// chunk was handed in.
    SweepChunk {
        /// The sweep; chunks of others are ignored.
        sweep: u16,
        /// Entries of the copy that this stream answers for, as the active would tell them.
        items: Vec<Item>,
        /// Nothing comes after it.
        is_last: bool,
    },
    /// The element's view of the slot.
    Epoch {
        /// Its newest epoch (`Epoch::fencing_token`).
        token: u64,
        /// Whether state is taken: in this epoch the element at the other end of the stream is
        /// the active, and this one is not.
        accepts: bool,
    },
    /// The time of [`crate::Receiver::deadline`] has come.
    Tick,
}

/// What the driver of a receiver has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiverAction {
    /// The class is held at this level.
    Accepted {
        /// The level.
        level: Level,
    },
    /// Write an entry.
    Put {
        /// Ticket to give back.
        ticket: Ticket,
        /// The entry.
        item: Item,
        /// It should not exist yet; replace what is in its place.
        is_new: bool,
    },
    /// Delete an entry.
    Delete {
        /// Ticket to give back.
        ticket: Ticket,
        /// Its key.
        key: Bytes,
    },
    /// After everything so far: read the whole copy and hand it in; drop an earlier reading.
    StartSweep {
        /// Ticket to give back.
        ticket: Ticket,
        /// Names the sweep.
        sweep: u16,
    },
    /// The end of a frame: carry out everything so far and give the ticket back.
    Flush {
        /// Ticket to give back.
        ticket: Ticket,
    },
    /// Close the stream, after what is in [`crate::Effects::outgoing`] was sent.
    Close {
        /// Why.
        reason: Refusal,
    },
    /// The copy became complete, or ceased to be.
    InSync(bool),
    /// The copy was not what it should be; it is being mended.
    Diverged {
        /// Buckets that differ from the active's.
        buckets: usize,
        /// Entries that the copy had lost.
        missing: usize,
        /// Entries that it had and was not told of.
        surplus: usize,
        /// Entries that it held otherwise than it was told.
        altered: usize,
    },
}

/// Names an action. Later tickets are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub(super) session: u64,
    pub(super) sequence: u64,
    /// Counts the actions that no record of the stream asks for.
    pub(super) step: u64,
}

/// Figures of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverStatus {
    /// Newest epoch known.
    pub epoch: u64,
    /// Scan that is under way or was the last.
    pub generation: u32,
    /// Sequence of the last record received in this session.
    pub received: u64,
    /// Sequence up to which everything is applied.
    pub applied: u64,
    /// Bytes received and not applied.
    pub outstanding_bytes: usize,
    /// Whether everything up to `applied` is there and nothing else.
    pub in_sync: bool,
    /// The level at which the class is held.
    pub level: Option<Level>,
    /// Entries told.
    pub entries: usize,
    /// Entries told that the table did not take.
    pub lacking: u32,
    /// Entries told that the table lost or holds otherwise, until they are told anew.
    pub wanted: usize,
    /// Entries written and deleted since the start.
    pub operations: u64,
    /// Streams refused since the start.
    pub refused: u64,
    /// Buckets found different since the start.
    pub diverged: u64,
    /// Entries that the copy had lost since the start.
    pub missing: u64,
    /// Entries that the copy had and was not told of, since the start.
    pub surplus: u64,
    /// Entries that the copy held otherwise than it was told, since the start.
    pub altered: u64,
    /// Entries told that this table cannot hold as the active's does, by the last sweep: telling
    /// them anew made no difference.
    pub unlike: u32,
}
