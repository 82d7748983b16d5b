//! What the manager knows of pools and elements: plain values, no IO.
//!
//! The durable part is read from the store at start and changed only after the store has taken a
//! change; the live part is what connected elements have said.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use vnfpool_model::{ElementId, Incarnation, Pace, PoolHandle, PoolSpec, SlotId, SlotName};
use vnfpool_wire::control;
use vnfpool_wire::datagram::{Member, NodeId, Record};

use super::deletion::Closing;
use super::handover_news::HandoversTold;
use super::pulse::View;
use super::state_news::StateTold;

/// Durable: a pool and the numbers of its slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PoolRecord {
    pub(crate) spec: PoolSpec,
    pub(crate) slots: BTreeMap<SlotName, SlotId>,
}

/// Durable: the number of an element.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ElementRecord {
    pub(crate) node: u32,
}

/// Durable: where an element can be reached by the others of its pool, as it said last. Another
/// boot of the manager tells them before the element has registered again: a member of a pair
/// that serves on evidence alone has to hear of the other's return (docs/succession.md, S5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PathsRecord {
    /// Name, datagram socket and QUIC endpoint of each path.
    paths: Vec<(String, String, String)>,
}

impl PathsRecord {
    pub(crate) fn of(paths: &[control::Path]) -> Self {
        let path = |p: &control::Path| (p.name.clone(), p.datagram.clone(), p.peer.clone());
        Self {
            paths: paths.iter().map(path).collect(),
        }
    }

    pub(crate) fn into_paths(self) -> Vec<control::Path> {
        let path = |(name, datagram, peer)| control::Path {
            name,
            datagram,
            peer,
        };
        self.paths.into_iter().map(path).collect()
    }
}

/// Durable: the next free numbers; a number is never used twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    pub(crate) node: u32,
    pub(crate) slot: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { node: 1, slot: 1 }
    }
}

/// Durable: the record of a slot (docs/succession.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    pub(crate) term: u64,
    pub(crate) first: (u32, u64),
    pub(crate) second: Option<(u32, u64)>,
    /// Heartbeat interval and lease of the term, in milliseconds.
    pub(crate) pace: (u32, u32),
    /// The largest manager lease in force for this slot, in milliseconds.
    pub(crate) manager_lease_ms_max: u32,
}

impl SlotRecord {
    /// The record as it is stored.
    pub(crate) fn of(record: Record, manager_lease_ms_max: u32) -> Self {
        let pair = |m: Member| (m.node.0, m.incarnation.0);
        Self {
            term: record.term,
            first: pair(record.first),
            second: record.second.map(pair),
            pace: (record.pace.heartbeat_interval_ms, record.pace.lease_ms),
            manager_lease_ms_max,
        }
    }

    /// The record as the machine knows it.
    pub(crate) fn record(&self) -> Record {
        let member = |(node, life)| Member {
            node: NodeId(node),
            incarnation: Incarnation(life),
        };
        Record {
            term: self.term,
            first: member(self.first),
            second: self.second.map(member),
            pace: Pace {
                heartbeat_interval_ms: self.pace.0,
                lease_ms: self.pace.1,
            },
        }
    }
}

/// A connected element.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) connection: usize,
    pub(crate) hello: control::Hello,
    pub(crate) report: control::ElementReport,
    /// Frames for its control stream.
    pub(crate) outbox: mpsc::Sender<control::Frame>,
    /// Ends its connection: somebody newer has come.
    pub(crate) replaced: mpsc::Sender<()>,
    /// What it was told last.
    pub(crate) configuration: Option<control::Configuration>,
}

impl Live {
    /// The life of its agent.
    pub(crate) const fn incarnation(&self) -> Incarnation {
        Incarnation(self.hello.incarnation)
    }
}

/// When an event of one kind was told of an element last: what elements say must not fill the log,
/// nor push other events out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told(Option<Instant>);

impl Told {
    /// Between two events of one kind about one element.
    const INTERVAL: Duration = Duration::from_secs(1);

    /// Whether an event may be told now; if so, it counts as told.
    pub(super) fn may_tell(&mut self, now: Instant) -> bool {
        let too_early = |at| now.saturating_duration_since(at) < Self::INTERVAL;
        if self.0.is_some_and(too_early) {
            return false;
        }
        self.0 = Some(now);
        true
    }
}

