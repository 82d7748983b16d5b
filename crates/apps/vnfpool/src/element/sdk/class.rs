//! A class of state of one slot: its table, who writes it, who is fed from it, at which level.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use vnfpool_model::Time;
use vnfpool_statesync::Item;
use vnfpool_statesync::class::ClassName;
use vnfpool_wire::sdk::{Level, LevelKind, Op};

use super::bell::Bell;
use super::feed::Feed;
use super::log::FollowerId;
use super::table::Table;
use crate::element::downgrades::Downgrades;

/// What a function has declared of a class.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClassSpec {
    pub(crate) name: ClassName,
    pub(crate) level: Level,
    /// What the values are.
    pub(crate) format: u16,
    pub(crate) schema_version: u16,
}

/// Why changes were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteRefusal {
    /// This element is not the slot's active.
    Role,
    /// It is, in a newer epoch.
    Epoch {
        newest: u64,
    },
    Full,
}

/// Whether the successor has what was put before a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    /// Not yet; the class's bell rings when there is news.
    Wait,
    No(NotHeld),
}

/// Why it is not known to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotHeld {
    /// The level of the class sends nothing, or asks for no commits.
    Level,
    /// There is no successor that has had a whole copy.
    Alone,
    /// It lags, or misses changes, for longer than the level allows.
    Behind,
    /// This agent's copy is not whole itself.
    Restoring,
}

impl NotHeld {
    /// Stable word and text.
    pub(super) const fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::Level => (
                "level",
                "the class is not declared at the level commit: nobody waits for the successor",
            ),
            Self::Alone => (
                "alone",
                "no successor has a whole copy: what was put is in this element only",
            ),
            Self::Behind => (
                "behind",
                "the successor lags, or misses changes, for longer than the level allows: it is not \
                 waited for until it has caught up",
            ),
            Self::Restoring => (
                "restoring",
                "the agent has lost its copy: put everything again, then say that it is restored",
            ),
        }
    }
}

/// A copy that nobody has kept whole for so long when this element becomes the active is not called
/// whole: the former active does not send the class any more, or has served on without this element. A
/// stream ends with its active, and that is succeeded sooner.
pub(super) const UNKEPT_MAX: Duration = Duration::from_secs(10);

/// The epochs in which this element has been the active, without a break. A standby that is armed makes
/// a new one; what was put under the one before is still the word of the only active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    since: u64,
    newest: u64,
}

/// Whether the function beside this agent has the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The one that is registered has, or the last one that was.
    Registered,
    /// It has registered without this class, which is kept for another one.
    LeftOut(LeftOut),
    /// The class is not one of its slot any more: nobody finds it, so nothing may feed or read it.
    Over,
}

/// Since when a class is one of nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// The first registration without it, counted by the hub.
    pub(super) since: u64,
    /// When the newest one was.
    pub(super) at: Time,
}

/// A class, shared by the thread of the functions and those of its streams.
#[derive(Debug)]
pub(crate) struct Class {
    state: Mutex<State>,
    /// Rung when somebody waits for a successor and there is news of one.
    bell: Bell,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) table: Table,
    spec: Option<ClassSpec>,
    standing: Standing,
    tenure: Option<Tenure>,
    /// Streams of the active that keep the copy whole.
    kept_by: usize,
    /// When the last of them ended, or the last tenure; none before.
    kept_until: Option<Time>,
    /// The copy was not kept whole up to this tenure.
    is_stale: bool,
    feeds: BTreeMap<FollowerId, Feed>,
    /// The successor was behind, and has not caught up since.
    is_behind: bool,
    /// Because the successor is or was behind, in this tenure.
    downgrades: Downgrades,
    is_awaited: bool,
}

