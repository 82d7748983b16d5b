//! What changed in the replication of service state, as events, from what actives report.

use std::collections::BTreeMap;
use std::time::Instant;

use vnfpool_model::{ElementId, PoolHandle, SlotId, SlotName};
use vnfpool_wire::control::{CLASSES_REPORTED_MAX, ClassReport, DowngradeReport, ElementReport};

use super::events::Happening;
use super::registry::Told;

/// Events of one report; what is left is told with the next one.
const EVENTS_AT_ONCE: usize = 4;

/// What was told of the classes that one element replicates.
#[derive(Clone, Debug, Default)]
pub(super) struct StateTold {
    classes: BTreeMap<(u32, String, u32), Of>,
    when: Told,
}

/// What was told of a class at a standby.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Of {
    reason: String,
    downgrades: u64,
    is_down: bool,
    overruns: u64,
    is_repaired: bool,
}

impl Of {
    fn reported(report: &ClassReport) -> Self {
        Self {
            reason: report.reason.clone(),
            downgrades: report.downgrades,
            // One from before any promise is none.
            is_down: report.downgrade.is_some() && report.downgrades > 0,
            overruns: report.overruns,
            is_repaired: report.repaired_ms.is_some(),
        }
    }
}

/// Who reports, for the texts.
#[derive(Debug)]
pub(super) struct Reporter<'a> {
    pub(super) pool: &'a PoolHandle,
    pub(super) element: &'a ElementId,
    pub(super) slots: &'a BTreeMap<SlotName, SlotId>,
}

impl StateTold {
    /// Events about what is news in a report, as many as may be told now.
    pub(super) fn news(
        &mut self,
        report: &ElementReport,
        by: &Reporter<'_>,
        now: Instant,
    ) -> Vec<Happening> {
        let classes = report.slots.iter().flat_map(|slot| {
            let classes = slot.classes.iter().take(CLASSES_REPORTED_MAX);
            let key = |class: &ClassReport| (slot.id, class.class.clone(), class.standby);
            classes.map(move |class| (key(class), class))
        });
        let reported: BTreeMap<_, _> = classes.collect();
        // What is not replicated any more is told anew when it is again.
        self.classes.retain(|key, _| reported.contains_key(key));
        let mut happenings = Vec::new();
        let may_tell = |told: &mut Told, happenings: &Vec<Happening>| match happenings.len() {
            0 => told.may_tell(now),
            many => many < EVENTS_AT_ONCE,
        };
        for (key, class) in reported {
            let slot = by.slots.iter().find(|(_, id)| id.0 == key.0);
            let Some((slot, _)) = slot else { continue };
            let is = Of::reported(class);
            let told = self.classes.entry(key).or_default();
            if *told == is || !may_tell(&mut self.when, &happenings) {
                continue;
            }
            let happening = |(kind, text, reason)| Happening {
                kind,
                pool: Some(by.pool.clone()),
                slot: Some(slot.clone()),
                text,
                reason,
            };
            happenings.extend(
                differences(told, &is, class, by.element)
                    .into_iter()
                    .map(happening),
            );
            *told = is;
        }
        happenings
    }
}

