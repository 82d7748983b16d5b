//! Batches and commits.

use vnfpool_model::{SlotId, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::{
    Batch, Commit, Committed, KEY_BYTES_MAX, Op, Refused, Restored, Taken, VALUE_BYTES_MAX,
};

use super::{Fatal, PendingCommit, Session};
use crate::element::sdk::class::{Held, WriteRefusal};

impl Session {
    /// Takes a batch or refuses it; holds back what of it has no room until the successor has caught up.
    pub(super) fn batch(&mut self, mut batch: Batch, now: Time) -> Result<(), Fatal> {
        let count = batch.ops.len() as u64;
        if batch.last != self.last + count {
            let text = format!(
                "a batch of {count} ends with number {}, expected {}: count every change, from 1",
                batch.last,
                self.last + count
            );
            return Err(Fatal::new("request", text));
        }
        if let Some(text) = batch.ops.iter().find_map(wrong_size) {
            return Err(Fatal::new("size", text));
        }
        let class = match self.class(batch.slot, batch.class) {
            Ok(class) => class,
            Err((code, text)) => {
                self.refuse(&batch, code, text.to_owned());
                return Ok(());
            }
        };
        let mut state = class.state();
        if let Err(refusal) = state.may_write(batch.epoch) {
            drop(state);
            self.refuse_because(&batch, refusal);
            return Ok(());
        }
        let room = state.room(now).min(batch.ops.len());
        let rest = batch.ops.split_off(room);
        let written = state.write(batch.epoch, std::mem::replace(&mut batch.ops, rest), now);
        drop(state);
        match written {
            Ok(()) => self.last += room as u64,
            Err(refusal) => {
                self.refuse_because(&batch, refusal);
                return Ok(());
            }
        }
        if self.last < batch.last {
            self.held_back = Some(batch);
        }
        Ok(())
    }

    fn refuse_because(&mut self, batch: &Batch, refusal: WriteRefusal) {
        let (code, text) = describe(refusal, batch.epoch);
        self.refuse(batch, code, text);
    }

    fn refuse(&mut self, batch: &Batch, code: &str, text: String) {
        let first = self.last + 1;
        self.last = batch.last;
        // What was taken before comes first.
        self.tell_taken_up_to(first - 1);
        self.told_last = self.last;
        self.send(ReplyKind::Refused(Refused {
            first,
            last: batch.last,
            code: code.to_owned(),
            text,
            slot: batch.slot,
            class: batch.class,
        }));
    }

    /// Says how far the changes have been taken, once for many.
    pub(super) fn tell_taken(&mut self) {
        self.tell_taken_up_to(self.last);
    }

    fn tell_taken_up_to(&mut self, last: u64) {
        if last > self.told_last {
            self.told_last = last;
            self.send(ReplyKind::Taken(Taken { last }));
        }
    }

    pub(super) fn commit(&mut self, commit: Commit, now: Time) {
        let id = commit.id;
        let class = match self.class(commit.slot, commit.class) {
            Ok(class) => class,
            Err(why) => return self.committed(id, Err(why)),
        };
        let mut state = class.state();
        let position = state.table.end();
        let held = state.is_held(position, now);
        drop(state);
        match held {
            Held::Yes => self.committed(id, Ok(())),
            Held::No(reason) => self.committed(id, Err(reason.describe())),
            Held::Wait => self.commits.push_back(PendingCommit {
                id,
                class,
                position,
            }),
        }
    }

    /// Answers the commits of which the outcome is known now.
    pub(super) fn answer_commits(&mut self, now: Time) {
        for _ in 0..self.commits.len() {
            let Some(commit) = self.commits.pop_front() else {
                break;
            };
            let held = commit.class.state().is_held(commit.position, now);
            match held {
                Held::Yes => self.committed(commit.id, Ok(())),
                Held::No(reason) => self.committed(commit.id, Err(reason.describe())),
                Held::Wait => self.commits.push_back(commit),
            }
        }
    }

    fn committed(&mut self, id: u64, outcome: Result<(), (&str, &str)>) {
        let (code, text) = outcome.err().unwrap_or_default();
        self.send(ReplyKind::Committed(Committed {
            id,
            held: outcome.is_ok(),
            code: code.to_owned(),
            text: text.to_owned(),
        }));
    }

    /// The function has put again all that it has.
    pub(super) fn restored(&mut self, restored: Restored, now: Time) {
        if !self.has_state && self.hub.is_inherited(SlotId(restored.slot)) {
            tracing::warn!(
                slot = restored.slot,
                "the function says that it has put everything again, but has registered without state"
            );
            return;
        }
        if let Ok(class) = self.class(restored.slot, restored.class) {
            let mut state = class.state();
            if state.may_write(restored.epoch).is_ok() {
                state.table.set_complete(true, now);
            }
        }
    }
}

fn wrong_size(op: &Op) -> Option<String> {
    let key = op.key.len();
    if !(1..=KEY_BYTES_MAX).contains(&key) {
        return Some(format!(
            "a key of {key} bytes: expected 1 to {KEY_BYTES_MAX}"
        ));
    }
    let value = op.value.as_ref().map_or(0, |value| value.len());
    (value > VALUE_BYTES_MAX)
        .then(|| format!("a value of {value} bytes: expected at most {VALUE_BYTES_MAX}"))
}

fn describe(refusal: WriteRefusal, epoch: u64) -> (&'static str, String) {
    match refusal {
        WriteRefusal::Role => (
            "role",
            "this element is not the active of the slot: wait for a Role message".to_owned(),
        ),
        WriteRefusal::Epoch { newest } => (
            "epoch",
            format!("put under epoch {epoch}, this element is the active in {newest}: use that"),
        ),
        WriteRefusal::Full => (
            "full",
            "the class is full: delete entries, or give them a ttl".to_owned(),
        ),
    }
}
