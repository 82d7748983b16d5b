//! What the manager's tasks share, and the changes that they make together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vnfpool_model::{ElementId, PoolHandle, PoolSpec, SlotId, SlotSpec};
use vnfpool_succession::manager::{Decision, Input, Settings, Stored};
use vnfpool_transport::RejectionCounters;
use vnfpool_transport::pki::Authority;
use vnfpool_wire::control;
use vnfpool_wire::datagram::{NodeId, Record};

use super::db::{Db, DbError};
use super::events::{Events, Happening};
use super::handovers;
use super::paces::Paces;
use super::pulse::{Command, Notice, Pulse, View};
use super::registry::{Element, ElementRecord, Live, PathsRecord, PoolRecord, Registry};
use super::state_news::Reporter;

/// Everything that the tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) id: String,
    pub(super) boot: u64,
    pub(super) started: Instant,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) datagram: SocketAddr,
    pub(super) db: Db,
    pub(super) pulse: Pulse,
    pub(super) events: Events,
    pub(super) authority: Authority,
    pub(super) rejections: Arc<RejectionCounters>,
    registry: Mutex<Registry>,
    /// One change of the durable part at a time.
    pub(super) changes: tokio::sync::Mutex<()>,
    switchovers: Mutex<BTreeMap<u64, oneshot::Sender<control::SwitchoverResult>>>,
    next_switchover: AtomicU64,
    pub(super) counters: Counters,
    leases_ms: LeasesMs,
    paces: Mutex<Paces>,
    pub(super) closing_time_max: Duration,
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) decisions: Mutex<BTreeMap<&'static str, u64>>,
    /// Quarantines that began, and those that ended by their cause.
    pub(crate) quarantines: Mutex<BTreeMap<&'static str, u64>>,
    /// Decisions whose records were prepared, by whether the disk had them in time.
    pub(crate) prepared: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) votes_refused: Mutex<BTreeMap<&'static str, u64>>,
    pub(crate) registrations_refused: Mutex<BTreeMap<String, u64>>,
    /// Runs of the fencing command, by what came of them.
    pub(crate) fencings: Mutex<BTreeMap<&'static str, u64>>,
}

/// What [`Shared::new`] is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) boot: u64,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) datagram: SocketAddr,
    pub(super) db: Db,
    pub(super) pulse: Pulse,
    pub(super) authority: Authority,
    pub(super) rejections: Arc<RejectionCounters>,
    pub(super) registry: Registry,
    pub(super) leases_ms: LeasesMs,
    /// How long elements may take to close when their pool is deleted.
    pub(super) closing_time_max: Duration,
}

