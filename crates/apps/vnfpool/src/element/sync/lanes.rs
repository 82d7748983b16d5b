//! The streams of one slot: a lane per standby and class, each with at most one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vnfpool_model::Role;
use vnfpool_statesync::class::{ClassName, Demand};
use vnfpool_statesync::{ReceiverStatus, Watermark};
use vnfpool_transport::quic::Connection;
use vnfpool_wire::datagram::{Member, NodeId};

use super::super::pulse::SlotView;
use super::copies::Copies;
use super::standing::Standing;
use super::{receiver, sender};

/// A stream that ended is opened again after this time.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// Lanes that something is known of, beside those that there should be.
const STANDINGS_MAX: usize = 64;

/// Copies of streams that are over.
const FORMER_MAX: usize = 64;

/// How a copy stands, and what can be said of it when the active is gone.
pub(super) type CopyFigures = (ReceiverStatus, Watermark);

fn is_complete((_, watermark): &CopyFigures) -> bool {
    watermark.complete_until.is_some()
}

/// A standby and a class of state.
pub(super) type LaneKey = (NodeId, ClassName);

/// The streams of one slot.
#[derive(Debug)]
pub(super) struct Lanes {
    /// Whom the manager wants brought into sync while nobody is armed.
    pub(super) candidate: Option<NodeId>,
    pub(super) copies: Arc<Copies>,
    pub(super) was_active: bool,
    out: BTreeMap<LaneKey, Lane>,
    receiving: BTreeMap<ClassName, Receiving>,
    /// How the copies of streams stood that are over: the active's death ends them before anybody
    /// takes over.
    former: BTreeMap<ClassName, CopyFigures>,
    /// Of every lane since this element became the active.
    standings: BTreeMap<LaneKey, Arc<Standing>>,
    /// The lanes that there should be.
    wanted: BTreeSet<LaneKey>,
}

#[derive(Debug, Default)]
struct Lane {
    sending: Option<Sending>,
    /// Whether the thread of the stream before has ended. Until then it may still say that the
    /// standby is not in sync, which would be taken for news of the next one.
    former_ended: Option<Arc<AtomicBool>>,
    ended_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Sending {
    pub(super) to: Member,
    pub(super) connection: usize,
    /// What it was opened with.
    pub(super) demand: Demand,
    pub(super) handle: sender::Handle,
}

#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) from: Member,
    pub(super) handle: receiver::Handle,
}

impl Lanes {
    pub(super) fn new(copies: Copies) -> Self {
        Self {
            candidate: None,
            copies: Arc::new(copies),
            was_active: false,
            out: BTreeMap::new(),
            receiving: BTreeMap::new(),
            former: BTreeMap::new(),
            standings: BTreeMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// Says which lanes there should be; what is known of others is forgotten when this element is
    /// not the active, and when there are too many of them.
    pub(super) fn want(&mut self, wanted: BTreeSet<LaneKey>, is_active: bool) {
        self.wanted = wanted;
        if !is_active || self.standings.len() > STANDINGS_MAX {
            self.standings.retain(|key, _| self.wanted.contains(key));
        }
    }

    /// How the class of a lane stands, for its next stream.
    pub(super) fn standing(&mut self, key: &LaneKey) -> Arc<Standing> {
        Arc::clone(self.standings.entry(key.clone()).or_default())
    }

    /// Every lane that there should be, with what is known of it and its stream, if there is one.
    pub(super) fn standings(
        &self,
    ) -> impl Iterator<Item = (&LaneKey, Option<&Arc<Standing>>, Option<&Sending>)> {
        self.wanted.iter().map(|key| {
            let sending = self.out.get(key).and_then(Lane::sending);
            (key, self.standings.get(key), sending)
        })
    }

    /// Whom the active feeds: the armed standby, and whom the manager named.
    pub(super) fn targets<'c>(
        &self,
        view: &SlotView,
        connections: &'c BTreeMap<NodeId, (Member, Connection)>,
    ) -> Vec<&'c (Member, Connection)> {
        if view.role != Role::Active {
            return Vec::new();
        }
        let armed = view.peer.map(|peer| peer.node);
        let others = self.candidate.filter(|node| Some(*node) != armed);
        let nodes = armed.into_iter().chain(others);
        nodes.filter_map(|node| connections.get(&node)).collect()
    }

