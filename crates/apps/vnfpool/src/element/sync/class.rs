//! What replication needs of a class of state: a source on the active, a sink on the standby.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use vnfpool_conntrack::{EVENT_BUFFER_BYTES, EventSourceKind, ReadOutcome, Scope};
use vnfpool_model::{SlotId, StateLevel, StateSpec, Time};
use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level, Offer};
use vnfpool_statesync::{ReceiverAction, ReceiverInput, SenderInput, Ticket};

use super::holding::{Holding, HoldingFigures};
use super::standing::EventsBy;

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

    /// The next chunk of the reading; none without one, or when it is not there yet: then
    /// [`Source::as_fd`] is readable when it is.
    fn read_chunk(&mut self) -> anyhow::Result<Option<SenderInput>>;

    /// Whether the standby has everything that was given before the barrier; if not, that will
    /// not be known.
    fn reached(&mut self, _barrier: u64, _yes: bool) {}

    /// The standby came into sync, or fell out of it.
    fn in_sync(&mut self, _yes: bool) {}

    /// When [`Source::read`] has something to do without a change.
    fn deadline(&self) -> Option<Time> {
        None
    }

    /// Whether somebody waits for what the standby acknowledges.
    fn is_urgent(&self) -> bool {
        false
    }

    /// Called before each wait for the descriptors; true if there is something to read already.
    fn arm(&mut self) -> bool {
        false
    }

    /// Readable when changes wait.
    fn as_fd(&self) -> BorrowedFd<'_>;

    /// Another descriptor, readable when something else waits to be read.
    fn other_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// How holding first packets goes, where that is done.
    fn holding(&self) -> Option<HoldingFigures> {
        None
    }

    /// Why first packets are not held, where they were to be.
    fn unheld(&self) -> Option<Arc<str>> {
        None
    }

    /// How changes come from the kernel, where they come from there.
    fn events(&self) -> Option<EventsBy> {
        None
    }
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

    /// The next part of the sweep under way; none without one, or when it is not there yet.
    fn read_sweep(&mut self) -> anyhow::Result<Option<ReceiverInput>>;

    /// Whether a sweep is under way.
    fn sweeps(&self) -> bool;

    /// Readable when the next part of the sweep is there, where that takes a while.
    fn sweep_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
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
    /// The kernel's connections within `scope`, as the pool wants them replicated.
    pub(crate) fn conntrack(scope: Scope, spec: StateSpec) -> Self {
        let bounds = Bounds {
            lag_ms: spec.lag_ms,
            entries: spec.entries,
        };
        let level = match spec.connections {
            StateLevel::None => Level::None,
            StateLevel::Eventual => Level::Eventual,
            StateLevel::Bounded => Level::Bounded(bounds),
            StateLevel::Commit => Level::Commit(bounds),
        };
        let wait_max = Duration::from_millis(spec.commit_wait_ms.into());
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
        // What the sink beside a source does (for another slot) is no change of the source's.
        let port = Arc::new(AtomicU32::new(0));
        let port_of_sink = Arc::clone(&port);
        Self {
            demand,
            accepts_less: spec.accept_less,
            offer,
            open_source: Arc::new(move |slot| {
                let source = vnfpool_conntrack::Source::open(scope.clone(), EVENT_BUFFER_BYTES)?;
                tell_fallback(slot, &source);
                let (holding, unheld) = match level {
                    Level::Commit(_) => hold(slot, wait_max),
                    Level::None | Level::Eventual | Level::Bounded(_) => (None, None),
                };
                Ok(Box::new(Connections {
                    source,
                    port: Arc::clone(&port),
                    holding,
                    unheld,
                }))
            }),
            open_sink: Arc::new(move |_| {
                let sink = vnfpool_conntrack::Sink::open(of_sink.clone())?;
                port_of_sink.store(sink.port()?, Ordering::Relaxed);
                Ok(Box::new(sink))
            }),
        }
    }

    pub(crate) const fn name(&self) -> &ClassName {
        &self.demand.class
    }

    /// Whether it goes to a standby; connections only if this element `keeps_connections`.
    pub(super) fn is_sent(&self, keeps_connections: bool) -> bool {
        let is_kept = keeps_connections || *self.name() != ClassName::conntrack();
        is_kept && self.demand.level != Level::None
    }
}

