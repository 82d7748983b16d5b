//! The standby's end of the stream.

use std::collections::VecDeque;

use bytes::Bytes;
use vnfpool_model::Time;

use crate::Effects;
use crate::wire::{Body, Frame, Refusal, VERSION, WireError};

/// Most bytes of frames that are received and not yet applied: twice what a sender allows itself.
pub const OUTSTANDING_BYTES_MAX: usize = 2 * crate::sender::UNACKED_BYTES_MAX;

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
    /// An action could not be carried out: the copy is incomplete, the session is over.
    ApplyFailed,
    /// The element's view of the slot.
    Epoch {
        /// Its newest epoch (`Epoch::fencing_token`).
        token: u64,
        /// Whether state is taken: in this epoch the element at the other end of the stream is
        /// the active, and this one is not.
        accepts: bool,
    },
}

/// What the driver of a receiver has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiverAction {
    /// A snapshot begins: note from now on which entries are written.
    BeginGeneration {
        /// Ticket to give back.
        ticket: Ticket,
        /// The snapshot.
        generation: u32,
    },
    /// Write an entry.
    Upsert {
        /// Ticket to give back.
        ticket: Ticket,
        /// It should not exist yet; replace what is in its place.
        is_new: bool,
        /// The entry.
        entry: Bytes,
    },
    /// Delete an entry.
    Delete {
        /// Ticket to give back.
        ticket: Ticket,
        /// Its key.
        key: Bytes,
    },
    /// The snapshot is complete: delete the entries that were not written since it began.
    RemoveOthers {
        /// Ticket to give back.
        ticket: Ticket,
        /// The snapshot.
        generation: u32,
    },
    /// Somebody waits: carry out everything so far and give the ticket back.
    Flush {
        /// Ticket to give back.
        ticket: Ticket,
    },
    /// Close the stream, after what is in [`Effects::outgoing`] was sent.
    Close {
        /// Why.
        reason: Refusal,
    },
    /// The copy became complete, or ceased to be.
    InSync(bool),
}

/// Names an action. Later tickets of a session are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    session: u64,
    sequence: u64,
}

/// Figures of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverStatus {
    /// Newest epoch known.
    pub epoch: u64,
    /// Snapshot that is under way or was the last.
    pub generation: u32,
    /// Sequence of the last frame received in this session.
    pub received: u64,
    /// Sequence up to which everything is applied: the watermark of a failover.
    pub applied: u64,
    /// Bytes received and not applied.
    pub outstanding_bytes: usize,
    /// Whether a complete snapshot and all changes up to `applied` are there.
    pub in_sync: bool,
    /// Upserts and deletions received since the start.
    pub operations: u64,
    /// Streams refused since the start.
    pub refused: u64,
}

/// The standby's machine: checks that the stream has no gap and comes from the right epoch, hands
/// on what is to be written, acknowledges what is written.
///
/// A stream has to begin with an epoch at least as new as the newest known here when it was opened,
/// and never goes back. It may lag behind an epoch learnt here in which its sender is still the active (a standby
/// was armed, say): what it carries is still the word of the only active.
///
/// ```text
///            Connected                  begin applied…end applied
/// (closed) ------------> waiting for ----------------------------> in sync --+
///    ^                  SnapshotBegin <------ SnapshotBegin(resync) ----------+
///    +---- Disconnected, any refusal, not standby any more
/// ```
#[derive(Debug, Default)]
pub struct Receiver {
    status: ReceiverStatus,
    refuses: bool,
    /// Oldest epoch that the stream's next frame may have.
    stream_epoch: u64,
    session: u64,
    open: bool,
    /// Upserts of the snapshot under way; none before the first begin and after an end.
    snapshot: Option<u64>,
    began: bool,
    /// Sequence of the end of a snapshot, until applied.
    end: Option<u64>,
    /// Bytes per frame not yet applied, in order, the last one having sequence `received`.
    outstanding: VecDeque<usize>,
    barriers: VecDeque<(u64, u64)>,
}

impl Receiver {
    /// A receiver that knows no epoch and accepts streams.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an input; never fails on what a peer sent.
    pub fn handle(&mut self, _now: Time, input: ReceiverInput, out: &mut Effects<ReceiverAction>) {
        match input {
            ReceiverInput::Connected => self.connected(out),
            ReceiverInput::Disconnected => self.close(out),
            ReceiverInput::Frame(frame) => {
                if self.open
                    && let Err(reason) = self.frame(frame, out)
                {
                    self.refuse(reason, out);
                }
            }
            ReceiverInput::Malformed(error) => {
                let reason = match error {
                    WireError::Version { .. } => Refusal::Version,
                    _ => Refusal::Malformed,
                };
                self.refuse(reason, out);
            }
            ReceiverInput::Applied(ticket) => self.applied(ticket, out),
            ReceiverInput::ApplyFailed => self.refuse(Refusal::Failed, out),
            ReceiverInput::Epoch { token, accepts } => self.epoch(token, accepts, out),
        }
    }

    /// Figures as they are now.
    #[must_use]
    pub const fn status(&self) -> ReceiverStatus {
        self.status
    }

    fn connected(&mut self, out: &mut Effects<ReceiverAction>) {
        self.close(out);
        self.session += 1;
        self.open = true;
        self.stream_epoch = self.status.epoch;
        self.status.received = 0;
        self.status.applied = 0;
    }

