//! What of the findings is news.

use std::time::{Duration, Instant};

/// A function that has recovered is believed after this time.
const BELIEVED_AFTER: Duration = Duration::from_millis(500);

/// What one look has found.
pub(super) struct Findings {
    /// What the kernel says.
    pub(super) faults: Vec<String>,
    /// What the operator's probe and the function itself say.
    pub(super) probe_fault: Option<String>,
    /// One of them has neither answered nor had the time to, and the other knows of no fault.
    pub(super) probe_is_unknown: bool,
}

/// What was told last.
pub(super) struct News {
    resumes: bool,
    told: Option<Vec<String>>,
    healthy_since: Option<Instant>,
}

impl News {
    /// Nothing was told yet. With `resumes` the process before has told what it knew.
    pub(super) const fn new(resumes: bool) -> Self {
        Self {
            resumes,
            told: None,
            healthy_since: None,
        }
    }

    /// The faults if that is to be told, none when the function could serve.
    pub(super) fn of(&mut self, now: Instant, findings: Findings) -> Option<&[String]> {
        let Findings {
            mut faults,
            probe_fault,
            probe_is_unknown,
        } = findings;
        // Unknown is not healthy, but no news either for an agent that goes on: the process before
        // knew. What the kernel says is news at once, and no longer healthy is who said so.
        if self.resumes && probe_is_unknown && self.told.is_none() && faults.is_empty() {
            return None;
        }
        faults.extend(probe_fault);
        if faults.is_empty() {
            let since = *self.healthy_since.get_or_insert(now);
            let believed = now.saturating_duration_since(since) >= BELIEVED_AFTER;
            let recovered = self.told.as_ref().is_some_and(|told| !told.is_empty());
            if self.told.is_some() && !(recovered && believed) {
                return None;
            }
        } else {
            self.healthy_since = None;
            if self.told.as_ref() == Some(&faults) {
                return None;
            }
        }
        Some(self.told.insert(faults))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: &str = "not answered yet";

    fn look(faults: &[&str], probe: Option<&str>) -> Findings {
        Findings {
            faults: faults.iter().copied().map(str::to_owned).collect(),
            probe_fault: probe.map(str::to_owned),
            probe_is_unknown: probe == Some(UNKNOWN),
        }
    }

    /// Goal: while an agent that goes on waits for the first word of its probe, a fault that the
    /// kernel knows counts at once.
    #[test]
    fn an_unknown_probe_holds_no_other_fault_back() {
        let now = Instant::now();
        let mut news = News::new(true);
        assert_eq!(news.of(now, look(&[], Some(UNKNOWN))), None);
        let down = news
            .of(now, look(&["eth0 is down"], Some(UNKNOWN)))
            .unwrap();
        assert_eq!(down[0], "eth0 is down");
        assert_eq!(news.of(now, look(&["eth0 is down"], Some(UNKNOWN))), None);
        // The interface is back: still not known to be healthy.
        let unknown = news.of(now, look(&[], Some(UNKNOWN))).unwrap();
        assert_eq!(unknown, [UNKNOWN]);
        assert_eq!(news.of(now, look(&[], None)), None);
        let later = now + BELIEVED_AFTER;
        assert_eq!(news.of(later, look(&[], None)).map(<[_]>::len), Some(0));
    }

    /// Goal: what is unknown is no news for an agent that goes on, and a fault for a new one.
    #[test]
    fn unknown_is_a_fault_only_for_a_new_life() {
        let now = Instant::now();
        let mut goes_on = News::new(true);
        assert_eq!(goes_on.of(now, look(&[], Some(UNKNOWN))), None);
        assert_eq!(goes_on.of(now, look(&[], None)).map(<[_]>::len), Some(0));
        let mut begins = News::new(false);
        assert_eq!(begins.of(now, look(&[], Some(UNKNOWN))).unwrap(), [UNKNOWN]);
    }

    /// Goal: a fault of the probe itself is held back no longer than the probe has time to answer.
    #[test]
    fn the_word_of_the_probe_is_news() {
        let now = Instant::now();
        let mut news = News::new(true);
        assert_eq!(news.of(now, look(&[], Some("exit 1"))).unwrap(), ["exit 1"]);
    }
}
