//! What callers and the tasks of the connection share.
//!
//! A change is encoded by its caller into the open batch; the writer closes the batch when it gets to
//! it. So one that has little to do sends small batches at once, and a busy one sends large ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::{Notify, oneshot};
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{self as wire, Commit, Committed, Request};

use crate::batch::{Batch, Target};
use crate::error::CommitError;
use crate::watch::WatchEnd;
use crate::{Function, PutError};

/// An answer to a question.
pub(crate) type Answer = wire::reply::Kind;

/// Requests that wait for the writer, batches aside; with more, callers wait.
const OUT_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) function: Function,
    state: Mutex<State>,
    /// There is something to write.
    pub(crate) work: Notify,
    /// There is room again, or no connection any more.
    pub(crate) room: Notify,
}

/// What is known of a slot's epochs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenure {
    since: u64,
    newest: u64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    is_connected: bool,
    /// Puts were made in some connection: an agent that has lost its copy gets everything again.
    pub(crate) has_state: bool,
    batch: Batch,
    out: BytesMut,
    /// It will look, since something was put after it looked last.
    writer_is_told: bool,
    /// Number of the last change put in this connection.
    last: u64,
    /// Changes on their way: number and bytes.
    in_flight: VecDeque<(u64, usize)>,
    in_flight_bytes: usize,
    in_flight_bytes_max: usize,
    tenures: BTreeMap<u32, Tenure>,
    ids: u64,
    commits: BTreeMap<(u32, u32), Commits>,
    questions: HashMap<u64, oneshot::Sender<Answer>>,
    pub(crate) watches: HashMap<u64, WatchEnd>,
}

type Caller = oneshot::Sender<Result<(), CommitError>>;

/// Commits of one class: one question is for all who came before it was asked.
#[derive(Debug, Default)]
struct Commits {
    waiting: Vec<Waiter>,
    asked: VecDeque<(u64, Vec<Waiter>)>,
    /// Ranges of changes that were refused.
    refusals: u64,
    /// Of those, how many somebody was told of who asked behind them.
    told: u64,
}

/// Somebody who waits for a commit.
#[derive(Debug)]
struct Waiter {
    caller: Caller,
    /// The last change put before: later ones are not its own.
    last: u64,
    /// Changes were refused that were put before.
    is_refused: bool,
    /// How many refusals there had been when it asked.
    refusals: u64,
}

impl Shared {
    pub(crate) fn new(function: Function) -> Self {
        Self {
            function,
            state: Mutex::default(),
            work: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change, when there is room for it.
    pub(crate) async fn put(
        &self,
        target: Target,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<(), PutError> {
        if self.try_put(target, key, value, ttl_s)? {
            return Ok(());
        }
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.try_put(target, key, value, ttl_s)? {
                return Ok(());
            }
            room.await;
        }
    }

    fn try_put(
        &self,
        target: Target,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<bool, PutError> {
        let outcome = self.state().try_put(target, key, value, ttl_s)?;
        if outcome == Put::First {
            self.work.notify_one();
        }
        Ok(outcome != Put::Full)
    }

    /// A request behind everything that was put before; when there is room for it. False without a
    /// connection.
    pub(crate) async fn request(&self, kind: Kind) -> bool {
        let request = Request { kind: Some(kind) };
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state();
                if !state.is_connected {
                    return false;
                }
                if state.out.len() < OUT_BYTES_MAX {
                    state.append(&request);
                    break;
                }
            }
            room.await;
        }
        self.work.notify_one();
        true
    }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// The writer has to be told.
    First,
    /// It is told already.
    Further,
    Full,
}

impl State {
    /// A connection begins, in which nothing was sent yet.
    pub(crate) fn connected(&mut self, in_flight_bytes_max: u32) {
        self.is_connected = true;
        self.in_flight_bytes_max = usize::try_from(in_flight_bytes_max).unwrap_or(usize::MAX);
    }

    /// It is over: everybody who waits is told; the number of changes of which the fate is not known.
    pub(crate) fn disconnected(&mut self) -> u64 {
        let unknown = self.in_flight.len() as u64;
        self.batch.clear();
        // Dropping a sender tells its caller.
        let (ids, has_state) = (self.ids, self.has_state);
        *self = Self {
            ids,
            has_state,
            ..Self::default()
        };
        unknown
    }

    pub(crate) const fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// Takes in what this element is in a slot: its epoch as the active, or none.
    pub(crate) fn set_tenure(&mut self, slot: u32, epoch: Option<u64>) {
        match epoch {
            Some(newest) => {
                let since = self
                    .tenures
                    .get(&slot)
                    .map_or(newest, |tenure| tenure.since);
                self.tenures.insert(slot, Tenure { since, newest });
            }
            None => {
                self.tenures.remove(&slot);
            }
        }
    }

