//! Service state between this element and its peers: who sends, who receives, in which epoch.
//!
//! ```text
//!  active                                                        standby
//!  source --changes--> state-out thread ==link, TLS on TCP==> state-in thread --> sink
//!                           ^                                      |
//!                           +---------- acknowledgements ----------+
//! ```
//!
//! The active sends to the armed standby, and to the candidate that the manager named: a stream per
//! standby and class of state. What a stream carries, and when a copy is complete, is decided by
//! the machines of `vnfpool-statesync`; the threads here feed them.

mod admission;
mod class;
mod copies;
mod holding;
mod lanes;
mod preface;
mod receiver;
mod sender;
mod settle;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::BytesMut;
use vnfpool_conntrack::Scope;
use vnfpool_heartbeat::Poller;
use vnfpool_model::{Incarnation, Role, SlotId, StateLevel, StateSpec, Time};
use vnfpool_statesync::class::{ClassName, Level};
use vnfpool_statesync::wire::{Body, Frame, Refusal, VERSION};
use vnfpool_statesync::{ReceiverStatus, Watermark};
use vnfpool_succession::element::{DRAIN_MAX, Input};
use vnfpool_transport::Identity;
use vnfpool_transport::PeerPolicy;
use vnfpool_transport::link::{self, Link};
use vnfpool_transport::pki::Credentials;
use vnfpool_transport::quic::Connection;
use vnfpool_wire::datagram::{Member, NodeId};

use super::pulse::{Pulse, SlotView};
use crate::pulse::now;
use admission::Admission;
pub(crate) use class::{Class, OWN_BARRIERS, Sink, Source};
use copies::Copies;
use lanes::{Lanes, Receiving, Sending};
pub(crate) use sender::Figures;
use settle::Settling;
pub(crate) use standing::{EventsBy, Known};

/// A stream may come before the record that says why; it waits for so long, in steps.
const RECORD_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(2));

/// All streams of this element.
#[derive(Debug)]
pub(crate) struct SyncHub {
    pulse: Pulse,
    incarnation: Incarnation,
    credentials: Credentials,
    scope: Scope,
    admission: Admission,
    undrained: Arc<AtomicU64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connections: StateSpec,
    /// The pool has several slots. The kernel has one table for all of them, and an element that
    /// served one and stood by for another would take the one's connections for the other's.
    is_divided: bool,
    classes: BTreeMap<ClassName, Class>,
    slots: BTreeMap<SlotId, Lanes>,
    settling: Settling,
}

impl State {
    /// Whether connections can be replicated: only where all that the kernel has is of one slot.
    fn keeps_connections(&self) -> bool {
        !self.is_divided && self.slots.len() <= 1
    }

    /// The classes that go to a standby.
    fn sent(&self) -> impl Iterator<Item = &Class> {
        let keeps_connections = self.keeps_connections();
        let classes = self.classes.values();
        classes.filter(move |class| class.is_sent(keeps_connections))
    }
}

/// Figures of a slot's replication, by stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct SyncFigures {
    pub(crate) sending: Vec<(NodeId, ClassName, Figures)>,
    pub(crate) receiving: Vec<(ClassName, ReceiverStatus)>,
}

/// How a class of state of a slot is replicated by its active.
#[derive(Clone, Debug)]
pub(crate) struct ClassStanding {
    pub(crate) class: ClassName,
    pub(crate) demanded: Level,
    /// To whom; none while there is nobody.
    pub(crate) standby: Option<NodeId>,
    pub(crate) known: Known,
    /// Of the stream, while there is one.
    pub(crate) figures: Option<Figures>,
}

impl SyncFigures {
    /// Whether every stream that there is keeps a copy in sync, and there is one.
    pub(crate) fn in_sync(&self) -> bool {
        let sending = self.sending.iter().map(|(_, _, of)| of.stream.in_sync);
        let receiving = self.receiving.iter().map(|(_, status)| status.in_sync);
        let mut all = sending.chain(receiving).peekable();
        all.peek().is_some() && all.all(|in_sync| in_sync)
    }

