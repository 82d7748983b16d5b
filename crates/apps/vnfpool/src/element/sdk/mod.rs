//! The function beside this agent: a socket at which it registers, the tables of its state, and how it
//! is told what this element is.
//!
//! ```text
//!   function ==Unix socket== sdk thread (server, a Session each) -+-> Class (table, log) --> Source --> stream
//!                                   ^                             |         ^
//!                 roles, bell ------+                             |         +-- Sink <-- stream of the active
//!                                                                 +-> FunctionHealth --> health thread
//! ```
//!
//! A [`session::Session`] has no socket and no clock: bytes in, bytes out. The tables are shared with
//! the threads of the state streams, under one short lock each.

mod bell;
mod class;
mod door;
mod feed;
mod function;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod left_out;
mod log;
mod server;
mod session;
mod sink;
mod source;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use vnfpool_model::{Epoch, Role, SlotId, Time};
use vnfpool_statesync::class::{Bounds, ClassName, Demand, Level, Offer};
use vnfpool_wire::sdk::LevelKind;

use self::bell::Bell;
use self::class::{Class, ClassSpec};
pub(crate) use self::function::FunctionHealth;
pub(crate) use self::server::start;
use self::sink::Sink;
use self::source::Source;
use super::downgrades::Downgrades;
use super::sync;
use crate::pulse::now;

/// What this element is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotRole {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) epoch: Epoch,
}

/// What the threads share: roles, tables, the function.
#[derive(Debug)]
pub(crate) struct Hub {
    element: String,
    pool: String,
    bell: Bell,
    health: Arc<FunctionHealth>,
    /// Times that a connection could not be accepted.
    unaccepted: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<SlotId, SlotRole>,
    /// The first epoch in which this element has been the active of a slot without a break.
    active_since: BTreeMap<SlotId, u64>,
    /// Slots of which another process of this agent was the active: its tables are lost, and a
    /// successor may have everything that was in them.
    inherited: BTreeSet<SlotId>,
    classes: BTreeMap<SlotId, BTreeMap<ClassName, Arc<Class>>>,
    /// Of the registered function.
    specs: Vec<ClassSpec>,
    has_new_specs: bool,
    /// Counts registrations.
    registrations: u64,
    /// Counts changes of `slots`.
    revision: u64,
    /// Of the thread that gives them, when a slot was seen last.
    notices_lost: BTreeMap<SlotId, u64>,
}