    /// Forgets streams that are over, and ends those that are not wanted.
    pub(super) fn end_unwanted(&mut self, is_wanted: impl Fn(&Sending) -> bool) {
        for lane in self.out.values_mut() {
            if lane
                .sending
                .take_if(|sending| sending.handle.has_ended())
                .is_some()
            {
                lane.ended_at = Some(Instant::now());
            }
            let unwanted = lane.sending.take_if(|sending| !is_wanted(sending));
            if let Some(sending) = unwanted {
                lane.former_ended = Some(sending.handle.ended());
            }
        }
        self.out.retain(|_, lane| !lane.is_idle());
        let ended = self
            .receiving
            .extract_if(.., |_, receiving| receiving.handle.has_ended());
        for (class, receiving) in ended.collect::<Vec<_>>() {
            self.keep(class, &receiving);
        }
    }

    /// How the copies of all classes stand. What a former stream has brought is there until a newer
    /// one has brought all of it anew.
    pub(super) fn copies_held(&self) -> BTreeMap<ClassName, CopyFigures> {
        let mut copies = self.former.clone();
        for (class, receiving) in &self.receiving {
            let newer = receiving.handle.status();
            if is_complete(&newer) || !copies.contains_key(class) {
                copies.insert(class.clone(), newer);
            }
        }
        copies
    }

    /// This element serves: its table is no copy any more.
    pub(super) fn forget_copies(&mut self) {
        self.former.clear();
    }

    fn keep(&mut self, class: ClassName, over: &Receiving) {
        let copy = over.handle.status();
        let has_room = self.former.len() < FORMER_MAX || self.former.contains_key(&class);
        if is_complete(&copy) && has_room {
            self.former.insert(class, copy);
        }
    }

    /// Whether a stream of the lane may be opened now.
    pub(super) fn may_open(&self, key: &LaneKey) -> bool {
        self.out
            .get(key)
            .is_none_or(|lane| lane.sending.is_none() && !lane.is_resting())
    }

    /// A stream was opened, or could not be.
    pub(super) fn opened(&mut self, key: LaneKey, sending: Option<Sending>) {
        let lane = self.out.entry(key).or_default();
        if sending.is_none() {
            lane.ended_at = Some(Instant::now());
        }
        lane.sending = sending;
    }

    /// The older stream of the class, if any, ends with its handle.
    pub(super) fn receive(&mut self, class: ClassName, receiving: Receiving) {
        if let Some(older) = self.receiving.insert(class.clone(), receiving) {
            self.keep(class, &older);
        }
    }

    /// Ends the stream of a class, and takes its copy for none.
    pub(super) fn stop_receiving(&mut self, class: &ClassName) {
        self.receiving.remove(class);
        self.former.remove(class);
    }

    pub(super) fn tell_epoch(&self, view: &SlotView) {
        for (_, sending) in self.sending() {
            sending
                .handle
                .set_epoch(view.epoch, view.role == Role::Active);
        }
        for (_, receiving) in self.receiving() {
            let accepts = view.active == Some(receiving.from) && view.role != Role::Active;
            receiving.handle.set_epoch(view.epoch, accepts);
        }
    }

    pub(super) fn sending(&self) -> impl Iterator<Item = (&LaneKey, &Sending)> {
        let sending = |(key, lane)| Some((key, Lane::sending(lane)?));
        self.out.iter().filter_map(sending)
    }

    pub(super) fn receiving(&self) -> impl Iterator<Item = (&ClassName, &Receiving)> {
        self.receiving.iter()
    }
}

impl Lane {
    const fn sending(lane: &Self) -> Option<&Sending> {
        lane.sending.as_ref()
    }

    fn is_resting(&self) -> bool {
        let ended = self
            .former_ended
            .as_ref()
            .is_none_or(|ended| ended.load(Ordering::Acquire));
        !ended || self.ended_at.is_some_and(|at| at.elapsed() < REOPEN_AFTER)
    }

    fn is_idle(&self) -> bool {
        self.sending.is_none() && !self.is_resting()
    }
}