    fn close(&mut self, out: &mut Effects<ReceiverAction>) {
        self.open = false;
        self.began = false;
        self.snapshot = None;
        self.end = None;
        self.outstanding.clear();
        self.status.outstanding_bytes = 0;
        self.barriers.clear();
        self.in_sync(false, out);
    }

    fn refuse(&mut self, reason: Refusal, out: &mut Effects<ReceiverAction>) {
        if !self.open {
            return;
        }
        self.status.refused += 1;
        let version = VERSION;
        self.send(0, Body::Refused { reason, version }, out);
        self.close(out);
        out.actions.push(ReceiverAction::Close { reason });
    }

    fn epoch(&mut self, token: u64, accepts: bool, out: &mut Effects<ReceiverAction>) {
        if token < self.status.epoch {
            return;
        }
        self.status.epoch = token;
        self.refuses = !accepts;
        if self.refuses {
            self.refuse(Refusal::Role, out);
        }
    }

    fn frame(&mut self, frame: Frame, out: &mut Effects<ReceiverAction>) -> Result<(), Refusal> {
        if self.refuses {
            return Err(Refusal::Role);
        }
        if frame.epoch < self.stream_epoch {
            return Err(Refusal::OldEpoch);
        }
        self.stream_epoch = frame.epoch;
        self.status.epoch = self.status.epoch.max(frame.epoch);
        self.follows(&frame)?;
        let bytes = frame.wire_bytes();
        self.status.outstanding_bytes += bytes;
        if self.status.outstanding_bytes > OUTSTANDING_BYTES_MAX {
            return Err(Refusal::Overload);
        }
        self.outstanding.push_back(bytes);
        self.status.received = frame.sequence;
        let ticket = Ticket {
            session: self.session,
            sequence: frame.sequence,
        };
        self.body(frame, ticket, out)
    }

    /// Checks that `frame` is the one that comes next.
    fn follows(&self, frame: &Frame) -> Result<(), Refusal> {
        let begins = matches!(frame.body, Body::SnapshotBegin { .. });
        let sequence_follows = if self.began {
            Some(frame.sequence) == self.status.received.checked_add(1)
        } else {
            begins && frame.sequence > 0
        };
        let generation_follows = begins || frame.generation == self.status.generation;
        if sequence_follows && generation_follows {
            Ok(())
        } else {
            Err(Refusal::Gap)
        }
    }

    fn body(
        &mut self,
        frame: Frame,
        ticket: Ticket,
        out: &mut Effects<ReceiverAction>,
    ) -> Result<(), Refusal> {
        let generation = frame.generation;
        let action = match frame.body {
            Body::SnapshotBegin { resync } => {
                if !self.began {
                    self.status.applied = ticket.sequence - 1;
                }
                self.began = true;
                self.snapshot = Some(0);
                self.end = None;
                self.status.generation = generation;
                if resync {
                    self.in_sync(false, out);
                }
                ReceiverAction::BeginGeneration { ticket, generation }
            }
            Body::Upsert {
                is_new,
                from_snapshot,
                entry,
            } => {
                if from_snapshot {
                    *self.snapshot.as_mut().ok_or(Refusal::Gap)? += 1;
                }
                self.status.operations += 1;
                ReceiverAction::Upsert {
                    ticket,
                    is_new,
                    entry,
                }
            }
            Body::Delete { key } => {
                self.status.operations += 1;
                ReceiverAction::Delete { ticket, key }
            }
            Body::SnapshotEnd { count } => {
                if self.snapshot.take() != Some(count) {
                    return Err(Refusal::Gap);
                }
                self.end = Some(ticket.sequence);
                ReceiverAction::RemoveOthers { ticket, generation }
            }
            Body::Barrier { id } => {
                self.barriers.push_back((ticket.sequence, id));
                ReceiverAction::Flush { ticket }
            }
            Body::Ack | Body::BarrierDone { .. } | Body::Refused { .. } => {
                return Err(Refusal::Malformed);
            }
        };
        out.actions.push(action);
        Ok(())
    }

    fn applied(&mut self, ticket: Ticket, out: &mut Effects<ReceiverAction>) {
        let sequence = ticket.sequence.min(self.status.received);
        if !self.open || ticket.session != self.session || sequence <= self.status.applied {
            return;
        }
        let left = usize::try_from(self.status.received - sequence).unwrap_or(usize::MAX);
        let done = self.outstanding.len().saturating_sub(left);
        let bytes: usize = self.outstanding.drain(..done).sum();
        self.status.outstanding_bytes -= bytes;
        self.status.applied = sequence;
        self.send(sequence, Body::Ack, out);
        while let Some((_, id)) = self.barriers.pop_front_if(|(at, _)| *at <= sequence) {
            self.send(sequence, Body::BarrierDone { id }, out);
        }
        if self.end.take_if(|end| *end <= sequence).is_some() {
            self.in_sync(true, out);
        }
    }

    fn in_sync(&mut self, in_sync: bool, out: &mut Effects<ReceiverAction>) {
        if self.status.in_sync != in_sync {
            self.status.in_sync = in_sync;
            out.actions.push(ReceiverAction::InSync(in_sync));
        }
    }

    fn send(&self, sequence: u64, body: Body, out: &mut Effects<ReceiverAction>) {
        let frame = Frame {
            epoch: self.status.epoch,
            generation: self.status.generation,
            sequence,
            body,
        };
        frame.encode(&mut out.outgoing);
    }
}
