//! Commits of a class: one question is for all who came before it was asked, and each caller is told
//! of what was refused since its own last commit.
//!
//! Changes are numbered over all connections here, so that a caller may be older than its connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use vnfpool_wire::sdk::Committed;

use crate::error::CommitError;

/// What a commit has come to.
pub(crate) type Outcome = Result<(), CommitError>;

/// Who puts and commits: a table of the function's, each clone of which is another one.
#[derive(Debug)]
pub(crate) struct Caller(Mutex<Told>);

#[derive(Clone, Copy, Debug)]
struct Told {
    /// Of changes up to here it was told by a commit, or it was not there yet.
    up_to: u64,
    /// Its own puts of which it was not told yet: the first, or a number before it, and the last.
    untold: Option<(u64, u64)>,
}

impl Caller {
    /// One that answers for changes after `up_to`.
    pub(crate) const fn new(up_to: u64) -> Self {
        let untold = None;
        Self(Mutex::new(Told { up_to, untold }))
    }

    fn state(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called while nobody can ask for a commit.
    pub(crate) fn has_put(&self, number: u64) {
        let mut told = self.state();
        let (first, last) = told.untold.unwrap_or((number, number));
        told.untold = Some((first.min(number), last.max(number)));
    }

    /// Up to where it was told of all changes.
    pub(crate) fn told(&self) -> u64 {
        self.state().up_to
    }

    pub(crate) fn is_told(&self, up_to: u64) {
        let mut told = self.state();
        told.up_to = told.up_to.max(up_to);
        let rest = told.untold.filter(|(_, last)| *last > up_to);
        told.untold = rest.map(|(first, last)| (first.max(up_to + 1), last));
    }

    /// Whether it has put changes in a connection that ended with the number `end`, and was not told of
    /// them: nobody knows what became of those.
    pub(crate) fn has_lost(&self, end: u64) -> bool {
        self.state().untold.is_some_and(|(first, _)| first <= end)
    }
}

/// It answers for what the first one has put until then, too.
impl Clone for Caller {
    fn clone(&self) -> Self {
        Self(Mutex::new(*self.state()))
    }
}

/// Commits of one class.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    waiting: Vec<Waiter>,
    asked: VecDeque<(u64, Vec<Waiter>)>,
    /// The last change that was refused; every one of an earlier refusal has a lower number.
    refused: u64,
    /// A commit was answered of everything up to here.
    answered: u64,
}

/// Somebody who waits for a commit.
#[derive(Debug)]
struct Waiter {
    outcome: oneshot::Sender<Outcome>,
    /// The caller was told of changes up to here.
    told: u64,
    /// The last change put before: later ones are not meant.
    last: u64,
    /// Changes between these were refused.
    is_refused: bool,
}

impl Commits {
    /// The last change of which somebody was told by a commit.
    pub(crate) const fn answered(&self) -> u64 {
        self.answered
    }

    /// A caller that was told of changes up to `told` waits for a commit of those up to `last`.
    pub(crate) fn wait(&mut self, outcome: oneshot::Sender<Outcome>, told: u64, last: u64) {
        self.waiting.push(Waiter {
            outcome,
            told,
            last,
            is_refused: self.refused > told,
        });
    }

    /// Changes were refused, from the one of the number `first` on: whoever waits is told of those that
    /// were put after the last commit that it was told of.
    pub(crate) fn refused(&mut self, first: u64, last: u64) {
        self.refused = self.refused.max(last);
        let asked = self.asked.iter_mut().flat_map(|(_, waiters)| waiters);
        for waiter in asked.chain(&mut self.waiting) {
            waiter.is_refused |= waiter.told < last && first <= waiter.last;
        }
    }

    pub(crate) fn is_to_be_asked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The question `id` is for all who wait by now.
    pub(crate) fn ask(&mut self, id: u64) {
        let waiters = std::mem::take(&mut self.waiting);
        self.asked.push_back((id, waiters));
    }

    /// Tells those who wait for the answer; false if it is of another class.
    pub(crate) fn answer(&mut self, answer: &Committed) -> bool {
        let place = self.asked.iter().position(|(id, _)| *id == answer.id);
        let waiters = place.and_then(|place| self.asked.remove(place));
        let Some((_, waiters)) = waiters else {
            return false;
        };
        for waiter in waiters {
            // What was refused is not even in this agent: that is worse than not held.
            let outcome = match (waiter.is_refused, answer.held) {
                (true, _) => Err(CommitError::Refused),
                (false, true) => Ok(()),
                (false, false) => Err(CommitError::NotHeld {
                    code: answer.code.clone(),
                    text: answer.text.clone(),
                }),
            };
            // One that has given up is told of nothing.
            if waiter.outcome.send(outcome).is_ok() {
                self.answered = self.answered.max(waiter.last);
            }
        }
        true
    }
}
