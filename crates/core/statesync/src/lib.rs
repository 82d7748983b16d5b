//! Replication of service state, as sans-IO machines: no clock, socket, task or randomness.
//!
//! One [`Sender`] per standby and class of state on the active, one [`Receiver`] on each standby, a
//! reliable ordered stream between them (it may break at any byte). Keys and values are opaque
//! bytes; [`class`] says what a class is and how its level is agreed on, [`wire`] how frames look.
//!
//! # Why the copy is right
//!
//! The source is a table that tells of every change after it was made, in order, or says that it
//! lost some ([`SenderInput::Overrun`]). Both ends keep an [`index`](self) of what was told: a hash
//! of each key, a hash of its value, and the sum of both over each of [`BUCKETS`] buckets.
//!
//! *A scan* reads the table in chunks while changes go on, and tells what differs from the index.
//! The first one, to a standby of which nothing is known, finds everything different: that is the
//! snapshot. After a loss it finds what the loss hid, and nothing else is sent. From time to time
//! it looks whether anything escaped (and how long entries live by now).
//!
//! *A change after a scan's entry* is no problem: it is applied after it. *A change before it*,
//! whose entry was read from the table still earlier, would be undone by it. That can happen only
//! to entries that changed between the reading of a chunk and its arrival here, so the sender
//! remembers the keys of changes since the chunk before the last one arrived and leaves those
//! entries out of the chunk ([`SenderInput::ScanChunk`] says what the driver has to keep). They are
//! not missing: the change itself told the receiver.
//!
//! Every entry that is sent while a loss is not repaired replaces what the receiver has instead of
//! updating it, since the loss may have hidden the end of one connection and the begin of another.
//! For the same reason no change from before the loss may follow it: it would keep newer entries
//! out of the scan.
//!
//! So the last word on each key is the source's last word on it.
//!
//! *The standby's own table* may lose entries (it ran full, one expired), hold more than it was
//! told, or hold them otherwise (somebody changed them there). So the receiver sweeps: it compares
//! every entry of its table with the index, deletes what the index does not know, and asks for what
//! is not there or not as it was told, entry by entry. *The sums of the buckets* travel in the stream,
//! so they are compared at the same position of it: should the two indexes differ, a bucket is asked
//! for again. A sweep begins within 20 s of the last one, a scan within 25, a repair within 10: as long as
//! reading a table takes less than 10 s (some million entries), nothing that differs stays so for a minute.

pub mod class;
mod index;
mod receiver;
mod sender;
pub mod wire;

#[cfg(test)]
mod tests;

pub use index::BUCKETS;
pub use receiver::{
    OUTSTANDING_BYTES_MAX, Receiver, ReceiverAction, ReceiverInput, ReceiverStatus, Ticket,
    Watermark,
};
pub use sender::{Limits, Sender, SenderAction, SenderInput, SenderStatus, UNACKED_BYTES_MAX};

use bytes::{Bytes, BytesMut};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 2 * 1024;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is found by; at most [`KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// Everything else that lasts; at most [`VALUE_BYTES_MAX`] bytes.
    pub value: Bytes,
    /// Seconds until it expires, as things are now; 0: never.
    pub ttl_s: u32,
}

/// A change of the source's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An entry appeared, or changed.
    Put {
        /// The entry with everything needed to create it.
        item: Item,
        /// It appeared: whatever the standby has under its key is of another life.
        is_new: bool,
    },
    /// An entry is gone.
    Delete {
        /// Its key.
        key: Bytes,
    },
}

/// What a machine wants done.
#[derive(Debug)]
pub struct Effects<A> {
    /// Bytes for the peer, in order.
    pub outgoing: BytesMut,
    /// Everything else, in order. Of the two, either may be done first, except where an action
    /// says otherwise.
    pub actions: Vec<A>,
}

impl<A> Default for Effects<A> {
    fn default() -> Self {
        Self {
            outgoing: BytesMut::new(),
            actions: Vec::new(),
        }
    }
}