impl Class {
    pub(super) fn new(bell: Bell) -> Self {
        let state = State {
            table: Table::default(),
            spec: None,
            standing: Standing::Registered,
            tenure: None,
            kept_by: 0,
            kept_until: None,
            is_stale: false,
            feeds: BTreeMap::new(),
            is_behind: false,
            downgrades: Downgrades::default(),
            is_awaited: false,
        };
        Self {
            state: Mutex::new(state),
            bell,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a successor, and tells those who wait for that.
    pub(super) fn with_feed(&self, id: FollowerId, change: impl FnOnce(&mut Feed)) {
        let mut state = self.state();
        if let Some(feed) = state.feeds.get_mut(&id) {
            change(feed);
        }
        if std::mem::take(&mut state.is_awaited) {
            self.bell.ring();
        }
    }

    /// A successor is fed from now on.
    pub(super) fn begin_feed(&self, bell: Bell) -> FollowerId {
        let mut state = self.state();
        let id = state.table.follow(bell);
        state.feeds.insert(id, Feed::default());
        id
    }

    /// It is fed no longer.
    pub(super) fn end_feed(&self, id: FollowerId) {
        let mut state = self.state();
        state.table.leave(id);
        state.feeds.remove(&id);
        if std::mem::take(&mut state.is_awaited) {
            self.bell.ring();
        }
    }
}

impl State {
    pub(super) const fn spec(&self) -> Option<&ClassSpec> {
        self.spec.as_ref()
    }

    /// A function has registered with the class.
    pub(super) fn set_spec(&mut self, spec: ClassSpec) {
        self.spec = Some(spec);
        self.standing = Standing::Registered;
    }

    /// A function has registered without the class; `registration` counts such events.
    pub(super) fn leave_out(&mut self, registration: u64, at: Time) {
        let since = self.left_out().map_or(registration, |known| known.since);
        self.standing = Standing::LeftOut(LeftOut { since, at });
    }

    /// Since when no function has the class; none while one has.
    pub(super) const fn left_out(&self) -> Option<LeftOut> {
        match self.standing {
            Standing::LeftOut(left_out) => Some(left_out),
            Standing::Registered | Standing::Over => None,
        }
    }

    /// The class is not one of its slot any more.
    pub(super) const fn end(&mut self) {
        self.standing = Standing::Over;
    }

    pub(super) fn is_over(&self) -> bool {
        self.standing == Standing::Over
    }

    /// Whether the function beside this agent has the class.
    pub(super) fn is_registered(&self) -> bool {
        self.standing == Standing::Registered
    }

    /// Takes in the epoch in which this element is the active; none while it is not.
    pub(super) fn set_tenure(&mut self, epoch: Option<u64>, now: Time) {
        match (self.tenure, epoch) {
            (None, Some(_)) => self.judge_copy(now),
            (Some(_), None) => {
                self.kept_until = Some(now);
                self.is_stale = false;
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
        if epoch.is_none() {
            self.downgrades = Downgrades::default();
        }
        self.tenure = epoch.map(|newest| Tenure {
            since: self.tenure.map_or(newest, |tenure| tenure.since),
            newest,
        });
    }

    /// This element becomes the active: what it has must not be called whole if it is old.
    fn judge_copy(&mut self, now: Time) {
        let is_old = |until| now.since(until) > UNKEPT_MAX;
        let is_unkept = self.kept_by == 0 && self.kept_until.is_some_and(is_old);
        self.is_stale = is_unkept && self.table.entries() > 0;
        if self.is_stale {
            self.table.set_complete(false, now);
        }
    }

    /// Whether this element became the active with an old copy.
    pub(super) const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// A stream of the active has made the copy whole and keeps it so.
    pub(super) const fn begin_keeping(&mut self) {
        self.kept_by += 1;
    }

    /// It does not any more.
    pub(super) const fn end_keeping(&mut self, now: Time) {
        self.kept_by -= 1;
        self.kept_until = Some(now);
    }

    /// The epoch in which this element is the active; none while it is not.
    pub(super) fn tenure(&self) -> Option<u64> {
        self.tenure.map(|tenure| tenure.newest)
    }

    /// Carries out all of `ops` if this element has been the active since `epoch`.
    ///
    /// The sizes of keys and values are checked already.
    pub(super) fn write(
        &mut self,
        epoch: u64,
        ops: Vec<Op>,
        now: Time,
    ) -> Result<(), WriteRefusal> {
        self.may_write(epoch)?;
        let puts = ops.iter().filter_map(|op| {
            let value = op.value.as_ref()?;
            Some((&*op.key, value.len()))
        });
        if !self.table.has_room_for(puts) {
            return Err(WriteRefusal::Full);
        }
        for Op { key, value, ttl_s } in ops {
            match value {
                Some(value) => {
                    let put = self.table.put(Item { key, value, ttl_s }, now);
                    debug_assert_eq!(put, Ok(()), "there was room");
                }
                None => self.table.delete(key),
            }
        }
        self.table.ring(now);
        Ok(())
    }

    /// Whether this element is the active, and has been since `epoch`.
    pub(super) fn may_write(&self, epoch: u64) -> Result<(), WriteRefusal> {
        match self.tenure {
            None => Err(WriteRefusal::Role),
            Some(Tenure { since, newest }) if !(since..=newest).contains(&epoch) => {
                Err(WriteRefusal::Epoch { newest })
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether this element is the active and its function is asked to put everything again, since what
    /// is here is not all.
    pub(super) fn is_restoring(&self) -> bool {
        self.tenure.is_some() && self.is_registered() && !self.table.is_complete()
    }

    /// How many changes may be taken before the successor has to be waited for.
    pub(super) fn room(&mut self, now: Time) -> usize {
        let Some(level) = self.spec.as_ref().map(|spec| spec.level) else {
            return usize::MAX;
        };
        if !waits(&level) || self.judge(now).is_err() {
            return usize::MAX;
        }
        // While it is not known what one of them holds, everything may be missing there.
        let missing = self.held().map_or(u64::MAX, |held| self.table.end() - held);
        let room = u64::from(level.entries).saturating_sub(missing);
        self.is_awaited |= room == 0;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Whether the successors hold everything up to `position`.
    pub(super) fn is_held(&mut self, position: u64, now: Time) -> Held {
        let demanded = self.spec.as_ref().map(|spec| spec.level.kind());
        if demanded != Some(LevelKind::LevelCommit) {
            return Held::No(NotHeld::Level);
        }
        if !self.table.is_complete() {
            return Held::No(NotHeld::Restoring);
        }
        if let Err(reason) = self.judge(now) {
            return Held::No(reason);
        }
        if self.held().is_some_and(|held| held >= position) {
            return Held::Yes;
        }
        self.is_awaited = true;
        Held::Wait
    }

    /// The level at which the class is held now, and why if it is not the one demanded.
    pub(super) fn level_now(&mut self, now: Time) -> (Level, &'static str) {
        let demanded = self
            .spec
            .as_ref()
            .map(|spec| spec.level)
            .unwrap_or_default();
        let kind = match demanded.kind() {
            LevelKind::LevelNone => return (demanded, ""),
            kind => kind,
        };
        let lowered = |kind: LevelKind| Level {
            kind: kind.into(),
            ..Level::default()
        };
        let Err(reason) = self.judge(now) else {
            return (demanded, "");
        };
        let lowered = match reason {
            NotHeld::Behind if kind == LevelKind::LevelEventual => return (demanded, ""),
            NotHeld::Behind => lowered(LevelKind::LevelEventual),
            _ => lowered(LevelKind::LevelNone),
        };
        (lowered, reason.describe().1)
    }

    /// Times in which the class was held at a lower level since the successor did not keep up.
    pub(super) fn downgrades(&mut self, now: Time) -> Downgrades {
        if self.tenure.is_some() {
            // Only whether it is so by now matters here.
            let _ = self.judge(now);
        }
        self.downgrades
    }

    /// Whether the successors keep up. One that was behind is so until it has caught up well, and one that
    /// has lost changes is behind by them: it is waited for as long as one that is slow.
    fn judge(&mut self, now: Time) -> Result<(), NotHeld> {
        if self.successors().next().is_none() {
            self.is_behind = false;
            self.downgrades.observe(None, now);
            return Err(NotHeld::Alone);
        }
        let level = self
            .spec
            .as_ref()
            .map(|spec| spec.level)
            .unwrap_or_default();
        if !waits(&level) {
            return Ok(());
        }
        let lag_max = Duration::from_millis(level.lag_ms.into());
        let lag = self.lag(now);
        if lag > lag_max {
            self.is_behind = true;
        } else if lag <= lag_max / 2 {
            self.is_behind = false;
        }
        let lowered = ("eventual", NotHeld::Behind.describe().1);
        let lowered = self.is_behind.then_some(lowered);
        self.downgrades.observe(lowered, now);
        match self.is_behind {
            true => Err(NotHeld::Behind),
            false => Ok(()),
        }
    }

    /// Those that have had a whole copy. A first copy that is on its way is none: it takes long, and
    /// whoever it is for does not take over before it is there.
    fn successors(&self) -> impl Iterator<Item = (&FollowerId, &Feed)> {
        self.feeds.iter().filter(|(_, feed)| feed.is_successor())
    }

    /// Up to where all successors hold everything; none without one, and while one of them has lost
    /// changes.
    pub(super) fn held(&self) -> Option<u64> {
        self.successors().map(|(_, feed)| feed.held()).min()?
    }

    /// Since when something is missing at one of them.
    fn lag(&self, now: Time) -> Duration {
        let lag = self.successors().map(|(id, feed)| {
            let unread_since = self.table.log().unread_since(*id);
            let unread = unread_since.map_or(Duration::ZERO, |since| now.since(since));
            unread.max(feed.lag(now))
        });
        lag.max().unwrap_or_default()
    }

    /// The question to a successor, if one is due, whether it holds everything handed on.
    pub(super) fn ask(&mut self, id: FollowerId, now: Time) -> Option<u64> {
        let position = self.table.log().read_up_to(id);
        self.feeds.get_mut(&id)?.ask(position, now)
    }

    /// A successor has missed changes, from the time `since` on: what it holds is not known any more.
    pub(super) fn lose(&mut self, id: FollowerId, since: Time, now: Time) {
        if let Some(feed) = self.feeds.get_mut(&id) {
            feed.lose(since, now);
        }
    }

    /// Copies that a function may read of a key.
    pub(super) fn get(&self, key: &Bytes, now: Time) -> Option<Item> {
        self.table.get(key, now)
    }
}

fn waits(level: &Level) -> bool {
    matches!(
        level.kind(),
        LevelKind::LevelBounded | LevelKind::LevelCommit
    )
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLE_BYTES_MAX;
    use super::*;

    fn op(key: &str, value: Option<usize>) -> Op {
        Op {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(|bytes| vec![0; bytes].into()),
            ttl_s: 0,
        }
    }

    /// Goal: a full class takes whatever makes it no larger, so that it can be emptied, and nothing else.
    #[test]
    fn a_full_class_takes_deletes_and_replacements() {
        let class = Class::new(Bell::new().unwrap());
        let mut state = class.state();
        state.set_tenure(Some(1), Time(1));
        // One entry that leaves no room for another; a function would need many.
        let fill = op("big", Some(TABLE_BYTES_MAX - 150));
        let mut write = |ops| state.write(1, ops, Time(1));
        write(vec![op("a", Some(1)), fill]).unwrap();
        assert_eq!(write(vec![op("b", Some(1))]), Err(WriteRefusal::Full));
        assert_eq!(write(vec![op("a", Some(100))]), Err(WriteRefusal::Full));
        write(vec![op("a", Some(2))]).unwrap();
        write(vec![op("a", Some(1))]).unwrap();
        write(vec![op("big", None), op("x", None), op("y", None)]).unwrap();
        write(vec![op("b", Some(1))]).unwrap();
        drop(state);
        assert_eq!(class.state().table.entries(), 2);
    }
}
