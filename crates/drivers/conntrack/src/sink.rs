//! The standby's side: the stream's operations, carried out in the kernel.

use std::os::fd::{AsFd as _, BorrowedFd};

use bytes::{Bytes, BytesMut};
use vnfpool_statesync::{Item, ReceiverAction, ReceiverInput, Ticket};

use crate::codec::{self, DecodeError};
use crate::dump::DumpAhead;
use crate::entry::ProtocolState;
use crate::expectation::codec as expectations;
use crate::expectation::{
    Expectation, ExpectationInjectError, ExpectationInjector, decode_expectation_key,
    dump_expectations,
};
use crate::inject::{Failure, InjectStats, Injector};
use crate::netlink::socket::NetlinkError;
use crate::scope::Scope;

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

/// What the kernel refused to hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkFailure {
    /// A connection.
    #[error(transparent)]
    Connection(#[from] Failure),
    /// What a helper has agreed on.
    #[error(transparent)]
    Expectation(#[from] ExpectationInjectError),
    /// A connection of this machine's own, which is not the active's to write.
    #[error("the connection is this machine's own, not the function's")]
    Own,
    /// An expectation beyond those that wait for a flush.
    #[error("more than {EARLY_MAX} expectations came at once")]
    TooManyExpectations,
}

/// Expectations that wait for a flush at most.
const EARLY_MAX: usize = 1_024;

/// Applies replicated connections to the kernel of the calling thread's network namespace, in the
/// order in which they come.
#[derive(Debug)]
pub struct Sink {
    injector: Injector,
    scope: Scope,
    sweep: Option<(u16, DumpAhead)>,
    expected: ExpectationInjector,
    /// Expectations, which come after their masters: with the flush.
    early: Vec<(Bytes, Expectation)>,
    failures: Vec<(Bytes, SinkFailure)>,
    /// The machine's addresses were looked at since the last flush.
    has_looked: bool,
    buffer: BytesMut,
}

impl Sink {
    /// Opens the kernel's table, of which the connections within `scope` are the stream's.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(scope: Scope) -> Result<Self, NetlinkError> {
        Ok(Self {
            injector: Injector::open_with_assistant()?,
            scope,
            sweep: None,
            expected: ExpectationInjector::open()?,
            early: Vec::new(),
            failures: Vec::new(),
            has_looked: false,
            buffer: BytesMut::new(),
        })
    }

    /// Carries out an action of the receiver's machine. Returns the ticket that may be given back
    /// as applied after the next [`Sink::flush`]; none for actions that are not the sink's.
    ///
    /// # Errors
    /// [`SinkError`]: tell the machine `ApplyFailed`.
    pub fn apply(&mut self, action: &ReceiverAction) -> Result<Option<Ticket>, SinkError> {
        let ticket = match action {
            ReceiverAction::Put {
                ticket,
                is_new,
                item,
            } => {
                self.put(item, *is_new)?;
                ticket
            }
            ReceiverAction::Delete { ticket, key } => {
                self.delete(key)?;
                ticket
            }
            ReceiverAction::StartSweep { ticket, sweep } => {
                self.start_sweep(*sweep)?;
                ticket
            }
            ReceiverAction::Flush { ticket } => ticket,
            _ => return Ok(None),
        };
        Ok(Some(*ticket))
    }

    /// Queues an item; `is_new` as in [`Injector::upsert`].
    ///
    /// # Errors
    /// [`SinkError::Decode`] leaves everything as it was.
    pub fn put(&mut self, item: &Item, is_new: bool) -> Result<(), SinkError> {
        if expectations::is_expectation(&item.key) {
            let expectation = expectations::of_item(item)?;
            let key = item.key.clone();
            match self.early.len() < EARLY_MAX {
                true => self.early.push((key, expectation)),
                false => self.failures.push((key, SinkFailure::TooManyExpectations)),
            }
            return Ok(());
        }
        let mut entry = codec::entry(item)?;
        self.look()?;
        // Another machine may see it as well, on its way through: here it must not be touched.
        if !self.scope.covers(&entry) {
            self.failures.push((item.key.clone(), SinkFailure::Own));
            return Ok(());
        }
        // This kernel sees none of its packets before it takes over.
        if let ProtocolState::Tcp(tcp) = &mut entry.state {
            *tcp = tcp.learning();
        }
        Ok(self.injector.upsert(entry, is_new)?)
    }

    /// Queues the deletion of the connection whose key is encoded in `bytes`.
    ///
    /// # Errors
    /// [`SinkError::Decode`] leaves everything as it was.
    pub fn delete(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        if expectations::is_expectation(bytes) {
            let key = decode_expectation_key(bytes)?;
            self.early.retain(|(key, _)| key != bytes);
            if let Err(ExpectationInjectError::Netlink(error)) = self.expected.delete(&key) {
                return Err(error.into());
            }
            return Ok(());
        }
        let key = codec::decode_key(bytes)?;
        self.look()?;
        if self.scope.may_cover(&key) {
            self.injector.delete(key)?;
        }
        Ok(())
    }

    /// Takes in which addresses this machine has, once for all that reaches the kernel together.
    fn look(&mut self) -> Result<(), NetlinkError> {
        if !self.has_looked {
            self.scope.look()?;
            self.has_looked = true;
        }
        Ok(())
    }

    /// Begins to read everything within the scope, after what is queued has reached the
    /// kernel; a reading under way is dropped.
    ///
    /// # Errors
    /// As [`Sink::flush`] and [`crate::Dump::start`].
    pub fn start_sweep(&mut self, sweep: u16) -> Result<(), NetlinkError> {
        self.flush()?;
        self.sweep = Some((sweep, DumpAhead::start()?));
        Ok(())
    }

    /// The next part of the sweep under way; none without one, or if the kernel has not given it yet:
    /// [`Sink::sweep_fd`] says when it has.
    ///
    /// # Errors
    /// [`NetlinkError`]: the sweep is over then, and the machine has to be told `ApplyFailed`.
    pub fn read_sweep(&mut self) -> Result<Option<ReceiverInput>, NetlinkError> {
        let Some((sweep, dump)) = self.sweep.take() else {
            return Ok(None);
        };
        dump.silence().map_err(NetlinkError::Open)?;
        let Some(chunk) = dump.take()? else {
            self.sweep = Some((sweep, dump));
            return Ok(None);
        };
        let (mut entries, is_last) = (chunk.entries, chunk.is_last);
        self.sweep = Some((sweep, dump)).filter(|_| !is_last);
        // After what is judged was read: what is here by now includes the addresses of all of it.
        self.scope.look()?;
        entries.retain(|entry| self.scope.covers(entry));
        let items = entries
            .iter()
            .map(|entry| codec::item(entry, &mut self.buffer));
        let mut items: Vec<Item> = items.collect();
        if is_last {
            let mut expected = dump_expectations()?;
            expected.retain(|one| one.key.is_covered_by(&self.scope));
            items.extend(expected.iter().map(expectations::item));
        }
        Ok(Some(ReceiverInput::SweepChunk {
            sweep,
            items,
            is_last,
        }))
    }

    /// Whether a sweep is under way.
    #[must_use]
    pub const fn sweeps(&self) -> bool {
        self.sweep.is_some()
    }

    /// Readable when [`Sink::read_sweep`] has something; none without a sweep.
    #[must_use]
    pub fn sweep_fd(&self) -> Option<BorrowedFd<'_>> {
        self.sweep.as_ref().map(|(_, dump)| dump.as_fd())
    }

    /// Brings everything queued into the kernel. After it, all that was queued before may be
    /// acknowledged, but for what [`Sink::take_failures`] has.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be reached: open another sink and start over.
    pub fn flush(&mut self) -> Result<(), NetlinkError> {
        self.has_looked = false;
        for failure in self.injector.flush()? {
            let mut key = BytesMut::new();
            codec::encode_key(&failure.key, &mut key);
            self.failures.push((key.freeze(), failure.into()));
        }
        for (key, expectation) in std::mem::take(&mut self.early) {
            match self.expected.upsert(&expectation) {
                Ok(()) => {}
                Err(ExpectationInjectError::Netlink(error)) => return Err(error),
                Err(error) => self.failures.push((key, error.into())),
            }
        }
        Ok(())
    }

    /// What the kernel refused since the last call, each with its key for
    /// [`ReceiverInput::Unapplied`].
    pub fn take_failures(&mut self) -> Vec<(Bytes, SinkFailure)> {
        std::mem::take(&mut self.failures)
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
    pub fn stats(&self) -> InjectStats {
        self.injector.stats()
    }
}
