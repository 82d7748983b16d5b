//! How far a successor is that a class is sent to.

use std::collections::VecDeque;
use std::time::Duration;

use vnfpool_model::Time;

/// Questions to a successor that are on the way: so many, so that a commit need not wait for the
/// answer to another one, and no more, so that one answers for many.
const ASKED_MAX: usize = 4;

/// A successor that could not answer is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Question {
    id: u64,
    position: u64,
    asked_at: Time,
}

/// What is known of one successor.
///
/// ```text
///   first copy --in sync, answers--> holds everything up to a position --loses some--> lost
///   (counts for nothing)                     ^                                          |
///                                            +----------- in sync, answers -------------+
/// ```
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// The stream says that the copy is in sync, and takes every entry. Without that an answer says
    /// only that what was told has come.
    is_in_sync: bool,
    /// It has a whole copy, with every change up to here; none while that is not known.
    held: Option<u64>,
    /// Since when it has not had everything that it once had; none while it has, and before the first
    /// time.
    lost_since: Option<Time>,
    asked: VecDeque<Question>,
    asked_for: u64,
    ids: u64,
    not_before: Time,
}

impl Feed {
    /// Whether it has had a whole copy since this stream began: then it is waited for, also while it
    /// has lost some.
    pub(super) const fn is_successor(&self) -> bool {
        self.held.is_some() || self.lost_since.is_some()
    }

    /// Up to where it holds everything; none while it may miss some.
    pub(super) const fn held(&self) -> Option<u64> {
        self.held
    }

    /// The question, if it is time for one, whether it holds everything up to `position`, all of which
    /// was handed on.
    pub(super) fn ask(&mut self, position: u64, now: Time) -> Option<u64> {
        let is_due = match self.held {
            Some(_) => position > self.asked_for && self.asked.len() < ASKED_MAX,
            None => self.asked.is_empty() && now >= self.not_before,
        };
        (is_due && self.is_in_sync).then(|| {
            self.ids += 1;
            self.asked_for = position;
            self.asked.push_back(Question {
                id: self.ids,
                position,
                asked_at: now,
            });
            self.ids
        })
    }

    /// The answer to a question; none of those before it will be answered any more.
    pub(super) fn answered(&mut self, id: u64, is_held: bool, now: Time) {
        let mut position = None;
        while let Some(question) = self.asked.pop_front_if(|question| question.id <= id) {
            position = (question.id == id).then_some(question.position);
        }
        // Of a question that was given up with what was known then.
        let Some(position) = position else {
            return;
        };
        if !is_held {
            return self.lose(now, now);
        }
        self.held = self.held.max(Some(position));
        self.lost_since = None;
    }

    /// Takes in whether the stream says that the copy is in sync, and takes every entry.
    pub(super) fn set_in_sync(&mut self, is_in_sync: bool, now: Time) {
        self.is_in_sync = is_in_sync;
        match is_in_sync {
            // To be asked at once.
            true => self.not_before = now,
            false => self.lose(now, now),
        }
    }

    /// It misses changes, the oldest of them since `since`: what it holds is not known until it answers
    /// again.
    pub(super) fn lose(&mut self, since: Time, now: Time) {
        let asked_at = self.asked.front().map(|question| question.asked_at);
        let since = since.min(asked_at.unwrap_or(since));
        self.lost_since = match (self.lost_since, self.held.take()) {
            (Some(earlier), _) => Some(earlier.min(since)),
            (None, Some(_)) => Some(since),
            // Of a first copy nothing is lost.
            (None, None) => None,
        };
        self.asked.clear();
        self.not_before = now.after(ASK_AGAIN);
    }

    /// For how long it has missed something, or not answered.
    pub(super) fn lag(&self, now: Time) -> Duration {
        let oldest = self.asked.front().map(|question| question.asked_at);
        let since = self.lost_since.or(oldest);
        since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed() -> Feed {
        let mut feed = Feed::default();
        assert_eq!(feed.ask(0, Time::ZERO), None, "not in sync yet");
        feed.set_in_sync(true, Time::ZERO);
        let id = feed.ask(0, Time::ZERO).unwrap();
        feed.answered(id, true, Time::ZERO);
        feed
    }

    #[test]
    fn one_answer_is_for_many_and_few_questions_are_on_the_way() {
        let mut feed = fed();
        assert_eq!(feed.held(), Some(0));
        let asked = (1..=9).filter_map(|position| feed.ask(position, Time(position)));
        let asked: Vec<_> = asked.collect();
        assert_eq!(asked.len(), ASKED_MAX);
        assert_eq!(feed.lag(Time(11)), Duration::from_nanos(10));
        feed.answered(asked[3], true, Time(11));
        assert_eq!((feed.held(), feed.lag(Time(11))), (Some(4), Duration::ZERO));
        assert!(feed.ask(9, Time(11)).is_some());
        assert_eq!(feed.ask(9, Time(11)), None, "asked already");
    }

    /// Goal: what a successor held counts no more once it has lost its copy, nor does the answer to a
    /// question from before that.
    #[test]
    fn a_successor_that_lost_its_copy_holds_nothing_until_it_says_so() {
        let mut feed = fed();
        let before = feed.ask(5, Time::ZERO).unwrap();
        feed.lose(Time::ZERO, Time::ZERO);
        feed.answered(before, true, Time::ZERO);
        assert_eq!((feed.held(), feed.is_successor()), (None, true));
        assert_eq!(feed.ask(5, Time::ZERO), None, "not at once");
        let again = feed.ask(5, Time::ZERO.after(ASK_AGAIN)).unwrap();
        feed.answered(again, false, Time::ZERO.after(ASK_AGAIN));
        assert_eq!(feed.held(), None);
        let again = feed.ask(5, Time::ZERO.after(2 * ASK_AGAIN)).unwrap();
        feed.answered(again, true, Time::ZERO);
        assert_eq!(feed.held(), Some(5));
    }
}