    fn try_put(
        &mut self,
        target: Target,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<Put, PutError> {
        if !self.is_connected {
            return Err(PutError::Disconnected);
        }
        let epoch = target.epoch;
        let tenure = self.tenures.get(&target.slot);
        if !tenure.is_some_and(|tenure| (tenure.since..=tenure.newest).contains(&epoch)) {
            return Err(PutError::NotActive { epoch });
        }
        // One that is longer than the bound goes when it is alone.
        if self.in_flight_bytes >= self.in_flight_bytes_max {
            return Ok(Put::Full);
        }
        if !self.batch.takes(target) {
            self.close_batch();
        }
        let is_first = !std::mem::replace(&mut self.writer_is_told, true);
        let bytes = self.batch.push(target, key, value, ttl_s);
        self.last += 1;
        self.has_state = true;
        self.in_flight.push_back((self.last, bytes));
        self.in_flight_bytes += bytes;
        Ok(if is_first { Put::First } else { Put::Further })
    }

    /// Changes up to `last` are answered.
    pub(crate) fn taken(&mut self, last: u64) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(number, _)| *number <= last) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Changes of a class were refused, from the one of the number `first` on: everybody is told so who
    /// waits, or asks before somebody was told, and may have put one of them.
    pub(crate) fn refused(&mut self, slot: u32, class: u32, first: u64) {
        let commits = self.commits.entry((slot, class)).or_default();
        commits.refusals += 1;
        let asked = commits.asked.iter_mut().flat_map(|(_, waiters)| waiters);
        for waiter in asked.chain(&mut commits.waiting) {
            waiter.is_refused |= waiter.last >= first;
        }
    }

    /// Asks for a commit of everything put before.
    pub(crate) fn commit(&mut self, slot: u32, class: u32, caller: Caller) {
        if self.is_connected {
            let commits = self.commits.entry((slot, class)).or_default();
            commits.waiting.push(Waiter {
                caller,
                last: self.last,
                is_refused: commits.refusals > commits.told,
                refusals: commits.refusals,
            });
        }
    }

    pub(crate) fn committed(&mut self, answer: Committed) {
        let place = |commits: &Commits| commits.asked.iter().position(|(id, _)| *id == answer.id);
        let found = self
            .commits
            .values_mut()
            .find_map(|commits| Some((place(commits)?, commits)));
        let Some((place, commits)) = found else {
            return;
        };
        let waiters = commits.asked.remove(place).map(|(_, waiters)| waiters);
        for waiter in waiters.unwrap_or_default() {
            commits.told = commits.told.max(waiter.refusals);
            // What was refused is not even in this agent: that is worse than not held.
            let outcome = match (waiter.is_refused, answer.held) {
                (true, _) => Err(CommitError::Refused),
                (false, true) => Ok(()),
                (false, false) => Err(CommitError::NotHeld {
                    code: answer.code.clone(),
                    text: answer.text.clone(),
                }),
            };
            // One that has given up asks no more.
            let _ = waiter.caller.send(outcome);
        }
    }

    pub(crate) fn ask(&mut self, id: u64, answer: oneshot::Sender<Answer>) {
        if self.is_connected {
            self.questions.insert(id, answer);
        }
    }

    pub(crate) fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(caller) = self.questions.remove(&id) {
            let _ = caller.send(answer);
        }
    }

    /// The epoch in which this element is the active of a slot.
    pub(crate) fn epoch(&self, slot: u32) -> Option<u64> {
        Some(self.tenures.get(&slot)?.newest)
    }

    /// A request that waits for no room; for those of which each has a longer one before it.
    pub(crate) fn send_unbounded(&mut self, kind: Kind) {
        if self.is_connected {
            self.append(&Request { kind: Some(kind) });
        }
    }

    fn append(&mut self, request: &Request) {
        self.close_batch();
        wire::encode(request, &mut self.out);
    }

    fn close_batch(&mut self) {
        self.batch.close(self.last, &mut self.out);
    }