/// Begins to hold first packets; without that the level is `bounded`, and this says why.
fn hold(slot: SlotId, wait_max: Duration) -> (Option<Holding>, Option<Arc<str>>) {
    match Holding::open(slot, wait_max) {
        Ok(holding) => (Some(holding), None),
        Err(error) => {
            tracing::error!(%slot, "commit is not to be had, first packets do not wait for the successor: {error}");
            (None, Some(error.to_string().into()))
        }
    }
}

/// Events that come in another way than the preferred one cost the kernel more.
fn tell_fallback(slot: SlotId, source: &vnfpool_conntrack::Source) {
    if let Some(reason) = source.events().fallback_reason() {
        tracing::warn!(%slot, "the kernel's events come through a netlink socket, at a higher cost, since there is no ring: {reason}");
    }
}

/// The kernel's connections, but for what the sink with the netlink port `port` (0: none) does.
struct Connections {
    source: vnfpool_conntrack::Source,
    port: Arc<AtomicU32>,
    holding: Option<Holding>,
    unheld: Option<Arc<str>>,
}

impl Connections {
    /// Does something with what holds first packets. If it fails they pass: better than nothing
    /// going on.
    fn with_holding<T>(
        &mut self,
        act: impl FnOnce(&mut Holding) -> anyhow::Result<T>,
    ) -> Option<T> {
        let done = act(self.holding.as_mut()?);
        done.inspect_err(|error| {
            tracing::error!("first packets are not held any more: {error:#}");
            self.holding = None;
            self.unheld = Some(format!("{error:#}").into());
        })
        .ok()
    }
}

impl Source for Connections {
    fn read(&mut self, out: &mut Vec<SenderInput>) -> anyhow::Result<ReadOutcome> {
        match self.port.load(Ordering::Relaxed) {
            0 => {}
            port => self.source.ignore(port),
        }
        let outcome = self.source.read(out)?;
        self.with_holding(|holding| holding.read(out));
        Ok(outcome)
    }

    fn start_scan(&mut self, generation: u32) -> anyhow::Result<()> {
        Ok(self.source.start_scan(generation)?)
    }

    fn abort_scan(&mut self) {
        self.source.abort_scan();
    }

    fn read_chunk(&mut self) -> anyhow::Result<Option<SenderInput>> {
        Ok(self.source.read_chunk()?)
    }

    fn reached(&mut self, barrier: u64, yes: bool) {
        self.with_holding(|holding| holding.reached(barrier, yes));
    }

    fn in_sync(&mut self, yes: bool) {
        self.with_holding(|holding| holding.successor(yes));
    }

    fn deadline(&self) -> Option<Time> {
        self.holding.as_ref()?.deadline()
    }

    fn is_urgent(&self) -> bool {
        self.holding.as_ref().is_some_and(Holding::is_waiting)
    }

    fn arm(&mut self) -> bool {
        self.with_holding(Holding::arm).unwrap_or_default()
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.source)
    }

    fn other_fd(&self) -> Option<BorrowedFd<'_>> {
        self.holding.as_ref().map(Holding::as_fd)
    }

    fn holding(&self) -> Option<HoldingFigures> {
        self.holding.as_ref().map(Holding::figures)
    }

    fn unheld(&self) -> Option<Arc<str>> {
        self.unheld.clone()
    }

    fn events(&self) -> Option<EventsBy> {
        let events = self.source.events();
        let kind = match events.kind() {
            EventSourceKind::Ring => "ring",
            EventSourceKind::Netlink => "netlink",
        };
        let reason = events.fallback_reason();
        Some(EventsBy {
            kind,
            fallback_reason: reason.map(ToString::to_string),
        })
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

    fn sweep_fd(&self) -> Option<BorrowedFd<'_>> {
        Self::sweep_fd(self)
    }
}
