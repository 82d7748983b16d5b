//! What the manager is told of the replication of service state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_statesync::class::{ClassName, Level};
use vnfpool_wire::control::{ClassReport, DowngradeReport};

use crate::element::downgrades::{Downgrade, Downgrades};
use crate::element::sync::{ClassStanding, EventsBy, Known};

/// Classes, at each standby in each slot, of one report: a thousand bytes each at most, and the whole
/// report has to fit into a frame.
pub(super) const ROWS_MAX: usize = 128;

/// What is known of the classes that a function beside this agent puts.
#[derive(Debug, Default)]
pub(super) struct OfFunction {
    pub(super) downgrades: BTreeMap<ClassName, Downgrades>,
    /// Those that the function has yet to put again.
    pub(super) restoring: BTreeSet<ClassName>,
}

/// A report of each class of a slot at each standby.
pub(super) fn class_reports(
    standings: Vec<ClassStanding>,
    of_function: &OfFunction,
    at: Time,
) -> Vec<ClassReport> {
    let report = |standing: ClassStanding| class_report(standing, of_function, at);
    standings.into_iter().map(report).collect()
}

fn class_report(standing: ClassStanding, of_function: &OfFunction, at: Time) -> ClassReport {
    let ClassStanding {
        class,
        demanded,
        standby,
        known,
        figures,
    } = standing;
    let Known {
        agreed,
        reason,
        overruns,
        lost,
        overrun_at,
        repaired_at,
        events,
        downgrades: of_earlier_streams,
    } = known;
    let holding = figures.as_ref().and_then(|figures| figures.holding);
    let of_its_table = of_function.downgrades.get(&class).copied();
    let downgrades = match (holding, of_its_table) {
        (Some(holding), _) => holding.downgrades.continuing(of_earlier_streams),
        (None, Some(of_its_table)) => of_its_table,
        (None, None) => of_earlier_streams,
    };
    // Where packets cannot be held, what was agreed is not done.
    let unheld = figures.as_ref().and_then(|figures| figures.unheld.clone());
    let held = |level: Level| match (&unheld, level) {
        (Some(_), Level::Commit(bounds)) => Level::Bounded(bounds),
        (_, level) => level,
    };
    let unheld_reason = unheld
        .as_ref()
        .map(|reason| format!("first packets cannot be held here: {reason}"));
    let EventsBy {
        kind,
        fallback_reason,
    } = events.unwrap_or_default();
    let stream = figures.map(|figures| figures.stream).unwrap_or_default();
    let ago = |then: Time| milliseconds(at.since(then));
    let began = |downgrade: Downgrade| DowngradeReport {
        level: downgrade.level.to_owned(),
        reason: downgrade.reason.to_owned(),
        began_ms: ago(downgrade.began),
        ..DowngradeReport::default()
    };
    ClassReport {
        class: class.to_string(),
        standby: standby.map_or(0, |node| node.0),
        demanded: demanded.as_str().to_owned(),
        agreed: agreed.map(|level| held(level).as_str().to_owned()),
        reason: reason.or(unheld_reason).unwrap_or_default(),
        in_sync: stream.in_sync,
        entries: u64::try_from(stream.entries).unwrap_or(u64::MAX),
        downgrade: downgrades.now.map(began),
        last_downgrade: downgrades.last.map(|past| DowngradeReport {
            lasted_ms: milliseconds(past.lasted),
            unheld: past.unheld,
            ..began(past.downgrade)
        }),
        downgrades: downgrades.count,
        overruns,
        changes_lost: lost,
        overrun_ms: overrun_at.map(ago),
        repaired_ms: repaired_at.map(ago),
        event_source: kind.to_owned(),
        fallback_reason: fallback_reason.unwrap_or_default(),
        restoring: of_function.restoring.contains(&class),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use vnfpool_statesync::class::Bounds;
    use vnfpool_wire::datagram::NodeId;

    use super::*;
    use crate::element::sync::Figures;

    const COMMIT: Level = Level::Commit(Bounds::DEFAULT);

    fn standing(known: Known, figures: Option<Figures>) -> ClassStanding {
        ClassStanding {
            class: ClassName::conntrack(),
            demanded: COMMIT,
            standby: Some(NodeId(7)),
            known,
            figures,
        }
    }

    fn told(standing: ClassStanding) -> ClassReport {
        let at = Time(9_000_000_000);
        class_reports(vec![standing], &OfFunction::default(), at).remove(0)
    }

    /// Goal: what was agreed on and cannot be done is told as what is done, and why.
    #[test]
    fn commit_that_cannot_be_had_is_told_as_bounded() {
        let known = || Known {
            agreed: Some(COMMIT),
            ..Known::default()
        };
        let report = told(standing(known(), Some(Figures::default())));
        assert_eq!(
            (report.agreed.as_deref(), &*report.reason),
            (Some("commit"), "")
        );
        let figures = Figures {
            unheld: Some("no queue".into()),
            ..Figures::default()
        };
        let report = told(standing(known(), Some(figures)));
        assert_eq!(report.demanded, "commit");
        assert_eq!(report.agreed.as_deref(), Some("bounded"));
        assert_eq!(report.reason, "first packets cannot be held here: no queue");
    }

    #[test]
    fn times_are_told_as_how_long_ago() {
        let mut downgrades = Downgrades::default();
        downgrades.observe(Some(("bounded", "it was slow")), Time(1_000_000_000));
        downgrades.observe(None, Time(1_500_000_000));
        downgrades.observe(Some(("bounded", "it is slow")), Time(7_000_000_000));
        let known = Known {
            overruns: 2,
            lost: 30,
            overrun_at: Some(Time(4_000_000_000)),
            downgrades,
            ..Known::default()
        };
        let report = told(standing(known, None));
        assert_eq!(
            (report.standby, report.agreed, report.in_sync),
            (7, None, false)
        );
        assert_eq!((report.overruns, report.changes_lost), (2, 30));
        assert_eq!((report.overrun_ms, report.repaired_ms), (Some(5_000), None));
        let (now, last) = (report.downgrade.unwrap(), report.last_downgrade.unwrap());
        assert_eq!((&*now.reason, now.began_ms), ("it is slow", 2_000));
        assert_eq!((last.began_ms, last.lasted_ms), (8_000, 500));
        assert_eq!(report.downgrades, 2);
    }

    /// Goal: a class of a function has what its table knows of: the downgrades, and whether it is whole.
    #[test]
    fn a_function_s_class_has_what_its_table_knows_of() {
        let mut downgrades = Downgrades::default();
        downgrades.observe(Some(("eventual", "behind")), Time(1));
        let name = ClassName::new("sessions").unwrap();
        let of_function = OfFunction {
            downgrades: [(name.clone(), downgrades)].into(),
            restoring: [name.clone()].into(),
        };
        let other = standing(Known::default(), Some(Figures::default()));
        let one = ClassStanding {
            class: name,
            ..standing(Known::default(), Some(Figures::default()))
        };
        let reports = class_reports(vec![one, other], &of_function, Time(2));
        assert!(reports[0].restoring && !reports[1].restoring);
        let now = reports[0].downgrade.clone().unwrap();
        assert_eq!((&*now.level, &*now.reason), ("eventual", "behind"));
    }
}
