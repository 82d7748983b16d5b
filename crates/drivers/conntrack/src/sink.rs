//! The standby's side: the stream's operations, carried out in the kernel.

use std::collections::HashSet;

use vnfpool_statesync::{ReceiverAction, Ticket};

use crate::codec::{self, DecodeError};
use crate::dump::{Dump, DumpProgress, Family};
use crate::entry::ProtocolState;
use crate::inject::{Failure, InjectStats, Injector};
use crate::netlink::socket::NetlinkError;
use crate::scope::Scope;
use crate::tuple::Key;

/// An operation of the stream could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The peer sent something that is no entry or key.
    #[error("cannot apply replicated state: {0}")]
    Decode(#[from] DecodeError),
    /// The kernel could not be reached.
    #[error("cannot apply replicated state: {0}")]
    Netlink(#[from] NetlinkError),
}

/// Applies replicated connections to the kernel of the calling thread's network namespace, in the
/// order in which they come.
///
/// Calls between [`Sink::begin_generation`] and [`Sink::remove_others`] also note which
/// connections the active still has, so that the rest can be removed.
#[derive(Debug)]
pub struct Sink {
    injector: Injector,
    generation: Option<(u32, HashSet<Key>)>,
}

impl Sink {
    /// Opens the kernel's table.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            injector: Injector::open()?,
            generation: None,
        })
    }

    /// Carries out an action of the receiver's machine, within `scope` where it deletes what the
    /// active did not mention. Returns the ticket that may be given back as applied after the next
    /// [`Sink::flush`]; none for actions that are not the sink's.
    ///
    /// # Errors
    /// [`SinkError`]: tell the machine `ApplyFailed`.
    pub fn apply(
        &mut self,
        action: &ReceiverAction,
        scope: &Scope,
    ) -> Result<Option<Ticket>, SinkError> {
        let ticket = match action {
            ReceiverAction::BeginGeneration { ticket, generation } => {
                self.begin_generation(*generation);
                ticket
            }
            ReceiverAction::Upsert {
                ticket,
                is_new,
                entry,
            } => {
                self.upsert(entry, *is_new)?;
                ticket
            }
            ReceiverAction::Delete { ticket, key } => {
                self.delete(key)?;
                ticket
            }
            ReceiverAction::RemoveOthers { ticket, generation } => {
                self.remove_others(*generation, scope)?;
                ticket
            }
            ReceiverAction::Flush { ticket } => ticket,
            _ => return Ok(None),
        };
        Ok(Some(*ticket))
    }

    /// A snapshot begins; one that was under way is given up.
    pub fn begin_generation(&mut self, generation: u32) {
        self.generation = Some((generation, HashSet::new()));
    }

    /// Queues the entry encoded in `bytes`; `is_new` as in [`Injector::upsert`].
    ///
    /// # Errors
    /// [`SinkError::Decode`] leaves everything as it was.
    pub fn upsert(&mut self, bytes: &[u8], is_new: bool) -> Result<(), SinkError> {
        let mut entry = codec::decode_entry(bytes)?;
        // This kernel sees none of its packets before it takes over.
        if let ProtocolState::Tcp(tcp) = &mut entry.state {
            *tcp = tcp.learning();
        }
        if let Some((_, touched)) = &mut self.generation {
            touched.insert(entry.key);
        }
        Ok(self.injector.upsert(entry, is_new)?)
    }

    /// Queues the deletion of the connection whose key is encoded in `bytes`.
    ///
    /// # Errors
    /// [`SinkError::Decode`] leaves everything as it was.
    pub fn delete(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let key = codec::decode_key(bytes)?;
        if let Some((_, touched)) = &mut self.generation {
            touched.remove(&key);
        }
        Ok(self.injector.delete(key)?)
    }

    /// Brings everything queued into the kernel. After it, all that was queued before may be
    /// acknowledged.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be reached: open another sink and start over.
    pub fn flush(&mut self) -> Result<Vec<Failure>, NetlinkError> {
        self.injector.flush()
    }

    /// The snapshot of `generation` is complete: deletes the connections within `scope` that were
    /// not in it and flushes. Returns how many; none if the generation is not the one begun.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be reached. The generation stays open.
    pub fn remove_others(&mut self, generation: u32, scope: &Scope) -> Result<usize, NetlinkError> {
        self.injector.flush()?;
        let Some((_, touched)) = self
            .generation
            .take_if(|(current, _)| *current == generation)
        else {
            return Ok(0);
        };
        let mut removed = 0;
        let mut dump = Dump::start(Family::All)?;
        let mut chunk = Vec::new();
        loop {
            let progress = dump.next_chunk(&mut chunk)?;
            for entry in chunk.drain(..) {
                if !touched.contains(&entry.key) && scope.covers(&entry) {
                    self.injector.delete(entry.key)?;
                    removed += 1;
                }
            }
            if progress == DumpProgress::Done {
                break;
            }
        }
        self.injector.flush()?;
        Ok(removed)
    }

    /// The netlink port that events bear which this sink causes: for [`crate::Source::ignore`].
    ///
    /// # Errors
    /// As [`Injector::port`].
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.injector.port()
    }

    /// What was done so far.
    #[must_use]
    pub const fn stats(&self) -> InjectStats {
        self.injector.stats()
    }
}
