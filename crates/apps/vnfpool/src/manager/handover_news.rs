//! What went wrong in planned handovers, as events, from what elements report.

use std::time::Instant;

use vnfpool_model::{ElementId, PoolHandle};
use vnfpool_wire::control::HandoverTrouble;

use super::events::Happening;
use super::registry::Told;

/// Characters of an element's text that an event or `status` repeats.
const REASON_CHARS_MAX: usize = 500;

/// What was told of the handovers of one element. Each kind has a limit of its own: a handover that
/// fails in two ways within a moment, in the last one of its agent, is told whole.
#[derive(Clone, Debug, Default)]
pub(super) struct HandoversTold {
    not_drained: Of,
    not_resumed: Of,
    classes_undrained: Of,
}

/// How often something has happened in the life of one process of the agent.
#[derive(Clone, Debug, Default)]
struct Of {
    count: u64,
    when: Told,
}

impl Of {
    /// By how much it is more than what was told, if that may be told now; then it counts as told.
    fn news(&mut self, is: u64, now: Instant) -> Option<u64> {
        // Another process counts anew.
        self.count = self.count.min(is);
        let more = is - self.count;
        if more == 0 || !self.when.may_tell(now) {
            return None;
        }
        self.count = is;
        Some(more)
    }
}

impl HandoversTold {
    /// Events about what is news in a report of `element`: one of each kind at most. What may not be
    /// told now is told with a later report.
    pub(super) fn news(
        &mut self,
        trouble: Option<&HandoverTrouble>,
        pool: &PoolHandle,
        element: &ElementId,
        now: Instant,
    ) -> Vec<Happening> {
        let HandoverTrouble {
            not_drained,
            not_resumed,
            classes_undrained,
        } = trouble.cloned().unwrap_or_default();
        let (not_drained, not_resumed) = (
            not_drained.unwrap_or_default(),
            not_resumed.unwrap_or_default(),
        );
        let mut news = Vec::new();
        let mut tell = |kind, text: String, reason: &str| {
            news.push(Happening {
                kind,
                pool: Some(pool.clone()),
                text,
                reason: shortened(reason),
                ..Happening::default()
            });
        };
        if self.not_drained.news(not_drained.count, now).is_some() {
            let text = format!(
                "the function of {element} was not drained before a planned handover: requests that \
                 were in flight are cut"
            );
            tell("drain-failed", text, &not_drained.reason);
        }
        if self.not_resumed.news(not_resumed.count, now).is_some() {
            let text = format!(
                "the function of {element} was not told that a planned handover is over: it may go on \
                 draining"
            );
            tell("drain-not-ended", text, &not_resumed.reason);
        }
        if let Some(classes) = self.classes_undrained.news(classes_undrained, now) {
            let text = format!(
                "{element} handed over without knowing that the newest changes of its state were at \
                 the successor (classes: {classes}): connections of that moment may be missing"
            );
            let reason = "the stream there was broken, lost some, or was too slow; the log of the \
                          element says of which class";
            tell("state-undrained", text, reason);
        }
        news
    }
}

/// An element's text, as much of it as is kept.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vnfpool_wire::control::DrainFailures;

    use super::*;

    struct World {
        told: HandoversTold,
        now: Instant,
    }

    impl World {
        /// The events of a report, some seconds after the one before.
        fn hear(&mut self, trouble: &HandoverTrouble) -> Vec<Happening> {
            self.now += Duration::from_secs(5);
            let (pool, element) = ("edge".parse().unwrap(), "gw1".parse().unwrap());
            self.told.news(Some(trouble), &pool, &element, self.now)
        }

        fn kinds(&mut self, trouble: &HandoverTrouble) -> Vec<&'static str> {
            self.hear(trouble).iter().map(|news| news.kind).collect()
        }
    }

    fn world() -> World {
        World {
            told: HandoversTold::default(),
            now: Instant::now(),
        }
    }

    fn failures(count: u64, reason: &str) -> Option<DrainFailures> {
        let (reason, last_ms) = (reason.to_owned(), 0);
        Some(DrainFailures {
            count,
            reason,
            last_ms,
        })
    }

    fn trouble(not_drained: u64, not_resumed: u64, classes_undrained: u64) -> HandoverTrouble {
        HandoverTrouble {
            not_drained: failures(not_drained, "no answer"),
            not_resumed: failures(not_resumed, "no answer"),
            classes_undrained,
        }
    }

    /// Goal: each failure is one event, and another process of the agent has its own.
    #[test]
    fn each_failure_is_told_once() {
        let mut world = world();
        assert_eq!(world.kinds(&HandoverTrouble::default()), [""; 0]);
        assert_eq!(world.kinds(&trouble(1, 0, 0)), ["drain-failed"]);
        assert_eq!(world.kinds(&trouble(1, 0, 0)), [""; 0]);
        assert_eq!(
            world.kinds(&trouble(2, 1, 3)),
            ["drain-failed", "drain-not-ended", "state-undrained"]
        );
        assert_eq!(world.kinds(&trouble(2, 1, 5)), ["state-undrained"]);
        assert_eq!(world.kinds(&HandoverTrouble::default()), [""; 0]);
        assert_eq!(world.kinds(&trouble(1, 0, 0)), ["drain-failed"]);
    }

    #[test]
    fn an_event_says_what_failed_and_what_it_means() {
        let [drain, state] = &world().hear(&trouble(1, 0, 2))[..] else {
            panic!("two events");
        };
        assert!(drain.text.contains("in flight are cut"), "{}", drain.text);
        assert_eq!(drain.reason, "no answer");
        assert!(state.text.contains("(classes: 2)"), "{}", state.text);
    }

    /// Goal: an element can fill neither the log nor the memory; what it says last is told in the end.
    #[test]
    fn events_are_few_and_short() {
        let mut world = world();
        assert_eq!(world.kinds(&trouble(1, 0, 0)).len(), 1);
        world.now -= Duration::from_secs(5);
        assert_eq!(
            world.kinds(&trouble(2, 0, 0)),
            [""; 0],
            "in the same moment"
        );
        let long = HandoverTrouble {
            not_drained: failures(2, &"x".repeat(100_000)),
            ..HandoverTrouble::default()
        };
        let [told] = &world.hear(&long)[..] else {
            panic!("one event");
        };
        assert_eq!(told.reason.len(), REASON_CHARS_MAX);
    }
}
