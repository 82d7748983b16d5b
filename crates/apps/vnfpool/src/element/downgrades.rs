//! Downgrades of a class of service state, from their begin to their end, for who asks later.

use std::time::Duration;

use vnfpool_model::Time;

/// The one that is under way, and the last one that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Downgrades {
    /// Without a count: nothing was promised yet, so it is none that has begun.
    pub(crate) now: Option<Downgrade>,
    pub(crate) last: Option<Past>,
    /// How many have begun.
    pub(crate) count: u64,
}

/// A time in which a class is held at less than was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Downgrade {
    /// The level meanwhile, in one word.
    pub(crate) level: &'static str,
    /// Why, in a sentence without its stop.
    pub(crate) reason: &'static str,
    pub(crate) began: Time,
}

/// A downgrade that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) downgrade: Downgrade,
    pub(crate) lasted: Duration,
    /// First packets that did not wait for the successor; 0 where nothing is held.
    pub(crate) unheld: u64,
}

impl Downgrades {
    /// Begins one; the one before it, if another was under way, is over.
    pub(crate) fn begin(&mut self, downgrade: Downgrade) {
        self.end(downgrade.began, 0);
        self.now = Some(downgrade);
        self.count += 1;
    }

    /// Ends the one that is under way, if any has begun.
    pub(crate) fn end(&mut self, at: Time, unheld: u64) {
        let begun = self.now.take().filter(|_| self.count > 0);
        if let Some(downgrade) = begun {
            self.last = Some(Past {
                downgrade,
                lasted: at.since(downgrade.began),
                unheld,
            });
        }
    }

    /// Takes in how things are: at some level for some reason, or (none) as agreed.
    pub(crate) fn observe(&mut self, lower: Option<(&'static str, &'static str)>, at: Time) {
        let known = self.now.map(|one| (one.level, one.reason));
        match lower {
            _ if lower == known => {}
            Some((level, reason)) => self.begin(Downgrade {
                level,
                reason,
                began: at,
            }),
            None => self.end(at, 0),
        }
    }

    /// Goes on after `earlier`: what was under way there is over by now.
    pub(crate) fn continuing(mut self, earlier: Self) -> Self {
        self.count += earlier.count;
        self.last = self.last.or(earlier.last);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: (&str, &str) = ("bounded", "it is slow");
    const ALONE: (&str, &str) = ("none", "there is nobody");

    /// Goal: begin and end are kept, each once, however often things are looked at.
    #[test]
    fn a_downgrade_has_one_begin_and_one_end() {
        let mut downgrades = Downgrades::default();
        for at in [Time(5), Time(6)] {
            downgrades.observe(Some(SLOW), at);
        }
        let now = downgrades.now.unwrap();
        assert_eq!((now.reason, now.began), (SLOW.1, Time(5)));
        assert_eq!((downgrades.last, downgrades.count), (None, 1));
        downgrades.observe(Some(ALONE), Time(9));
        assert_eq!(downgrades.now.unwrap().began, Time(9));
        assert_eq!(downgrades.last.unwrap().lasted, Duration::from_nanos(4));
        for at in [Time(10), Time(11)] {
            downgrades.observe(None, at);
        }
        assert_eq!((downgrades.now, downgrades.count), (None, 2));
        let last = downgrades.last.unwrap();
        assert_eq!(last.downgrade.reason, ALONE.1);
        assert_eq!(last.lasted, Duration::from_nanos(1));
    }

    #[test]
    fn a_new_stream_forgets_no_downgrade() {
        let mut earlier = Downgrades::default();
        earlier.observe(Some(SLOW), Time(1));
        earlier.observe(None, Time(3));
        let goes_on = Downgrades::default().continuing(earlier);
        assert_eq!((goes_on.last, goes_on.count), (earlier.last, 1));
        let mut newer = Downgrades::default();
        newer.observe(Some(ALONE), Time(7));
        newer.observe(None, Time(8));
        let goes_on = newer.continuing(earlier);
        assert_eq!((goes_on.last, goes_on.count), (newer.last, 2));
    }
}