/// An element of a pool, connected or not.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) node: NodeId,
    /// Where it was when it registered last.
    pub(crate) paths: Vec<control::Path>,
    /// The name of its machine, as it said last to this boot of the manager.
    pub(crate) host: String,
    pub(crate) live: Option<Live>,
    /// The operator's word or a command's proof that it is off; it holds until the element registers again.
    pub(crate) fenced: bool,
    /// The last of its lives that the operator has declared off: it and those before never register
    /// again, since the slots' machines do not listen to them any more.
    pub(crate) fenced_life: Option<Incarnation>,
    /// Durable: a pool of this name was deleted when it had closed or was off, and it has not
    /// registered since.
    pub(crate) departed: bool,
    /// The life that registered last, and whether the newest event of it says that it could serve: of
    /// a life, not of a connection, which may end before the next one of the same life begins.
    pub(super) told_able: (Incarnation, bool),
    /// Events about whether it could serve.
    pub(super) able_told: Told,
    /// Events about messages that nobody here knows.
    pub(super) unknown_told: Told,
    /// Events about the state that it replicates.
    pub(super) state_told: StateTold,
    /// Events about its planned handovers.
    pub(super) handovers_told: HandoversTold,
}

impl Element {
    /// Whether this life was declared off.
    pub(crate) fn is_over(&self, life: Incarnation) -> bool {
        self.fenced_life.is_some_and(|last| life <= last)
    }

    /// An element that is not connected.
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            paths: Vec::new(),
            host: String::new(),
            live: None,
            fenced: false,
            fenced_life: None,
            departed: false,
            told_able: (Incarnation(0), false),
            able_told: Told(None),
            unknown_told: Told(None),
            state_told: StateTold::default(),
            handovers_told: HandoversTold::default(),
        }
    }
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) numbers: Numbers,
    pub(crate) pools: BTreeMap<PoolHandle, PoolRecord>,
    pub(crate) elements: BTreeMap<(PoolHandle, ElementId), Element>,
    /// The pools that are being deleted; their slots have no machines any more.
    pub(crate) closing: BTreeMap<PoolHandle, Closing>,
    /// Which elements of which slot were told to be apart.
    pub(super) apart_told: BTreeSet<(SlotId, NodeId, NodeId)>,
    /// Whom the machine of which slot was told to prefer.
    pub(super) preferred_told: BTreeMap<SlotId, Option<NodeId>>,
    /// Who was asked last to give which slot back to its preferred element, and when.
    pub(super) switched_back: BTreeMap<SlotId, (NodeId, Instant)>,
    pub(super) revision: u64,
}