impl Hub {
    /// Nothing is registered; no slot is known.
    ///
    /// # Errors
    /// Without a descriptor to wake the thread with.
    pub(crate) fn new(
        element: String,
        pool: String,
        health: Arc<FunctionHealth>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            element,
            pool,
            bell: Bell::new()?,
            health,
            unaccepted: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process before was the active of a slot.
    pub(crate) fn inherit(&self, slot: SlotId) {
        self.state().inherited.insert(slot);
    }

    /// Whether this element has been the active of a slot since before this process.
    fn is_inherited(&self, slot: SlotId) -> bool {
        self.state().inherited.contains(&slot)
    }

    /// Whatever the process before had of a slot does not count any more.
    fn begin_anew(&self, slot: SlotId) {
        self.state().inherited.remove(&slot);
        self.health.needs_no_state(slot);
    }

    /// Takes in what this element is in a slot, from the notices of each change. What is older than
    /// known changes nothing.
    pub(crate) fn set_role(&self, slot: SlotId, news: SlotRole) {
        let mut state = self.state();
        state.set_role(slot, news, &self.bell, now());
        self.forget_inheritance(&mut state, slot);
    }

    /// Of a slot of which this element is not the active any more.
    fn forget_inheritance(&self, state: &mut State, slot: SlotId) {
        if !state.active_since.contains_key(&slot) {
            state.inherited.remove(&slot);
            self.health.needs_no_state(slot);
        }
    }

    /// The same, as it was seen at some time: only for a slot that is not known, or after notices were
    /// lost. What was between is not known: another element may have been the active.
    pub(crate) fn set_seen_role(&self, slot: SlotId, news: SlotRole, notices_lost: u64) {
        let at = now();
        let mut state = self.state();
        let before = state.notices_lost.insert(slot, notices_lost);
        if state.slots.contains_key(&slot) && before == Some(notices_lost) {
            return;
        }
        for class in state.classes.entry(slot).or_default().values() {
            class.state().set_tenure(None, at);
        }
        if state.active_since.remove(&slot).is_some() {
            state.revision += 1;
        }
        state.set_role(slot, news, &self.bell, at);
        self.forget_inheritance(&mut state, slot);
    }

    /// The slot is not this element's any more; its state goes.
    pub(crate) fn remove_slot(&self, slot: SlotId) {
        let mut state = self.state();
        if state.slots.remove(&slot).is_none() {
            return;
        }
        let classes = state.classes.remove(&slot).unwrap_or_default();
        for class in classes.values() {
            let mut class = class.state();
            class.set_tenure(None, now());
            class.end();
        }
        state.active_since.remove(&slot);
        self.forget_inheritance(&mut state, slot);
        state.revision += 1;
        self.bell.ring();
        // Its entries are freed when nobody has to wait for the lock.
        drop(state);
        drop(classes);
    }

    /// What the registered function says of itself.
    pub(crate) fn report(&self) -> Option<function::Report> {
        self.health.report()
    }

    /// Times that a connection could not be accepted for want of descriptors or memory.
    pub(crate) fn unaccepted(&self) -> u64 {
        self.unaccepted.load(Ordering::Relaxed)
    }

    /// Entries and bytes of every table.
    pub(crate) fn figures(&self) -> Vec<(SlotId, ClassName, usize, usize)> {
        let state = self.state();
        let tables = state.classes.iter().flat_map(|(slot, classes)| {
            classes.iter().map(|(name, class)| {
                let state = class.state();
                (
                    *slot,
                    name.clone(),
                    state.table.entries(),
                    state.table.bytes(),
                )
            })
        });
        tables.collect()
    }

    /// Of every class of a slot: when it was held at a lower level than agreed.
    pub(crate) fn downgrades(&self, slot: SlotId, now: Time) -> BTreeMap<ClassName, Downgrades> {
        let classes = self.state().classes.get(&slot).cloned().unwrap_or_default();
        let each = classes.into_iter();
        each.map(|(name, class)| (name, class.state().downgrades(now)))
            .collect()
    }

    /// The classes of a slot that the function has yet to put again.
    pub(crate) fn restoring(&self, slot: SlotId) -> BTreeSet<ClassName> {
        let classes = self.state().classes.get(&slot).cloned().unwrap_or_default();
        let each = classes.into_iter();
        each.filter(|(_, class)| class.state().is_restoring())
            .map(|(name, _)| name)
            .collect()
    }

    /// Lets entries go whose time is over. The active decides that, its copies follow.
    fn sweep(&self, now: Time) {
        self.drop_left_out(now);
        let classes: Vec<_> = {
            let state = self.state();
            state
                .classes
                .values()
                .flat_map(BTreeMap::values)
                .cloned()
                .collect()
        };
        for class in classes {
            let mut state = class.state();
            if state.tenure().is_some() {
                state.table.sweep(now);
            }
        }
    }

    /// The classes of the registered function, and of the last one when it is gone, as the streams need
    /// them; none when they are those of the last time.
    pub(crate) fn news_of_classes(self: &Arc<Self>) -> Option<Vec<sync::Class>> {
        let mut state = self.state();
        std::mem::take(&mut state.has_new_specs).then(|| {
            let specs = state.specs.iter();
            specs.map(|spec| self.stream_class(spec)).collect()
        })
    }

    fn stream_class(self: &Arc<Self>, spec: &ClassSpec) -> sync::Class {
        let (of_source, of_sink) = (Arc::clone(self), Arc::clone(self));
        let (source_name, sink_name) = (spec.name.clone(), spec.name.clone());
        sync::Class {
            demand: Demand {
                class: spec.name.clone(),
                format: spec.format,
                schema: spec.schema_version,
                level: demanded(&spec.level),
            },
            accepts_less: false,
            offer: Offer {
                class: spec.name.clone(),
                format: spec.format,
                schema: spec.schema_version,
                level: Level::Commit(Bounds::DEFAULT),
            },
            open_source: Arc::new(move |slot| {
                let class = of_source.class(slot, &source_name);
                let class = class.context(NOT_HERE)?;
                Ok(Box::new(Source::open(class)?))
            }),
            open_sink: Arc::new(move |slot| {
                let class = of_sink.class(slot, &sink_name);
                let class = class.context(NOT_HERE)?;
                Ok(Box::new(Sink::new(class)))
            }),
        }
    }

    /// A class of a slot; none for a slot that is not ours, or a class that no function has registered.
    fn class(&self, slot: SlotId, name: &ClassName) -> Option<Arc<Class>> {
        let state = self.state();
        state.slots.get(&slot)?;
        state.classes.get(&slot)?.get(name).cloned()
    }
}

impl State {
    fn set_role(&mut self, slot: SlotId, news: SlotRole, bell: &Bell, now: Time) {
        let known = self.slots.get(&slot);
        if known.is_none_or(|known| *known != news && known.epoch <= news.epoch) {
            self.slots.insert(slot, news);
            self.revision += 1;
        }
        let Some(tenure) = self.slots.get(&slot).map(tenure) else {
            return;
        };
        if let Some(epoch) = tenure {
            self.active_since.entry(slot).or_insert(epoch);
        } else {
            self.active_since.remove(&slot);
        }
        for class in self.classes.entry(slot).or_default().values() {
            class.state().set_tenure(tenure, now);
        }
        self.create_classes(bell, now);
        bell.ring();
    }

    /// Makes the classes of the registered function in every slot.
    fn create_classes(&mut self, bell: &Bell, now: Time) {
        for (slot, role) in &self.slots {
            let classes = self.classes.entry(*slot).or_default();
            for spec in &self.specs {
                let class = classes.entry(spec.name.clone()).or_insert_with(|| {
                    let class = Class::new(bell.clone());
                    class.state().set_tenure(tenure(role), now);
                    Arc::new(class)
                });
                class.state().set_spec(spec.clone());
            }
        }
    }
}

const NOT_HERE: &str =
    "the slot is not this element's any more, or its function has registered without the class";

/// The level as the stream has it. The stream counts marks and barriers too, and what is under way to it:
/// the function is held back before a copy counts as out of sync.
fn demanded(level: &vnfpool_wire::sdk::Level) -> Level {
    let entries = level.entries.saturating_add(level.entries / 8);
    let bounds = Bounds {
        lag_ms: level.lag_ms.max(1),
        entries: entries.saturating_add(STREAM_RECORDS),
    };
    match level.kind() {
        LevelKind::LevelNone => Level::None,
        LevelKind::LevelEventual => Level::Eventual,
        LevelKind::LevelBounded => Level::Bounded(bounds),
        LevelKind::LevelCommit => Level::Commit(bounds),
    }
}

/// Records of a stream beside changes, at most, while the successor keeps up.
const STREAM_RECORDS: u32 = 1_024;

/// The epoch in which puts are taken; none while this element is not the active.
fn tenure(slot: &SlotRole) -> Option<u64> {
    (slot.role == Role::Active).then(|| slot.epoch.fencing_token())
}