    /// Records sent and not acknowledged, in the stream that is most behind.
    pub(crate) fn lag_records(&self) -> u64 {
        let lags = self.sending.iter().map(|(_, _, of)| of.stream.lag_records);
        lags.max().unwrap_or_default()
    }

    /// Age of the oldest of them.
    pub(crate) fn lag(&self, at: Time) -> Duration {
        let lags = self.sending.iter().map(|(_, _, of)| of.stream.lag(at));
        lags.max().unwrap_or_default()
    }
}

impl SyncHub {
    /// Nothing is sent or received yet. The connections within `scope` are the function's.
    pub(crate) fn new(
        pulse: Pulse,
        incarnation: Incarnation,
        credentials: Credentials,
        scope: Scope,
    ) -> Self {
        let connections = Class::conntrack(scope.clone(), StateSpec::DEFAULT);
        Self {
            pulse,
            incarnation,
            credentials,
            scope,
            admission: Admission::default(),
            undrained: Arc::default(),
            state: Mutex::new(State {
                connections: StateSpec::DEFAULT,
                is_divided: false,
                classes: BTreeMap::from([(connections.name().clone(), connections)]),
                slots: BTreeMap::new(),
                settling: Settling::default(),
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes<'s>(&self, state: &'s mut State, slot: SlotId) -> &'s mut Lanes {
        let lanes = || Lanes::new(Copies::new(slot, self.pulse.clone()));
        state.slots.entry(slot).or_insert_with(lanes)
    }

    /// How the pool wants connections replicated; their streams begin anew if that is news. Of a
    /// pool with several slots (no file may ask for that, an older manager may) there are none.
    pub(crate) fn demand(&self, spec: StateSpec, slots: usize) {
        let mut state = self.state();
        let is_divided = slots > 1;
        let was_divided = std::mem::replace(&mut state.is_divided, is_divided);
        if is_divided && !was_divided && spec.connections != StateLevel::None {
            tracing::error!(
                slots,
                "connections are not replicated: the pool has several slots, whose connections \
                 cannot be told apart in one kernel; divide it into pools with elements of their \
                 own, or set connections = \"none\" in its file"
            );
        }
        if std::mem::replace(&mut state.connections, spec) != spec {
            let class = Class::conntrack(self.scope.clone(), spec);
            state.classes.insert(class.name().clone(), class);
        }
    }

    /// Replaces the classes of the function beside this agent, whose kernel's classes stay.
    pub(crate) fn set_function_classes(&self, news: Vec<Class>) {
        let mut state = self.state();
        state
            .classes
            .retain(|name, _| *name == ClassName::conntrack());
        let news = news.into_iter().map(|one| (one.name().clone(), one));
        state.classes.extend(news);
    }

    /// Whom the lone active of `slot` should feed.
    pub(crate) fn set_candidate(&self, slot: SlotId, candidate: Option<NodeId>) {
        self.lanes(&mut self.state(), slot).candidate = candidate;
    }

    /// The slot is no longer ours.
    pub(crate) fn remove(&self, slot: SlotId) {
        self.state().slots.remove(&slot);
    }

    /// Figures of every slot.
    pub(crate) fn figures(&self) -> BTreeMap<SlotId, SyncFigures> {
        let state = self.state();
        let figures = |lanes: &Lanes| SyncFigures {
            sending: lanes
                .sending()
                .map(|((node, class), one)| (*node, class.clone(), one.handle.status()))
                .collect(),
            receiving: lanes
                .receiving()
                .map(|(class, one)| (class.clone(), one.handle.status().0))
                .collect(),
        };
        let slots = state.slots.iter();
        slots.map(|(id, lanes)| (*id, figures(lanes))).collect()
    }

    /// Every class of a slot that this element serves, and how it stands at each standby.
    pub(crate) fn standings(&self, slot: SlotId) -> Vec<ClassStanding> {
        let state = self.state();
        let Some(lanes) = state.slots.get(&slot).filter(|lanes| lanes.was_active) else {
            return Vec::new();
        };
        let each = state.classes.values().flat_map(|class| {
            let of_class = lanes.standings().filter(|(key, ..)| key.1 == *class.name());
            let mut standings: Vec<_> = of_class
                .map(|((standby, _), standing, sending)| ClassStanding {
                    standby: Some(*standby),
                    known: standing.map(|one| one.known()).unwrap_or_default(),
                    figures: sending.map(|one| one.handle.status()),
                    ..ClassStanding::nowhere(class)
                })
                .collect();
            if standings.is_empty() {
                standings.push(ClassStanding::nowhere(class));
            }
            standings
        });
        each.collect()
    }

    /// Brings the streams in line with roles and connections. Called on every change and often.
    pub(crate) fn steer(
        self: &Arc<Self>,
        views: &BTreeMap<SlotId, SlotView>,
        connections: &BTreeMap<NodeId, (Member, Connection)>,
    ) {
        let mut state = self.state();
        let keeps_connections = state.keeps_connections();
        let State {
            classes,
            slots,
            settling,
            ..
        } = &mut *state;
        let sent = |class: &&Class| class.is_sent(keeps_connections);
        let needed = |class: &&Class| class.demand.level.bounds().is_some();
        for (id, lanes) in slots.iter_mut() {
            if !keeps_connections {
                lanes.stop_receiving(&ClassName::conntrack());
            }
            let view = views.get(id).copied().unwrap_or_default();
            let is_active = view.role == Role::Active;
            if is_active && !lanes.was_active {
                settling.begin();
                tell_watermarks(*id, lanes);
                lanes.forget_copies();
            }
            lanes.was_active = is_active;
            lanes.tell_epoch(&view);
            lanes.copies.need(
                classes
                    .values()
                    .filter(needed)
                    .map(|one| one.name().clone()),
            );
            let targets = lanes.targets(&view, connections);
            let standbys = targets.iter().map(|(member, _)| *member);
            lanes.copies.prove_nothing(standbys, now());
            let wanted = targets.iter().flat_map(|(to, _)| {
                let sent = classes.values().filter(sent);
                sent.map(|class| (to.node, class.name().clone()))
            });
            lanes.want(wanted.collect(), is_active);
            lanes.end_unwanted(|sending| {
                let class = classes.get(&sending.demand.class);
                let is_sent = class.is_some_and(|one| sent(&one) && one.demand == sending.demand);
                let is_target = |(member, known): &(Member, Connection)| {
                    *member == sending.to && known.stable_id() == sending.connection
                };
                is_sent && targets.iter().any(|target| is_target(target))
            });
            for (to, connection) in targets {
                for class in classes.values().filter(sent) {
                    let key = (to.node, class.name().clone());
                    if lanes.may_open(&key) {
                        let sending = self.open(*id, class, *to, connection, lanes, &view);
                        lanes.opened(key, sending);
                    }
                }
            }
        }
        let is_standby = slots
            .values()
            .any(|lanes| lanes.receiving().next().is_some());
        settling.run(&self.scope, is_standby);
    }

    fn open(
        &self,
        slot: SlotId,
        class: &Class,
        to: Member,
        connection: &Connection,
        lanes: &mut Lanes,
        view: &SlotView,
    ) -> Option<Sending> {
        let purpose = sender::Purpose {
            slot,
            class: class.clone(),
            caller: self.incarnation,
            to,
            copies: Arc::clone(&lanes.copies),
            standing: lanes.standing(&(to.node, class.name().clone())),
        };
        let handle = match sender::start(purpose, view.epoch) {
            Ok(handle) => handle,
            Err(error) => {
                tracing::error!(%slot, "no service state can be sent: {error:#}");
                return None;
            }
        };
        let credentials = self.credentials.clone();
        // Where the element is heard, it listens for links too.
        let (address, peer) = (connection.remote_address(), connection.peer().clone());
        let door = handle.door();
        tokio::spawn(async move { door.link(dial(&credentials, peer, address).await) });
        Some(Sending {
            to,
            connection: connection.stable_id(),
            demand: class.demand.clone(),
            handle,
        })
    }

    /// Runs the stream of a link that a peer has made, to its end; blocks. `member` says which life
    /// of that peer is connected to this element.
    pub(crate) fn accept(&self, link: Link, member: impl Fn(&Identity) -> Option<Member>) {
        let peer = link.peer().clone();
        let Some(admitted) = self.admission.admit(&peer) else {
            return tracing::info!(%peer, "a state stream is turned away: there are too many");
        };
        match self.begin(link, member) {
            Ok(running) => {
                let _running = admitted.has_begun();
                running.run();
            }
            Err(error) => tracing::info!(%peer, "a state stream is refused: {error:#}"),
        }
    }

    fn begin(
        &self,
        mut link: Link,
        member: impl Fn(&Identity) -> Option<Member>,
    ) -> anyhow::Result<receiver::Running> {
        let poller = Poller::new()?;
        let (preface, hello, decoder) = preface::read(&mut link, &poller)?;
        let Body::Hello { demand, .. } = &hello.body else {
            bail!("it does not begin with a hello");
        };
        let name = demand.class.clone();
        let from = || member(link.peer()).filter(|one| one.incarnation == preface.caller);
        let Some(from) = self.wait_for_record(preface.slot, from) else {
            // It takes nothing from the stream of the active, which may be there.
            bail!("it is not of the active of slot {}", preface.slot);
        };
        let mut state = self.state();
        // Again: this element may have become the active since, and would be steered only later.
        let view = self.pulse.view().slots.get(&preface.slot).copied();
        let Some(view) = view.filter(|view| view.active == Some(from)) else {
            bail!("it is no longer of the active of slot {}", preface.slot);
        };
        if name == ClassName::conntrack() && !state.keeps_connections() {
            refuse(&mut link, Refusal::Class);
            bail!("connections cannot be told apart in a pool with several slots");
        }
        let Some(class) = state.classes.get(&name).cloned() else {
            refuse(&mut link, Refusal::Class);
            bail!(
                "the class '{name}' of state is not known here: update this element or its function"
            );
        };
        let Some(lanes) = state.slots.get_mut(&preface.slot) else {
            bail!("slot {} is not of this element", preface.slot);
        };
        let (handle, running) = receiver::prepare(receiver::Stream {
            slot: preface.slot,
            class,
            link,
            poller,
            hello,
            decoder,
        });
        lanes.receive(name, Receiving { from, handle });
        lanes.tell_epoch(&view);
        Ok(running)
    }

    /// The member, once it is known here as the slot's active; none if it never is.
    fn wait_for_record(&self, slot: SlotId, from: impl Fn() -> Option<Member>) -> Option<Member> {
        let (patience, step) = RECORD_WAIT;
        let began = Instant::now();
        while began.elapsed() < patience {
            let known = self.pulse.view().slots.get(&slot).copied();
            if let Some((from, view)) = from().zip(known)
                && view.active == Some(from)
            {
                return Some(from);
            }
            std::thread::sleep(step);
        }
        None
    }

    /// Whose stream is taken in for a slot.
    #[cfg(test)]
    pub(super) fn receives_from(&self, slot: SlotId) -> Option<Member> {
        let state = self.state();
        let (_, receiving) = state.slots.get(&slot)?.receiving().next()?;
        Some(receiving.from)
    }

    /// Brings what the stopped data plane left to the successor, then tells the machine: also when it
    /// cannot be brought. The gate is closed for good by then, so waiting would only make the outage
    /// longer; but it is said and counted.
    pub(crate) fn drain(&self, slot: SlotId) {
        let view = self.pulse.view().slots.get(&slot).copied();
        let successor = view.and_then(|view| view.peer);
        let state = self.state();
        let lanes = state.slots.get(&slot);
        let to_successor = lanes.into_iter().flat_map(Lanes::sending);
        let to_successor = to_successor.filter(|(_, sending)| Some(sending.to) == successor);
        // The last answer, or the end of this function, lets go of it.
        let pulse = self.pulse.clone();
        let done = Arc::new(AtEnd(Some(Box::new(move || {
            pulse.input(slot, Input::Drained);
        }))));
        let until = now().after(DRAIN_MAX);
        let mut left_out: BTreeSet<_> = state.sent().map(Class::name).cloned().collect();
        for ((_, class), sending) in to_successor {
            left_out.remove(class);
            let (done, undrained) = (Arc::clone(&done), Arc::clone(&self.undrained));
            let class = class.clone();
            sending.handle.barrier(Box::new(move |reached| {
                // What comes later finds the successor serving.
                if !reached || now() > until {
                    tell_undrained(slot, &class, &undrained);
                }
                drop(done);
            }));
        }
        for class in left_out {
            tell_undrained(slot, &class, &self.undrained);
        }
    }

    /// Classes of state that were handed over without their last changes, or without a copy.
    pub(crate) fn undrained(&self) -> u64 {
        self.undrained.load(Ordering::Relaxed)
    }
}

fn tell_undrained(slot: SlotId, class: &ClassName, undrained: &AtomicU64) {
    undrained.fetch_add(1, Ordering::Relaxed);
    tracing::warn!(
        %slot, %class,
        "the handover goes on without knowing that the newest changes are at the successor: the \
         stream there was broken, or lost some, or was too slow"
    );
}

/// What a link of the life `caller` begins with when it is for `slot`.
#[cfg(test)]
pub(super) fn preface(slot: SlotId, caller: Incarnation) -> [u8; 16] {
    preface::Preface { slot, caller }.encode()
}

async fn dial(
    credentials: &Credentials,
    peer: Identity,
    address: std::net::SocketAddr,
) -> anyhow::Result<Link> {
    let Identity::Element { pool, element } = peer else {
        bail!("it is no element");
    };
    let expected = PeerPolicy::Element { pool, element };
    Ok(link::connect(credentials, expected, address).await?)
}

/// Says why before the link is dropped.
fn refuse(link: &mut Link, reason: Refusal) {
    let version = VERSION;
    let frame = Frame {
        epoch: 0,
        generation: 0,
        sequence: 0,
        body: Body::Refused { reason, version },
    };
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    // If it cannot be sent the peer sees the end.
    let _ = link.send(&bytes).and_then(|()| link.flush());
}

impl ClassStanding {
    fn nowhere(class: &Class) -> Self {
        Self {
            class: class.name().clone(),
            demanded: class.demand.level,
            standby: None,
            known: Known::default(),
            figures: None,
        }
    }
}

/// What the copies held when this element became the active: what a failover can have lost.
fn tell_watermarks(slot: SlotId, lanes: &Lanes) {
    for (class, (status, watermark)) in lanes.copies_held() {
        let Watermark {
            complete_until,
            changes,
            known_missing,
            ..
        } = watermark;
        let at = now();
        let age = complete_until.map(|until| at.since(until));
        let missing = watermark.missing(at);
        // For people by the wall clock, for who compares by the clock of every `Time`.
        let since = age.and_then(|age| jiff::Timestamp::now().checked_sub(age).ok());
        tracing::info!(
            %slot, %class, in_sync = status.in_sync, entries = status.entries, changes, known_missing,
            complete_until_us_before = age.map(|age| age.as_micros()), missing_at_most = missing,
            missing_since = since.map(tracing::field::display),
            missing_since_boottime_ns = complete_until.map(|until| until.0),
            "watermark of the copy that serves now"
        );
    }
}

/// Does something when nobody has it any more.
struct AtEnd(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

/// Says that a stream's thread is over, however it ended: it is opened again then.
struct SetAtEnd(Arc<AtomicBool>);

impl Drop for SetAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
