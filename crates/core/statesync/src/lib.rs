//! Replication of service state, as sans-IO machines: no clock, socket, task or randomness.
//!
//! One [`Sender`] per standby on the active, one [`Receiver`] on each standby, a reliable ordered
//! stream between them (it may break at any byte). Entries and keys are opaque bytes; the
//! [`wire`] module says how frames look.
//!
//! # Why the copy is right
//!
//! The source is a table that tells of every change after it was made, in order, or says that it
//! lost some ([`SenderInput::Overrun`]). A snapshot is read from the table in chunks while changes
//! go on, and both go into the same stream.
//!
//! *A change after a snapshot's entry* is no problem: it is applied after it. *A change before
//! it*, whose entry was read from the table still earlier, would be undone by it. That can happen
//! only to entries that changed between the reading of a chunk and its arrival here, so the sender
//! remembers the keys of changes since the chunk before the last one arrived and leaves those
//! entries out of the chunk ([`SenderInput::SnapshotChunk`] says what the driver has to keep).
//! They are not missing: the change itself told the receiver.
//!
//! After a loss everything begins anew with a snapshot, and every entry sent before its end
//! replaces what the receiver has instead of updating it, since the loss may have hidden the end of
//! one connection and the begin of another. For the same reason no change from before the loss may
//! follow it ([`SenderInput::Overrun`]): it would keep newer entries out of the snapshot.
//!
//! So the last word on each key is the source's last word on it. What the source has never
//! mentioned since the begin of the snapshot, the receiver deletes at its end.

mod receiver;
mod sender;
pub mod wire;

#[cfg(test)]
mod tests;

pub use receiver::{
    OUTSTANDING_BYTES_MAX, Receiver, ReceiverAction, ReceiverInput, ReceiverStatus, Ticket,
};
pub use sender::{
    Change, Limits, Sender, SenderAction, SenderInput, SenderStatus, UNACKED_BYTES_MAX,
};

use bytes::BytesMut;

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
