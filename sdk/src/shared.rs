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
use crate::commits::{Caller, Commits, Outcome};
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
    /// Changes that were put in connections that are over.
    numbers_before: u64,
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

    /// A change of this caller, when there is room for it.
    pub(crate) async fn put(
        &self,
        target: Target,
        caller: &Caller,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<(), PutError> {
        if self.try_put(target, caller, key, value, ttl_s)? {
            return Ok(());
        }
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.try_put(target, caller, key, value, ttl_s)? {
                return Ok(());
            }
            room.await;
        }
    }

    /// False if there is no room.
    fn try_put(
        &self,
        target: Target,
        caller: &Caller,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<bool, PutError> {
        let put = self.state().try_put(target, caller, key, value, ttl_s)?;
        if put == Some(Put::First) {
            self.work.notify_one();
        }
        Ok(put.is_some())
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

/// A change was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    /// The writer has to be told.
    First,
    /// It will look.
    Next,
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
        let numbers_before = self.numbers_before + self.last;
        *self = Self {
            ids,
            has_state,
            numbers_before,
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

    /// Puts a change if there is room for it. The caller has it before anybody can ask for a commit of
    /// it: what a commit has told of is not noted afterwards as if nobody had been told.
    fn try_put(
        &mut self,
        target: Target,
        caller: &Caller,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> Result<Option<Put>, PutError> {
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
            return Ok(None);
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
        caller.has_put(self.numbers_before + self.last);
        Ok(Some(if is_first { Put::First } else { Put::Next }))
    }

    /// Changes up to `last` are answered.
    pub(crate) fn taken(&mut self, last: u64) {
        while let Some((_, bytes)) = self.in_flight.pop_front_if(|(number, _)| *number <= last) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Changes of a class were refused, by their numbers in this connection.
    pub(crate) fn refused(&mut self, slot: u32, class: u32, (first, last): (u64, u64)) {
        let before = self.numbers_before;
        let commits = self.commits.entry((slot, class)).or_default();
        commits.refused(before.saturating_add(first), before.saturating_add(last));
    }

    /// A caller that answers for what is put from now on, and for what nobody was told of yet.
    pub(crate) fn caller(&self, slot: u32, class: u32) -> Caller {
        let commits = self.commits.get(&(slot, class));
        let answered = commits.map_or(0, Commits::answered);
        Caller::new(answered.max(self.numbers_before))
    }

    /// The caller has put again what was put in connections that are over.
    pub(crate) fn restored(&self, caller: &Caller) {
        caller.is_told(self.numbers_before);
    }

    /// Asks for a commit of everything put before. The number of the last change of which the caller
    /// will have been told then.
    pub(crate) fn commit(
        &mut self,
        (slot, class): (u32, u32),
        caller: &Caller,
        outcome: oneshot::Sender<Outcome>,
    ) -> u64 {
        if !self.is_connected || caller.has_lost(self.numbers_before) {
            // What was put in this connection is for the next commit.
            let _ = outcome.send(Err(CommitError::Disconnected));
            return self.numbers_before;
        }
        let last = self.numbers_before + self.last;
        let commits = self.commits.entry((slot, class)).or_default();
        commits.wait(outcome, caller.told(), last);
        last
    }

    pub(crate) fn committed(&mut self, answer: &Committed) {
        // The number is of one of them, or of none.
        let _ = self
            .commits
            .values_mut()
            .any(|commits| commits.answer(answer));
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
            .filter(|(_, commits)| commits.is_to_be_asked());
        for ((slot, class), commits) in waiting {
            self.ids += 1;
            let id = self.ids;
            commits.ask(id);
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
mod tests;
