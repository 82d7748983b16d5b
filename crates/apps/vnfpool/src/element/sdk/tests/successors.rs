//! What is said of a class while its successors come into sync, and fall out of it.

use std::time::Duration;

use bytes::Bytes;
use vnfpool_model::Time;
use vnfpool_wire::sdk::{Level, LevelKind, Op};

use super::pair::named;
use crate::element::sdk::ClassSpec;
use crate::element::sdk::bell::Bell;
use crate::element::sdk::class::{Class, Held, NotHeld};
use crate::element::sdk::log::FollowerId;

const LAG_MS: u32 = 100;

/// A class of which this element is the active, at simulated times.
struct Active {
    class: Class,
    now: Time,
}

impl Active {
    fn at(kind: LevelKind) -> Self {
        let class = Class::new(Bell::new().unwrap());
        let level = Level {
            kind: kind.into(),
            lag_ms: LAG_MS,
            entries: 4,
        };
        let mut state = class.state();
        state.set_spec(ClassSpec {
            name: named("c"),
            level,
            format: 1,
            schema_version: 1,
        });
        state.set_tenure(Some(1), Time(1));
        state.table.set_complete(true, Time(1));
        drop(state);
        let now = Time(1);
        Self { class, now }
    }

    /// A successor that is fed, and knows nothing yet.
    fn begin(&self) -> FollowerId {
        self.class.begin_feed(Bell::new().unwrap())
    }

    /// One that has everything.
    fn whole(&self) -> FollowerId {
        let id = self.begin();
        self.set_in_sync(id, true);
        self.catch_up(id);
        id
    }

    fn set_in_sync(&self, id: FollowerId, is_in_sync: bool) {
        self.class
            .with_feed(id, |feed| feed.set_in_sync(is_in_sync, self.now));
    }

    /// The successor reads everything, and answers that it has it.
    fn catch_up(&self, id: FollowerId) {
        let mut state = self.class.state();
        state.table.read(id, usize::MAX, usize::MAX, |_| {});
        let asked = state.ask(id, self.now);
        drop(state);
        if let Some(question) = asked {
            self.class
                .with_feed(id, |feed| feed.answered(question, true, self.now));
        }
    }

    fn put(&self) {
        let op = Op {
            key: Bytes::from_static(b"k"),
            value: Some(Bytes::from_static(b"v")),
            ttl_s: 0,
        };
        self.class.state().write(1, vec![op], self.now).unwrap();
    }

    /// What a commit of everything put so far is told.
    fn commit(&self) -> Held {
        let mut state = self.class.state();
        let position = state.table.end();
        state.is_held(position, self.now)
    }

    fn level(&self) -> LevelKind {
        self.class.state().level_now(self.now).0.kind()
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after(Duration::from_millis(ms));
    }
}

/// Goal: of two successors the one that has lost changes is waited for, whatever the other one holds,
/// until it has been behind for longer than the level allows; then that is said, until it has
/// everything again.
#[test]
fn a_successor_that_lost_changes_is_not_forgotten() {
    let mut active = Active::at(LevelKind::LevelCommit);
    let (one, other) = (active.whole(), active.whole());
    active.put();
    active.catch_up(one);
    active.catch_up(other);
    assert_eq!(active.commit(), Held::Yes);
    active.class.state().lose(one, active.now, active.now);
    active.set_in_sync(one, false);
    active.put();
    active.catch_up(other);
    assert_eq!(active.commit(), Held::Wait, "one of them misses something");
    assert_eq!(active.class.state().room(active.now), 0);
    assert_eq!(active.level(), LevelKind::LevelCommit);
    active.pass(u64::from(LAG_MS) + 1);
    active.catch_up(other);
    assert_eq!(active.commit(), Held::No(NotHeld::Behind));
    assert_eq!(active.level(), LevelKind::LevelEventual);
    assert!(active.class.state().room(active.now) > 4);
    let downgrades = active.class.state().downgrades(active.now);
    assert_eq!((downgrades.count, downgrades.now.is_some()), (1, true));
    active.set_in_sync(one, true);
    active.catch_up(one);
    assert_eq!(active.commit(), Held::Yes);
    assert_eq!(active.level(), LevelKind::LevelCommit);
}

/// Goal: the same of the only one: it is waited for, then the level is lowered.
#[test]
fn the_only_successor_is_waited_for_when_it_lost_changes() {
    let mut active = Active::at(LevelKind::LevelBounded);
    let one = active.whole();
    active.put();
    active.class.state().lose(one, active.now, active.now);
    active.set_in_sync(one, false);
    for _ in 0..2 {
        assert_eq!(active.class.state().room(active.now), 0);
        // Neither time nor another loss begins it anew.
        active.pass(u64::from(LAG_MS) / 2);
        active.class.state().lose(one, active.now, active.now);
    }
    active.pass(1);
    assert_eq!(active.level(), LevelKind::LevelEventual);
    assert_ne!(active.class.state().room(active.now), 0);
    active.class.end_feed(one);
    assert_eq!(active.level(), LevelKind::LevelNone);
}

/// Goal: whoever is not in sync holds nothing, even if it answers: its table may refuse entries.
#[test]
fn a_successor_that_is_not_in_sync_is_not_counted() {
    let mut active = Active::at(LevelKind::LevelCommit);
    let first_copy = active.begin();
    active.put();
    active.catch_up(first_copy);
    assert_eq!(active.commit(), Held::No(NotHeld::Alone));
    let whole = active.whole();
    assert_eq!(active.commit(), Held::Yes, "a first copy holds nobody up");
    active.put();
    let asked = active.class.state().ask(whole, active.now);
    assert_eq!(asked, None, "it has read nothing");
    let mut state = active.class.state();
    state.table.read(whole, usize::MAX, usize::MAX, |_| {});
    let asked = state.ask(whole, active.now).unwrap();
    drop(state);
    active.set_in_sync(whole, false);
    let now = active.now;
    active
        .class
        .with_feed(whole, |feed| feed.answered(asked, true, now));
    active.catch_up(whole);
    assert_eq!(active.commit(), Held::Wait, "it takes not everything");
    active.pass(u64::from(LAG_MS) + 1);
    assert_eq!(active.commit(), Held::No(NotHeld::Behind));
}

/// Goal: a level that waits for nobody is kept by a successor that misses changes and is mended.
#[test]
fn at_eventual_a_successor_may_miss_changes() {
    let mut active = Active::at(LevelKind::LevelEventual);
    assert_eq!(active.level(), LevelKind::LevelNone);
    let one = active.whole();
    active.class.state().lose(one, active.now, active.now);
    active.set_in_sync(one, false);
    active.pass(10 * u64::from(LAG_MS));
    assert_eq!(active.level(), LevelKind::LevelEventual);
}