/// Kind, text and reason of what changed.
fn differences(
    told: &Of,
    is: &Of,
    class: &ClassReport,
    element: &ElementId,
) -> Vec<(&'static str, String, String)> {
    let name = &class.class;
    let mut news = Vec::new();
    let mut tell = |kind, text: String, reason: &str| news.push((kind, text, reason.to_owned()));
    if is.reason != told.reason {
        match (&class.agreed, is.reason.is_empty()) {
            (Some(agreed), false) => {
                let demanded = &class.demanded;
                let text = format!("{name} of {element} is held at {agreed} instead of {demanded}");
                tell("state-level", text, &is.reason);
            }
            (None, false) => {
                tell(
                    "state-refused",
                    format!("no standby holds {name} of {element}"),
                    &is.reason,
                );
            }
            (_, true) => {
                let text = format!("{name} of {element} is replicated as demanded");
                tell("state-level", text, "");
            }
        }
    }
    let over = class.last_downgrade.as_ref();
    let over = |text: &str| {
        let lasted = over.map_or(0, |one| one.lasted_ms);
        format!("{name} of {element} {text} {lasted} ms")
    };
    let reason = |one: &Option<DowngradeReport>| one.clone().unwrap_or_default().reason;
    match (told.is_down, is.is_down) {
        (false, true) => {
            let level = class.downgrade.clone().unwrap_or_default().level;
            let text = format!("{name} of {element} is downgraded to {level}");
            tell("state-downgraded", text, &reason(&class.downgrade));
        }
        (true, false) => {
            let text = over("is held as agreed again after");
            tell("state-restored", text, &reason(&class.last_downgrade));
        }
        (false, false) if is.downgrades > told.downgrades => {
            let text = over("was downgraded for");
            tell("state-restored", text, &reason(&class.last_downgrade));
        }
        _ => {}
    }
    if is.overruns > told.overruns {
        let text = format!(
            "{element} lost changes of {name} (overruns: {})",
            is.overruns
        );
        tell(
            "state-lost",
            text,
            "they came faster than they were read; what differs is looked for",
        );
    }
    if is.overruns > 0 && is.is_repaired && (!told.is_repaired || is.overruns > told.overruns) {
        let text = format!("the standby was told what {element} had lost of {name}");
        tell("state-repaired", text, "");
    }
    news
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vnfpool_wire::control::SlotReport;

    use super::*;

    struct World {
        told: StateTold,
        now: Instant,
        slots: BTreeMap<SlotName, SlotId>,
    }

    impl World {
        fn new() -> Self {
            Self {
                told: StateTold::default(),
                now: Instant::now(),
                slots: [("main".parse().unwrap(), SlotId(1))].into(),
            }
        }

        /// The kinds and texts that a report makes, some seconds after the one before.
        fn kinds(&mut self, classes: &[ClassReport]) -> Vec<&'static str> {
            self.now += Duration::from_secs(5);
            let report = ElementReport {
                slots: vec![SlotReport {
                    id: 1,
                    classes: classes.to_vec(),
                    ..SlotReport::default()
                }],
                ..ElementReport::default()
            };
            let by = Reporter {
                pool: &"edge".parse().unwrap(),
                element: &"gw1".parse().unwrap(),
                slots: &self.slots,
            };
            let news = self.told.news(&report, &by, self.now);
            news.into_iter().map(|one| one.kind).collect()
        }
    }

    fn class() -> ClassReport {
        ClassReport {
            class: "conntrack".to_owned(),
            standby: 2,
            demanded: "commit".to_owned(),
            agreed: Some("commit".to_owned()),
            ..ClassReport::default()
        }
    }

    /// Goal: begin and end of everything is told once, also when both fall between two reports.
    #[test]
    fn each_change_is_one_event() {
        let mut world = World::new();
        let down = || ClassReport {
            downgrade: Some(DowngradeReport::default()),
            downgrades: 1,
            ..class()
        };
        let up = |downgrades| ClassReport {
            last_downgrade: Some(DowngradeReport::default()),
            downgrades,
            ..class()
        };
        let before_any_promise = ClassReport {
            downgrades: 0,
            ..down()
        };
        assert_eq!(world.kinds(&[before_any_promise]), [""; 0]);
        assert_eq!(world.kinds(&[class()]), [""; 0]);
        assert_eq!(world.kinds(&[down()]), ["state-downgraded"]);
        assert_eq!(world.kinds(&[down()]), [""; 0]);
        assert_eq!(world.kinds(&[up(1)]), ["state-restored"]);
        assert_eq!(world.kinds(&[up(3)]), ["state-restored"]);
        assert_eq!(world.kinds(&[up(3)]), [""; 0]);
        let lost = |overruns, repaired_ms| ClassReport {
            overruns,
            repaired_ms,
            ..up(3)
        };
        assert_eq!(world.kinds(&[lost(1, None)]), ["state-lost"]);
        assert_eq!(world.kinds(&[lost(1, Some(3))]), ["state-repaired"]);
        assert_eq!(world.kinds(&[lost(1, Some(900))]), [""; 0]);
        assert_eq!(
            world.kinds(&[lost(2, Some(1))]),
            ["state-lost", "state-repaired"]
        );
        let refused = ClassReport {
            agreed: None,
            reason: "unknown".to_owned(),
            ..lost(2, Some(1))
        };
        assert_eq!(world.kinds(&[refused]), ["state-refused"]);
        assert_eq!(world.kinds(&[lost(2, Some(1))]), ["state-level"]);
    }

    /// Goal: an element cannot fill the log or the memory with classes; what it says last is told
    /// in the end.
    #[test]
    fn a_report_makes_few_events_and_the_rest_later() {
        let mut world = World::new();
        let many: Vec<_> = (0..200u32)
            .map(|number| ClassReport {
                class: format!("class-{number}"),
                overruns: 1,
                ..class()
            })
            .collect();
        assert_eq!(world.kinds(&many).len(), EVENTS_AT_ONCE);
        world.now -= Duration::from_secs(5);
        assert_eq!(world.kinds(&many), [""; 0], "within the same moment");
        let all: usize = (0..200).map(|_| world.kinds(&many).len()).sum();
        assert_eq!(all + EVENTS_AT_ONCE, CLASSES_REPORTED_MAX);
        assert_eq!(world.told.classes.len(), CLASSES_REPORTED_MAX);
    }
}
