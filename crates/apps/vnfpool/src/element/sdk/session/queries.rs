//! Reading a class: single entries, ranges, watches.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use vnfpool_model::{SlotId, Time};
use vnfpool_statesync::{Change, Item};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::{
    Changes, Entries, Found, Get, KEY_BYTES_MAX, Marker, MarkerKind, Op, Range, Watch,
};

use super::{Fatal, Session};
use crate::element::sdk::class::Class;
use crate::element::sdk::log::{FollowerId, Reading};

/// Watches of one connection.
const WATCHES_MAX: usize = 64;

/// Entries and bytes of one answer. One entry above the bytes still fits a message.
const ANSWER: (usize, usize) = (2_048, 128 * 1024);

/// A class that a function watches.
#[derive(Debug)]
pub(super) struct Watching {
    slot: SlotId,
    class: Arc<Class>,
    id: FollowerId,
    /// The last key that was told; none when every entry was.
    snapshot: Option<Bytes>,
}

impl Watching {
    /// Of the class's changes, those up to here have to be told before anything is built on them.
    pub(super) fn end(&self) -> u64 {
        self.class.state().table.end()
    }

    /// Whether every entry, and every change up to `position`, was told.
    pub(super) fn is_told(&self, position: u64) -> bool {
        self.snapshot.is_none() && self.class.state().table.log().read_up_to(self.id) >= position
    }

    pub(super) fn is_of(&self, slot: SlotId) -> bool {
        self.slot == slot
    }

    pub(super) fn has_more(&self) -> bool {
        !self.is_told(self.end())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.class.state().table.leave(self.id);
    }
}

impl Session {
    pub(super) fn get(&mut self, get: &Get, now: Time) {
        let class = self.class(get.slot, get.class).ok();
        let item = class.and_then(|class| class.state().get(&get.key, now));
        let (value, ttl_s) = item.map(|item| (item.value, item.ttl_s)).unzip();
        self.send(ReplyKind::Found(Found {
            id: get.id,
            value,
            ttl_s: ttl_s.unwrap_or_default(),
        }));
    }

    pub(super) fn range(&mut self, range: &Range, now: Time) {
        let (entries_max, bytes_max) = ANSWER;
        let limit = match usize::try_from(range.limit).unwrap_or(usize::MAX) {
            0 => entries_max,
            limit => limit.min(entries_max),
        };
        let to = match range.to.is_empty() {
            true => Bound::Unbounded,
            false => Bound::Excluded(&*range.to),
        };
        let mut ops = Vec::new();
        let mut more = false;
        if let Ok(class) = self.class(range.slot, range.class) {
            let from = Bound::Included(&*range.from);
            let take = |item| ops.push(op(item));
            let state = class.state();
            more = state.table.range(from, to, (limit, bytes_max), now, take);
        }
        let id = range.id;
        self.send(ReplyKind::Entries(Entries { id, ops, more }));
    }

    pub(super) fn watch(&mut self, watch: Watch) -> Result<(), Fatal> {
        let id = watch.id;
        if self.watches.len() >= WATCHES_MAX || self.watches.contains_key(&id) {
            let text = format!("at most {WATCHES_MAX} watches, each with an id of its own");
            return Err(Fatal::new("request", text));
        }
        let Ok(class) = self.class(watch.slot, watch.class) else {
            self.mark(id, MarkerKind::MarkerRefused);
            return Ok(());
        };
        let follower = class.state().table.follow(self.hub.bell.clone());
        let watching = Watching {
            slot: SlotId(watch.slot),
            class,
            id: follower,
            snapshot: Some(Bytes::new()),
        };
        self.watches.insert(id, watching);
        Ok(())
    }

    /// Tells what is new to watch, as far as the function reads it.
    pub(super) fn tell_changes(&mut self, now: Time) {
        let mut watches = std::mem::take(&mut self.watches);
        for (id, watching) in &mut watches {
            // The snapshot first: until it is told, changes wait in the log, and if they are too many
            // for that it begins again.
            while watching.snapshot.is_some() && self.has_room() {
                self.tell_snapshot(*id, watching, now);
            }
            let mut has_more = watching.snapshot.is_none();
            while has_more && self.has_room() {
                has_more = self.tell_log(*id, watching);
            }
        }
        self.watches = watches;
    }

    fn tell_snapshot(&mut self, id: u64, watching: &mut Watching, now: Time) {
        let Some(after) = watching.snapshot.take() else {
            return;
        };
        let mut ops = Vec::new();
        let mut last = Bytes::new();
        let take = |item: Item| {
            last = item.key.clone();
            ops.push(op(item));
        };
        let state = watching.class.state();
        let from = Bound::Excluded(&*after);
        let has_more = state.table.range(from, Bound::Unbounded, ANSWER, now, take);
        drop(state);
        if !ops.is_empty() {
            self.send(ReplyKind::Changes(Changes { id, ops }));
        }
        match has_more {
            true => watching.snapshot = Some(last),
            false => self.mark(id, MarkerKind::MarkerLive),
        }
    }

    /// True when there is more.
    fn tell_log(&mut self, id: u64, watching: &mut Watching) -> bool {
        let (changes_max, bytes_max) = ANSWER;
        let mut ops = Vec::new();
        let take = |change: &Change| {
            ops.push(match change {
                Change::Put { item, .. } => op(item.clone()),
                Change::Delete { key } => Op {
                    key: key.clone(),
                    ..Op::default()
                },
            });
        };
        let mut state = watching.class.state();
        let reading = state.table.read(watching.id, changes_max, bytes_max, take);
        drop(state);
        if !ops.is_empty() {
            self.send(ReplyKind::Changes(Changes { id, ops }));
        }
        if reading == Reading::Overrun {
            watching.snapshot = Some(Bytes::new());
            self.mark(id, MarkerKind::MarkerAnew);
            // The snapshot follows at the next look, which must not wait for a change.
            self.hub.bell.ring();
        }
        reading == Reading::More
    }

    fn mark(&mut self, id: u64, kind: MarkerKind) {
        let kind = kind.into();
        self.send(ReplyKind::Marker(Marker { id, kind }));
    }
}

fn op(item: Item) -> Op {
    debug_assert!(item.key.len() <= KEY_BYTES_MAX);
    Op {
        key: item.key,
        value: Some(item.value),
        ttl_s: item.ttl_s,
    }
}