impl Registry {
    /// The elements of a pool.
    pub(crate) fn elements_of<'a>(
        &'a self,
        pool: &'a PoolHandle,
    ) -> impl Iterator<Item = (&'a ElementId, &'a Element)> {
        self.elements
            .iter()
            .filter(move |((handle, _), _)| handle == pool)
            .map(|((_, id), element)| (id, element))
    }

    /// The name of a node.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<(&PoolHandle, &ElementId)> {
        let mut all = self.elements.iter();
        all.find(|(_, e)| e.node == node)
            .map(|((pool, id), _)| (pool, id))
    }

    /// The number of an element of `pool`.
    pub(crate) fn node_of(&self, pool: &PoolHandle, id: &ElementId) -> Option<NodeId> {
        self.elements
            .get(&(pool.clone(), id.clone()))
            .map(|e| e.node)
    }

    /// The pool and name of a slot.
    pub(crate) fn slot_name(&self, slot: SlotId) -> Option<(&PoolHandle, &SlotName)> {
        self.pools.iter().find_map(|(handle, pool)| {
            let name = pool.slots.iter().find(|(_, id)| **id == slot)?.0;
            Some((handle, name))
        })
    }

    /// Notes the operator's word that an element is off. A connection that it may still have ends.
    pub(super) fn fence(&mut self, pool: &PoolHandle, id: &ElementId, view: &View) {
        let Some(element) = self.elements.get_mut(&(pool.clone(), id.clone())) else {
            return;
        };
        let node = element.node;
        let slots = view.slots.values();
        let lives = slots.flat_map(|slot| {
            let heard = slot.heard.iter().filter(|(heard, ..)| *heard == node);
            let record = slot.record.into_iter();
            let members = record.flat_map(|r| [Some(r.first), r.second]).flatten();
            let named = members.filter(|m| m.node == node).map(|m| m.incarnation);
            heard.map(|(.., life)| *life).chain(named)
        });
        let connected = element.live.as_ref().map(Live::incarnation);
        element.fenced_life = lives.chain(connected).chain(element.fenced_life).max();
        element.fenced = true;
        element.live = None;
    }

    /// Pairs of connected elements of `pool` that must not be a pair: they are on one host, or
    /// their host is not known (§5.1: no single physical server).
    pub(crate) fn apart(&self, pool: &PoolHandle) -> Vec<(NodeId, NodeId)> {
        let live: Vec<_> = self
            .elements_of(pool)
            .filter_map(|(_, e)| Some((e.node, e.live.as_ref()?.hello.host.as_str())))
            .collect();
        let mut pairs = Vec::new();
        for (index, (one, host)) in live.iter().enumerate() {
            let others = live[index + 1..].iter().filter(|(_, other)| other == host);
            pairs.extend(others.map(|(other, _)| (*one, *other)));
        }
        pairs
    }

    /// Whom the lone active of `slot` should bring into sync: an able element on another host,
    /// the preferred one before others, one in quarantine only if there is no other.
    pub(crate) fn candidate(&self, pool: &PoolHandle, slot: SlotId, view: &View) -> NodeId {
        let none = NodeId(0);
        let Some(slot_view) = view.slots.get(&slot) else {
            return none;
        };
        let Some(record) = slot_view.record else {
            return none;
        };
        if record.armed() {
            let active = slot_view.active.map(|m| m.node);
            let members = [Some(record.first), record.second];
            let standby = members
                .into_iter()
                .flatten()
                .find(|m| Some(m.node) != active);
            return standby.map_or(none, |m| m.node);
        }
        let apart = self.apart(pool);
        let active = record.first.node;
        let together = |node| apart.contains(&(active, node)) || apart.contains(&(node, active));
        let preferred = self.preferred(pool, slot);
        self.elements_of(pool)
            .filter(|(_, e)| e.live.as_ref().is_some_and(|l| l.report.able))
            .map(|(_, e)| e.node)
            .filter(|node| *node != active && !together(*node))
            .min_by_key(|node| {
                let last = Self::is_quarantined(view, slot, *node);
                (last, Some(*node) != preferred, *node)
            })
            .unwrap_or(none)
    }

    /// The number of the slot's preferred element, if it is known.
    pub(crate) fn preferred(&self, pool: &PoolHandle, slot: SlotId) -> Option<NodeId> {
        let record = self.pools.get(pool)?;
        let (name, _) = record.slots.iter().find(|(_, id)| **id == slot)?;
        let spec = record.spec.slots.iter().find(|s| s.name == *name)?;
        self.node_of(pool, spec.preferred.as_ref()?)
    }

    /// What `id` of `pool` has to know now; the revision is not set.
    pub(crate) fn configuration(
        &self,
        pool: &PoolHandle,
        id: &ElementId,
        view: &View,
    ) -> Option<control::Configuration> {
        let record = self.pools.get(pool)?;
        let closing = self.closing.contains_key(pool);
        let slots = record.slots.iter().filter(|_| !closing);
        let slots = slots.map(|(name, slot)| control::Slot {
            id: slot.0,
            name: name.to_string(),
            candidate: self.candidate(pool, *slot, view).0,
        });
        let peers = self.elements_of(pool).filter(|(other, _)| *other != id);
        let peers = peers.map(|(other, element)| control::Peer {
            node: element.node.0,
            element: other.to_string(),
            // Also of one that is away: its datagrams may still come, and it has to hear ours.
            paths: element.paths.clone(),
        });
        Some(control::Configuration {
            revision: 0,
            pool: serde_json::to_string(&record.spec).ok()?,
            slots: slots.collect(),
            peers: peers.collect(),
        })
    }

    /// The configuration for `id` if it differs from what it was told last.
    pub(crate) fn news_for(
        &mut self,
        pool: &PoolHandle,
        id: &ElementId,
        view: &View,
    ) -> Option<(mpsc::Sender<control::Frame>, control::Configuration)> {
        let mut configuration = self.configuration(pool, id, view)?;
        let revision = self.revision + 1;
        let element = self.elements.get_mut(&(pool.clone(), id.clone()))?;
        let live = element.live.as_mut()?;
        if let Some(told) = &live.configuration {
            configuration.revision = told.revision;
            if configuration == *told {
                return None;
            }
        }
        self.revision = revision;
        configuration.revision = revision;
        live.configuration = Some(configuration.clone());
        Some((live.outbox.clone(), configuration))
    }
}

/// Checks what an element says of its addresses.
pub(crate) fn paths_are_valid(paths: &[control::Path]) -> bool {
    let valid = |text: &str| text.parse::<SocketAddr>().is_ok();
    paths.len() <= PATHS_MAX
        && paths
            .iter()
            .all(|p| p.name.len() <= 63 && valid(&p.datagram) && valid(&p.peer))
}

/// Checks the labels of an element: they are kept and shown.
pub(crate) fn labels_are_valid(labels: &HashMap<String, String>) -> bool {
    let short = |text: &String| text.len() <= LABEL_BYTES_MAX;
    labels.len() <= LABELS_MAX
        && labels
            .iter()
            .all(|(name, value)| short(name) && short(value))
}

/// The most labels of an element, and how long their names and values may be.
const LABELS_MAX: usize = 64;
const LABEL_BYTES_MAX: usize = 255;

/// The most paths of an element.
const PATHS_MAX: usize = 16;
