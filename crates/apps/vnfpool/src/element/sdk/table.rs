//! One class of state of one slot, as this agent holds it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use vnfpool_model::Time;
use vnfpool_statesync::{Change, Item};

use super::bell::Bell;
use super::log::{FollowerId, Log, Reading};

/// Most bytes of a table, with [`ENTRY_OVERHEAD_BYTES`] for each entry.
pub(super) const TABLE_BYTES_MAX: usize = 512 * 1024 * 1024;

/// What an entry weighs beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Entries that one sweep looks at, so that nobody waits for it for long.
const SWEPT_AT_ONCE: usize = 2_048;

#[derive(Debug)]
struct Entry {
    value: Box<[u8]>,
    /// [`Time::NEVER`] for an entry that stays.
    expires_at: Time,
}

impl Entry {
    /// What is left of its time, rounded up: a copy does not go before the original.
    fn ttl_s(&self, now: Time) -> u32 {
        if self.expires_at == Time::NEVER {
            return 0;
        }
        let left = self
            .expires_at
            .since(now)
            .as_nanos()
            .div_ceil(1_000_000_000);
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a class holds at most {TABLE_BYTES_MAX} bytes: delete entries, or give them a ttl")]
pub(crate) struct Full;

/// Ordered entries, and the log of their changes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Box<[u8]>, Entry>,
    bytes: usize,
    is_complete: bool,
    swept: Box<[u8]>,
    log: Log,
}

impl Table {
    /// Everything that the active has is here; false when it may have been lost.
    pub(super) const fn is_complete(&self) -> bool {
        self.is_complete
    }

    pub(super) fn set_complete(&mut self, is_complete: bool, now: Time) {
        if is_complete && !self.is_complete {
            // Who waits for the rest looks again.
            self.log.ring(now);
        }
        self.is_complete = is_complete;
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The position of the last change.
    pub(super) fn end(&self) -> u64 {
        self.log.end()
    }

    pub(super) const fn log(&self) -> &Log {
        &self.log
    }

    pub(super) fn follow(&mut self, bell: Bell) -> FollowerId {
        self.log.follow(bell)
    }

    pub(super) fn leave(&mut self, id: FollowerId) {
        self.log.leave(id);
    }

    pub(super) fn read(
        &mut self,
        id: FollowerId,
        changes_max: usize,
        bytes_max: usize,
        take: impl FnMut(&Change),
    ) -> Reading {
        self.log.read(id, changes_max, bytes_max, take)
    }

    /// Tells the followers of what was put and deleted since the last time.
    pub(super) fn ring(&mut self, now: Time) {
        self.log.ring(now);
    }

    /// Whether entries of these keys and sizes of values can be put, one after the other. What makes the
    /// table no larger always can. What deletes free before is not counted: it is free for the next batch.
    pub(super) fn has_room_for<'a>(&self, puts: impl Iterator<Item = (&'a [u8], usize)>) -> bool {
        // Each key by itself, so that one that comes twice counts as two: a bound, without a set.
        let added = puts.map(|(key, value)| match self.entries.get(key) {
            Some(entry) => value.saturating_sub(entry.value.len()),
            None => key.len() + value + ENTRY_OVERHEAD_BYTES,
        });
        let added: usize = added.sum();
        added == 0 || self.bytes + added <= TABLE_BYTES_MAX
    }

    /// Writes an entry; key and value are copied, so that they do not keep the message that they
    /// came in.
    ///
    /// # Errors
    /// [`Full`], and nothing is changed.
    pub(super) fn put(&mut self, item: Item, now: Time) -> Result<(), Full> {
        let expires_at = match item.ttl_s {
            0 => Time::NEVER,
            ttl_s => now.after(Duration::from_secs(ttl_s.into())),
        };
        let is_new = match self.entries.get_mut(&*item.key) {
            Some(entry) => {
                let bytes = self.bytes - entry.value.len() + item.value.len();
                if bytes > TABLE_BYTES_MAX {
                    return Err(Full);
                }
                self.bytes = bytes;
                match entry.value.len() == item.value.len() {
                    true => entry.value.copy_from_slice(&item.value),
                    false => entry.value = Box::from(&*item.value),
                }
                entry.expires_at = expires_at;
                false
            }
            None => {
                let bytes = self.bytes + item.key.len() + item.value.len() + ENTRY_OVERHEAD_BYTES;
                if bytes > TABLE_BYTES_MAX {
                    return Err(Full);
                }
                self.bytes = bytes;
                let entry = Entry {
                    value: Box::from(&*item.value),
                    expires_at,
                };
                self.entries.insert(Box::from(&*item.key), entry);
                true
            }
        };
        match self.log.is_followed() {
            true => self.log.push(Change::Put { item, is_new }),
            false => self.log.skip(),
        }
        Ok(())
    }

    /// Deletes an entry; it counts as a change also if there is none.
    pub(super) fn delete(&mut self, key: Bytes) {
        if let Some(entry) = self.entries.remove(&*key) {
            self.bytes -= key.len() + entry.value.len() + ENTRY_OVERHEAD_BYTES;
        }
        match self.log.is_followed() {
            true => self.log.push(Change::Delete { key }),
            false => self.log.skip(),
        }
    }