/// The largest manager lease in force for each slot, in milliseconds: stored with its record.
pub(super) type LeasesMs = Arc<Mutex<BTreeMap<SlotId, u32>>>;

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        Self {
            id: parts.id,
            boot: parts.boot,
            started: Instant::now(),
            addresses: parts.addresses,
            datagram: parts.datagram,
            db: parts.db,
            pulse: parts.pulse,
            events: Events::new(parts.boot),
            authority: parts.authority,
            rejections: parts.rejections,
            registry: Mutex::new(parts.registry),
            changes: tokio::sync::Mutex::new(()),
            switchovers: Mutex::new(BTreeMap::new()),
            next_switchover: AtomicU64::new(1),
            counters: Counters::default(),
            leases_ms: parts.leases_ms,
            paces: Mutex::new(Paces::default()),
            closing_time_max: parts.closing_time_max,
        }
    }

    /// The registry; held for a few instructions at a time, never across an await.
    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pacers of the slots with `lease = "auto"`.
    pub(super) fn paces(&self) -> MutexGuard<'_, Paces> {
        lock(&self.paces)
    }

    pub(super) const fn datagram_address(&self) -> SocketAddr {
        self.datagram
    }

    /// The element's number; a new element gets the next one, on disk before it is used. So is that
    /// an element has come back after its pool was deleted.
    pub(super) async fn number_of(
        &self,
        pool: &PoolHandle,
        id: &ElementId,
    ) -> Result<NodeId, DbError> {
        let key = (pool.clone(), id.clone());
        let known = || {
            self.registry()
                .elements
                .get(&key)
                .map(|e| (e.node, e.departed))
        };
        if let Some((node, false)) = known() {
            return Ok(node);
        }
        let _one_at_a_time = self.changes.lock().await;
        // Another connection of the same element may have been quicker.
        match known() {
            Some((node, false)) => return Ok(node),
            Some((node, true)) => {
                let mut change = self.db.change();
                change.delete_departed(pool, id);
                self.db.commit(change).await?;
                if let Some(element) = self.registry().elements.get_mut(&key) {
                    element.departed = false;
                }
                return Ok(node);
            }
            None => {}
        }
        let mut numbers = self.registry().numbers.clone();
        let node = NodeId(numbers.node);
        numbers.node += 1;
        let mut change = self.db.change();
        change.put_numbers(&numbers)?;
        change.put_element(pool, id, &ElementRecord { node: node.0 })?;
        self.db.commit(change).await?;
        let mut registry = self.registry();
        registry.numbers = numbers;
        registry.elements.insert(key, Element::new(node));
        Ok(node)
    }

    /// An element has registered; an older agent with its identity is sent away.
    pub(super) fn connected(&self, pool: &PoolHandle, id: &ElementId, live: Live) {
        let incarnation = live.incarnation();
        let text = format!("{id} registered from {}", live.hello.host);
        {
            let mut registry = self.registry();
            if !registry.pools.contains_key(pool) {
                // Deleted since it said hello: its connection ends, and when it calls again it
                // hears why.
                return;
            }
            let Some(element) = registry.elements.get_mut(&(pool.clone(), id.clone())) else {
                return;
            };
            if element.departed || element.is_over(live.incarnation()) {
                // The pool was deleted and applied again meanwhile, or this life was declared off:
                // as above.
                return;
            }
            element.fenced = false;
            element.host.clone_from(&live.hello.host);
            if element.paths != live.hello.paths {
                element.paths.clone_from(&live.hello.paths);
                self.db
                    .note_paths(pool, id, &PathsRecord::of(&element.paths));
            }
            // A life that goes on in another process has been able: a fault that it finds is news.
            if element.told_able.0 != incarnation {
                element.told_able = (incarnation, false);
            }
            if let Some(old) = element.live.replace(live) {
                let _ = old.replaced.try_send(());
            }
        }
        self.events.add(Happening {
            kind: "registered",
            pool: Some(pool.clone()),
            text,
            reason: format!("incarnation {incarnation}"),
            ..Happening::default()
        });
        self.steer();
    }

    /// A connection is over; a newer one of the same element stays.
    pub(super) fn disconnected(&self, pool: &PoolHandle, id: &ElementId, connection: usize) {
        {
            let mut registry = self.registry();
            let Some(element) = registry.elements.get_mut(&(pool.clone(), id.clone())) else {
                return;
            };
            if element
                .live
                .as_ref()
                .is_none_or(|live| live.connection != connection)
            {
                return;
            }
            element.live = None;
        }
        self.events.add(Happening {
            kind: "disconnected",
            pool: Some(pool.clone()),
            text: format!("the control connection of {id} is over"),
            reason: "it may still serve: succession does not depend on this connection".into(),
            ..Happening::default()
        });
    }

    /// What an element says of itself.
    pub(super) fn reported(
        &self,
        pool: &PoolHandle,
        id: &ElementId,
        report: control::ElementReport,
    ) {
        let (news, able) = {
            let mut registry = self.registry();
            registry.note_closed(pool, id, &report);
            let names = registry.pools.get(pool).map(|record| record.slots.clone());
            let record = registry.pools.get(pool);
            let paced = record.filter(|record| record.spec.lease_bounds.is_some());
            let slots: Option<BTreeSet<_>> = paced.map(|r| r.slots.values().copied().collect());
            let Some(element) = registry.elements.get_mut(&(pool.clone(), id.clone())) else {
                return;
            };
            let node = element.node;
            let Some(live) = element.live.as_mut() else {
                return;
            };
            let (is, faults) = (report.able, report.faults.join("; "));
            if let Some(slots) = slots {
                let reports = reports_of_member(&self.pulse.view(), &slots, node, &report);
                for (slot, pace) in self.paces().observe(&reports) {
                    self.pulse.send(Command::Input {
                        slot,
                        input: Input::Pace(pace),
                    });
                }
            }
            // What is not told now is told with a later report, if it is still so.
            let by = Reporter {
                pool,
                element: id,
                slots: &names.unwrap_or_default(),
            };
            let now = Instant::now();
            let mut news = element.state_told.news(&report, &by, now);
            let trouble = report.handover_trouble.as_ref();
            news.extend(element.handovers_told.news(trouble, pool, id, now));
            live.report = report;
            let told = &mut element.told_able.1;
            let is_news = *told != is && element.able_told.may_tell(Instant::now());
            if is_news {
                *told = is;
            }
            (news, is_news.then_some((is, faults)))
        };
        for happening in news {
            self.events.add(happening);
        }
        let Some((is, faults)) = able else { return };
        self.events.add(Happening {
            kind: if is { "able" } else { "unable" },
            pool: Some(pool.clone()),
            text: format!(
                "{id} {}",
                if is { "could serve" } else { "could not serve" }
            ),
            reason: faults,
            ..Happening::default()
        });
    }

    /// An element has said something that only newer managers understand.
    pub(super) fn not_understood(&self, pool: &PoolHandle, id: &ElementId) {
        let may_tell = {
            let mut registry = self.registry();
            let element = registry.elements.get_mut(&(pool.clone(), id.clone()));
            element.is_some_and(|e| e.unknown_told.may_tell(Instant::now()))
        };
        if may_tell {
            self.events.add(Happening {
                kind: "unknown-message",
                pool: Some(pool.clone()),
                text: format!("{id} sent a message that this manager does not know"),
                ..Happening::default()
            });
        }
    }

    pub(super) fn count_refusal(&self, code: &str) {
        let mut refused = lock(&self.counters.registrations_refused);
        *refused.entry(code.to_owned()).or_default() += 1;
    }

    /// Tells every element what is new for it, and the slots' machines who must be apart.
    pub(super) fn steer(&self) {
        let view = self.pulse.view();
        let mut registry = self.registry();
        let elements: Vec<_> = registry.elements.keys().cloned().collect();
        for (pool, id) in elements {
            if let Some((outbox, news)) = registry.news_for(&pool, &id, &view) {
                let kind = control::frame::Kind::Configuration(news);
                // A full outbox belongs to a stuck element; its connection will end.
                let _ = outbox.try_send(control::Frame { kind: Some(kind) });
            }
        }
        self.tell_machines(&mut registry);
    }

    /// Tells the slots' machines what has changed for them: who must be apart, who is preferred.
    fn tell_machines(&self, registry: &mut Registry) {
        let tell = |slot, input| self.pulse.send(Command::Input { slot, input });
        let (mut apart, mut preferred) = (BTreeSet::new(), BTreeMap::new());
        for (handle, record) in &registry.pools {
            let pairs = registry.apart(handle);
            for slot in record.slots.values() {
                apart.extend(pairs.iter().map(|(one, other)| (*slot, *one, *other)));
                preferred.insert(*slot, registry.preferred(handle, *slot));
            }
        }
        for news in apart.symmetric_difference(&registry.apart_told) {
            let (slot, one, other) = *news;
            let apart = apart.contains(news);
            tell(slot, Input::Apart { one, other, apart });
        }
        for (slot, node) in &preferred {
            if registry.preferred_told.get(slot) != Some(node) {
                tell(*slot, Input::Preferred(*node));
            }
        }
        registry.apart_told = apart;
        registry.preferred_told = preferred;
    }

    /// Notes the manager lease of a slot before its first record is written.
    pub(super) fn remember_lease(&self, slot: SlotId, lease_ms: u32) {
        let mut leases = lock(&self.leases_ms);
        let largest = leases.entry(slot).or_default();
        *largest = lease_ms.max(*largest);
    }

    /// Starts the machines of a pool's slots with the records on disk.
    pub(super) fn start_slots_of(&self, pool: &PoolRecord) -> Result<(), DbError> {
        for spec in &pool.spec.slots {
            let Some(id) = pool.slots.get(&spec.name) else {
                continue;
            };
            let stored = self.db.slot(*id)?;
            let lease_ms = stored.map_or(0, |(_, ms)| ms);
            self.remember_lease(*id, lease_ms.max(pool.spec.timing.manager_lease_ms));
            if let Some((stored, _)) = stored.filter(|(s, _)| s.newest() != s.record) {
                let (slot, term) = (&spec.name, stored.newest().term);
                tracing::warn!(%slot, term, "this record was prepared when the manager ended: it may be in force, so it is");
            }
            self.start_slot(&pool.spec, spec, *id, stored);
        }
        Ok(())
    }

    /// Starts the machine of a slot.
    pub(super) fn start_slot(
        &self,
        pool: &PoolSpec,
        slot: &SlotSpec,
        id: SlotId,
        stored: Option<(Stored, u32)>,
    ) {
        let preferred = self.registry().preferred(&pool.handle, id);
        let preferred_expected = slot.preferred.is_some();
        let manager_lease_ms_max = stored
            .map_or(0, |(_, ms)| ms)
            .max(pool.timing.manager_lease_ms);
        let stored = stored.map(|(stored, _)| stored);
        let mut timing = pool.timing;
        // Held until the thread has the slot: what is told of its pace comes after it.
        let mut paces = self.paces();
        if let Some(bounds) = pool.lease_bounds {
            // It goes on at the pace of the record, which was measured.
            let pace = stored.map_or_else(|| timing.pace(), |s| s.newest().pace);
            timing = timing.at(paces.begin(id, bounds, pace));
        }
        let settings = Settings {
            timing,
            lease_ms_max: pool.lease_ms_max(),
            preferred,
            preferred_expected,
            boot: self.boot,
            manager_lease_ms_max,
        };
        self.pulse.send(Command::AddSlot {
            id,
            pool: pool.handle.clone(),
            settings,
            stored,
        });
    }

    /// What a slot's machine has to say: it goes to the log, the audit and everybody who watches.
    pub(super) fn decided(self: &Arc<Self>, notice: &Notice) {
        match *notice {
            Notice::Decided {
                slot,
                record,
                decision,
                disk,
                prepared,
            } => {
                let disk_us = disk.as_micros();
                tracing::info!(%slot, term = record.term, disk_us, prepared, "a record is on disk");
                if prepared {
                    let outcome = if disk.is_zero() { "in-time" } else { "awaited" };
                    count(&self.counters.prepared, outcome);
                }
                count(&self.counters.decisions, decision.as_str());
                let advice = match decision {
                    Decision::Paced => self.paces().advice(slot),
                    _ => None,
                };
                self.tell(slot, decision.as_str(), |names| {
                    let reason = advice.map(|advice| advice.to_string());
                    let reason = reason.unwrap_or_else(|| names.decision(decision));
                    (names.record(record), reason)
                });
            }
            Notice::HandedOver { slot, handover } => handovers::tell(self, slot, handover),
            Notice::Quarantined { slot, who } => {
                count(&self.counters.quarantines, "begun");
                self.tell(slot, "quarantined", |names| names.quarantined(who));
            }
            Notice::Released { slot, node, cause } => {
                count(&self.counters.quarantines, cause.as_str());
                self.tell(slot, "released", |names| names.released(node, cause));
            }
            Notice::VoteRefused { slot, from, reason } => {
                count(&self.counters.votes_refused, reason.as_str());
                let (voter, slot) = {
                    let registry = self.registry();
                    (Names(&registry).node(from), slot)
                };
                tracing::debug!(%slot, voter, reason = reason.as_str(), "vote refused");
            }
        }
    }

    /// Tells of a slot what happened and why, and everybody what is new by it.
    pub(super) fn tell(
        &self,
        slot: SlotId,
        kind: &'static str,
        sentences: impl FnOnce(&Names<'_>) -> (String, String),
    ) {
        let (pool, name, text, reason) = {
            let registry = self.registry();
            let found = registry.slot_name(slot);
            let (pool, name) =
                found.map_or((None, None), |(p, n)| (Some(p.clone()), Some(n.clone())));
            let (text, reason) = sentences(&Names(&registry));
            (pool, name, text, reason)
        };
        let about = (&pool, &name);
        self.db
            .audit("manager", &self.id, kind, about, &text, &reason);
        self.events.add(Happening {
            kind,
            pool,
            slot: name,
            text,
            reason,
        });
        self.steer();
    }

    /// Registers a waiting switchover: its number and where the result comes.
    pub(super) fn expect_switchover(&self) -> (u64, oneshot::Receiver<control::SwitchoverResult>) {
        let id = self.next_switchover.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.switchovers).insert(id, sender);
        (id, receiver)
    }

    /// Nobody waits for it any more.
    pub(super) fn forget_switchover(&self, id: u64) {
        lock(&self.switchovers).remove(&id);
    }

    pub(super) fn switchover_result(&self, result: control::SwitchoverResult) {
        if let Some(waiting) = lock(&self.switchovers).remove(&result.id) {
            // Whoever asked may have given up.
            let _ = waiting.send(result);
        }
    }

    /// The pool under this handle.
    pub(super) fn pool(&self, handle: &PoolHandle) -> Option<PoolRecord> {
        self.registry().pools.get(handle).cloned()
    }
}