    /// Hands everything that is to be written to the writer, and takes its empty buffer.
    pub(crate) fn take_output(&mut self, buffer: &mut BytesMut) {
        self.writer_is_told = false;
        self.close_batch();
        let waiting = self
            .commits
            .iter_mut()
            .filter(|(_, commits)| !commits.waiting.is_empty());
        for ((slot, class), commits) in waiting {
            self.ids += 1;
            let id = self.ids;
            commits
                .asked
                .push_back((id, std::mem::take(&mut commits.waiting)));
            let commit = Commit {
                id,
                slot: *slot,
                class: *class,
            };
            let kind = Some(Kind::Commit(commit));
            wire::encode(&Request { kind }, &mut self.out);
        }
        std::mem::swap(&mut self.out, buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Function;

    fn connected() -> Shared {
        let shared = Shared::new(Function::new("f", "1"));
        shared.state().connected(1024);
        shared.state().set_tenure(1, Some(1));
        shared
    }

    const TARGET: Target = Target {
        slot: 1,
        class: 0,
        epoch: 1,
    };

    /// The ids of the commits that are sent.
    fn commits(shared: &Shared) -> Vec<u64> {
        let mut out = BytesMut::new();
        shared.state().take_output(&mut out);
        let next = || wire::decode::<Request>(&mut out).unwrap()?.kind;
        let ids = std::iter::from_fn(next).filter_map(|kind| match kind {
            Kind::Commit(commit) => Some(commit.id),
            _ => None,
        });
        ids.collect()
    }

    fn commit(shared: &Shared) -> oneshot::Receiver<Result<(), CommitError>> {
        let (caller, outcome) = oneshot::channel();
        shared.state().commit(1, 0, caller);
        outcome
    }

    fn held(id: u64) -> Committed {
        Committed {
            id,
            held: true,
            ..Committed::default()
        }
    }

    /// Goal: many callers make one question, and answers find theirs in whatever order they come: a
    /// later one can be known at once while the agent has not looked at the earlier one again.
    #[test]
    fn commits_share_a_question_and_answers_come_in_any_order() {
        let shared = connected();
        let (mut one, mut two) = (commit(&shared), commit(&shared));
        let first = commits(&shared);
        let mut three = commit(&shared);
        let second = commits(&shared);
        assert_eq!((first.len(), second.len()), (1, 1));
        shared.state().committed(held(second[0]));
        assert_eq!(three.try_recv(), Ok(Ok(())));
        assert!(one.try_recv().is_err());
        shared.state().committed(held(first[0]));
        assert_eq!((one.try_recv(), two.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
    }

    fn put(shared: &Shared) {
        shared.try_put(TARGET, b"k", Some(b"v"), 0).unwrap();
    }

    /// Goal: of many who commit, those fail whose changes may have been refused, and no others. Method: a
    /// commit is on its way when further changes are put and refused; the commits of those follow.
    #[test]
    fn a_refusal_fails_the_commits_behind_it_and_none_before() {
        let shared = connected();
        put(&shared);
        let mut before = commit(&shared);
        let first = commits(&shared);
        put(&shared);
        let mut asked = commit(&shared);
        let second = commits(&shared);
        let mut waiting = commit(&shared);
        shared.state().refused(1, 0, 2);
        let third = commits(&shared);
        for id in [first, second, third].concat() {
            shared.state().committed(held(id));
        }
        assert_eq!(before.try_recv(), Ok(Ok(())));
        for outcome in [&mut asked, &mut waiting] {
            assert_eq!(outcome.try_recv(), Ok(Err(CommitError::Refused)));
        }
    }

    /// Goal: a refusal that comes before its maker asks is told to everybody who asks until one is
    /// answered, also when an older commit is answered in between; then it is over. And it is told
    /// rather than that nothing is held, which would mean that the agent has it.
    #[test]
    fn a_refusal_that_nobody_waits_for_fails_the_next_commits() {
        let shared = connected();
        put(&shared);
        let mut before = commit(&shared);
        let first = commits(&shared);
        put(&shared);
        shared.state().refused(1, 0, 2);
        shared.state().committed(held(first[0]));
        assert_eq!(before.try_recv(), Ok(Ok(())));
        let mut one = commit(&shared);
        let asked = commits(&shared);
        let mut other = commit(&shared);
        let asked_again = commits(&shared);
        shared.state().committed(Committed {
            held: false,
            ..held(asked[0])
        });
        shared.state().committed(held(asked_again[0]));
        for outcome in [&mut one, &mut other] {
            assert_eq!(outcome.try_recv(), Ok(Err(CommitError::Refused)));
        }
        let mut later = commit(&shared);
        let ids = commits(&shared);
        shared.state().committed(held(ids[0]));
        assert_eq!(later.try_recv(), Ok(Ok(())));
    }

    /// Goal: what is under way has a bound, and who waits for room hears of the end of the connection.
    #[tokio::test]
    async fn a_put_waits_for_room() {
        let shared = connected();
        shared.put(TARGET, b"k", Some(&[0; 2048]), 0).await.unwrap();
        let waits = shared.put(TARGET, b"k", None, 0);
        tokio::pin!(waits);
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut waits).await.is_err());
        shared.state().taken(1);
        shared.room.notify_waiters();
        assert_eq!(waits.await, Ok(()));
        assert_eq!(shared.state().disconnected(), 1);
        let put = shared.put(TARGET, b"k", None, 0).await;
        assert_eq!(put, Err(PutError::Disconnected));
    }
}