    /// The entry of a key, unless its time is over.
    pub(super) fn get(&self, key: &[u8], now: Time) -> Option<Item> {
        let entry = self.entries.get(key)?;
        (entry.expires_at > now).then(|| Item {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(&entry.value),
            ttl_s: entry.ttl_s(now),
        })
    }

    /// Entries in order from `from` to `to`, at most `entries_max`, until their bytes reach
    /// `bytes_max`; true when there are more.
    pub(super) fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        (entries_max, bytes_max): (usize, usize),
        now: Time,
        mut take: impl FnMut(Item),
    ) -> bool {
        if is_empty(from, to) {
            return false;
        }
        let (mut entries, mut bytes) = (0, 0);
        for (key, entry) in self.entries.range::<[u8], _>((from, to)) {
            if entry.expires_at <= now {
                continue;
            }
            if entries == entries_max || bytes >= bytes_max {
                return true;
            }
            entries += 1;
            bytes += key.len() + entry.value.len();
            take(Item {
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(&entry.value),
                ttl_s: entry.ttl_s(now),
            });
        }
        false
    }

    /// Deletes some of the entries whose time is over; the active does so, and its copies follow.
    pub(super) fn sweep(&mut self, now: Time) {
        let mut over = Vec::new();
        let mut last = None;
        let begin = Bound::Excluded(&*self.swept);
        let rest = self.entries.range::<[u8], _>((begin, Bound::Unbounded));
        for (looked_at, (key, entry)) in rest.enumerate() {
            if looked_at == SWEPT_AT_ONCE {
                break;
            }
            last = Some((looked_at, key));
            if entry.expires_at <= now {
                over.push(Bytes::copy_from_slice(key));
            }
        }
        self.swept = match last {
            Some((looked_at, key)) if looked_at + 1 == SWEPT_AT_ONCE => key.clone(),
            // From the begin again.
            _ => Box::default(),
        };
        for key in over {
            self.delete(key);
        }
        self.log.ring(now);
    }
}

/// The standard library panics on such a range.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &str, value: &str, ttl_s: u32) -> Item {
        Item {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ttl_s,
        }
    }

    fn seconds(seconds: u64) -> Time {
        Time(seconds * 1_000_000_000)
    }

    fn keys(table: &Table, from: Bound<&str>, to: Bound<&str>, now: Time) -> Vec<Bytes> {
        let mut keys = Vec::new();
        let (from, to) = (from.map(str::as_bytes), to.map(str::as_bytes));
        let bounds = (usize::MAX, usize::MAX);
        table.range(from, to, bounds, now, |item| keys.push(item.key));
        keys
    }

    #[test]
    fn entries_are_in_order_and_weigh_what_they_are() {
        let mut table = Table::default();
        for (key, value) in [("b", "2"), ("a", "1"), ("c", "3"), ("b", "twenty")] {
            table.put(item(key, value, 0), Time::ZERO).unwrap();
        }
        assert_eq!(table.bytes(), 3 * ENTRY_OVERHEAD_BYTES + 3 + 8);
        let from = Bound::Excluded("a");
        assert_eq!(keys(&table, from, Bound::Unbounded, Time::ZERO), ["b", "c"]);
        assert_eq!(
            keys(&table, from, Bound::Excluded("a"), Time::ZERO).len(),
            0
        );
        let found = table.get(b"b", Time::ZERO).unwrap();
        assert_eq!(found, item("b", "twenty", 0));
        for key in ["a", "b", "c", "c"] {
            table.delete(Bytes::from_static(key.as_bytes()));
        }
        assert_eq!((table.bytes(), table.entries(), table.end()), (0, 0, 8));
    }

    #[test]
    fn what_is_over_is_not_shown_and_goes_with_a_sweep() {
        let mut table = Table::default();
        let follower = table.follow(Bell::new().unwrap());
        table.put(item("short", "", 2), Time::ZERO).unwrap();
        table.put(item("long", "", 0), Time::ZERO).unwrap();
        assert_eq!(table.get(b"short", seconds(1)).unwrap().ttl_s, 1);
        assert_eq!(table.get(b"short", seconds(2)), None);
        let all = (Bound::Unbounded, Bound::Unbounded);
        assert_eq!(keys(&table, all.0, all.1, seconds(2)), ["long"]);
        table.sweep(seconds(2));
        assert_eq!(table.entries(), 1);
        let mut last = None;
        table.read(follower, 9, usize::MAX, |change| {
            last = Some(change.clone())
        });
        let key = Bytes::from_static(b"short");
        assert_eq!(last, Some(Change::Delete { key }));
    }

    /// Goal: a sweep that looks at a part only gets round.
    #[test]
    fn sweeps_reach_every_entry() {
        let mut table = Table::default();
        let all = 2 * SWEPT_AT_ONCE + 1;
        for number in 0..all {
            table
                .put(item(&format!("{number:06}"), "", 1), Time::ZERO)
                .unwrap();
        }
        for left in [all - SWEPT_AT_ONCE, 1, 0] {
            table.sweep(seconds(1));
            assert_eq!(table.entries(), left);
        }
    }
}
