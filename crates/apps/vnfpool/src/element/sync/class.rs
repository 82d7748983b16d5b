//! What replication needs of a class of state: a source on the active, a sink on the standby.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;
use vnfpool_conntrack::{EVENT_BUFFER_BYTES, ReadOutcome, Scope};
use vnfpool_model::SlotId;
use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level, Offer};
use vnfpool_statesync::{ReceiverAction, ReceiverInput, SenderInput, Ticket};

/// The table of a class on the active. Lives in the thread of one stream.
///
/// Everything that it gives has to reach the machine in the order in which it gave it
/// ([`SenderInput::ScanChunk`], [`SenderInput::Overrun`]).
pub(crate) trait Source {
    /// Appends changes that wait; never blocks. [`SenderInput::Barrier`] among them with a number
    /// below [`OWN_BARRIERS`] is answered by [`Source::reached`].
    fn read(&mut self, out: &mut Vec<SenderInput>) -> anyhow::Result<ReadOutcome>;

    /// Begins to read the whole table; a reading under way is dropped.
    fn start_scan(&mut self, generation: u32) -> anyhow::Result<()>;

    /// Drops the reading under way.
    fn abort_scan(&mut self);

    /// The next chunk of the reading; none without one.
    fn read_chunk(&mut self) -> anyhow::Result<Option<SenderInput>>;

    /// Whether the standby has everything that was given before the barrier; if not, that will
    /// not be known.
    fn reached(&mut self, _barrier: u64, _yes: bool) {}

    /// Readable when changes wait.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

/// Barriers of a source are below this, those of the thread that feeds the machine are not.
pub(crate) const OWN_BARRIERS: u64 = 1 << 63;

/// The table of a class on a standby. Lives in the thread of one stream.
pub(crate) trait Sink {
    /// Carries out an action of the machine; gives the ticket that counts as applied after the next
    /// [`Sink::flush`].
    fn apply(&mut self, action: &ReceiverAction) -> anyhow::Result<Option<Ticket>>;

    /// Brings everything so far into the table.
    fn flush(&mut self) -> anyhow::Result<()>;

    /// Keys of entries that could not be written since the last call, and why.
    fn take_failures(&mut self) -> Vec<(Bytes, String)>;

    /// The next part of the sweep under way; none without one.
    fn read_sweep(&mut self) -> anyhow::Result<Option<ReceiverInput>>;

    /// Whether a sweep is under way.
    fn sweeps(&self) -> bool;
}

type OpenSource = dyn Fn(SlotId) -> anyhow::Result<Box<dyn Source>> + Send + Sync;
type OpenSink = dyn Fn(SlotId) -> anyhow::Result<Box<dyn Sink>> + Send + Sync;

/// A class of state of this element's function.
#[derive(Clone)]
pub(crate) struct Class {
    /// What is sent, and at what level the pool wants it held.
    pub(crate) demand: Demand,
    /// Whether a standby that can only do less will do.
    pub(crate) accepts_less: bool,
    /// What this element can do as a standby.
    pub(crate) offer: Offer,
    /// Called in the thread of the stream, with its slot.
    pub(crate) open_source: Arc<OpenSource>,
    /// Called in the thread of the stream, with its slot.
    pub(crate) open_sink: Arc<OpenSink>,
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Class")
            .field("demand", &self.demand)
            .finish_non_exhaustive()
    }
}

/// The format of connections (`vnfpool_conntrack::codec`).
const CONNTRACK_FORMAT: u16 = 1;
/// What is in it.
const CONNTRACK_SCHEMA: u16 = 1;

impl Class {
    /// The kernel's connections within `scope`, at `level`.
    pub(crate) fn conntrack(scope: Scope, level: Level) -> Self {
        let demand = Demand {
            class: ClassName::conntrack(),
            format: CONNTRACK_FORMAT,
            schema: CONNTRACK_SCHEMA,
            level,
        };
        let offer = Offer {
            class: ClassName::conntrack(),
            format: CONNTRACK_FORMAT,
            schema: CONNTRACK_SCHEMA,
            level: Level::Commit(Bounds::DEFAULT),
        };
        let of_sink = scope.clone();
        Self {
            demand,
            accepts_less: false,
            offer,
            open_source: Arc::new(move |_| {
                let source = vnfpool_conntrack::Source::open(scope.clone(), EVENT_BUFFER_BYTES)?;
                Ok(Box::new(source))
            }),
            open_sink: Arc::new(move |_| {
                let sink = vnfpool_conntrack::Sink::open(of_sink.clone())?;
                Ok(Box::new(sink))
            }),
        }
    }

    pub(crate) const fn name(&self) -> &ClassName {
        &self.demand.class
    }
}

impl Source for vnfpool_conntrack::Source {
    fn read(&mut self, out: &mut Vec<SenderInput>) -> anyhow::Result<ReadOutcome> {
        Ok(Self::read(self, out)?)
    }

    fn start_scan(&mut self, generation: u32) -> anyhow::Result<()> {
        Ok(Self::start_scan(self, generation)?)
    }

    fn abort_scan(&mut self) {
        Self::abort_scan(self);
    }

    fn read_chunk(&mut self) -> anyhow::Result<Option<SenderInput>> {
        Ok(Self::read_chunk(self)?)
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(self)
    }
}

impl Sink for vnfpool_conntrack::Sink {
    fn apply(&mut self, action: &ReceiverAction) -> anyhow::Result<Option<Ticket>> {
        Ok(Self::apply(self, action)?)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        Ok(Self::flush(self)?)
    }

    fn take_failures(&mut self) -> Vec<(Bytes, String)> {
        let failures = Self::take_failures(self).into_iter();
        failures
            .map(|(key, failure)| (key, failure.to_string()))
            .collect()
    }

    fn read_sweep(&mut self) -> anyhow::Result<Option<ReceiverInput>> {
        Ok(Self::read_sweep(self)?)
    }

    fn sweeps(&self) -> bool {
        Self::sweeps(self)
    }
}