/// What `node` reports of those of `slots` whose record it is a member of: leases run between the
/// members, and nobody else's silences have a say.
pub(super) fn reports_of_member(
    view: &View,
    slots: &BTreeSet<SlotId>,
    node: NodeId,
    report: &control::ElementReport,
) -> Vec<(Record, control::SlotReport)> {
    let of_member = |report: &control::SlotReport| {
        let slot = SlotId(report.id);
        let record = view.slots.get(&slot)?.record?;
        let mut members = [Some(record.first), record.second].into_iter().flatten();
        let is_member = slots.contains(&slot) && members.any(|m| m.node == node);
        is_member.then(|| (record, report.clone()))
    };
    report.slots.iter().filter_map(of_member).collect()
}

/// Locks a mutex whose holder cannot leave it half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(counter: &Mutex<BTreeMap<&'static str, u64>>, what: &'static str) {
    *lock(counter).entry(what).or_default() += 1;
}

/// Sentences about decisions, with names for numbers.
pub(super) struct Names<'a>(&'a Registry);

impl Names<'_> {
    pub(super) fn node(&self, node: NodeId) -> String {
        let name = self.0.name_of(node);
        name.map_or_else(|| format!("element {}", node.0), |(_, id)| id.to_string())
    }

    fn record(&self, record: Record) -> String {
        let first = self.node(record.first.node);
        match record.second {
            Some(second) => {
                format!(
                    "term {}: {first} with {} armed, lease {} ms",
                    record.term,
                    self.node(second.node),
                    record.pace.lease_ms
                )
            }
            None => format!("term {}: {first} alone", record.term),
        }
    }

    fn decision(&self, decision: Decision) -> String {
        match decision {
            Decision::First => "the slot is given for the first time".into(),
            Decision::Split { by, failover: true } => {
                format!("{} lost the active and took the slot over", self.node(by))
            }
            Decision::Split {
                by,
                failover: false,
            } => {
                format!("{} lost its standby and goes on alone", self.node(by))
            }
            Decision::SplitToOther { by } => {
                format!("{} lost its peer and could not serve itself", self.node(by))
            }
            Decision::Armed => "the standby is in sync and heard in both directions".into(),
            Decision::Paced => "another lease fits what was measured".into(),
            Decision::Replaced { silent } => {
                format!(
                    "{} was silent until its lease had run out",
                    self.node(silent)
                )
            }
            Decision::Restarted { node } => format!("the agent of {} restarted", self.node(node)),
            Decision::Fenced { node } => {
                format!("{} was declared off", self.node(node))
            }
        }
    }
}
