//! What `status` says of the replication of service state, from the report of the active.

use vnfpool_model::ElementId;
use vnfpool_northbound::{ClassStatus, DowngradeStatus};
use vnfpool_wire::control::{CLASSES_REPORTED_MAX, ClassReport, DowngradeReport, SlotReport};
use vnfpool_wire::datagram::NodeId;

/// Each class of a slot at each of its standbys.
pub(super) fn class_status(
    report: &SlotReport,
    name: impl Fn(NodeId) -> Option<ElementId>,
) -> Vec<ClassStatus> {
    let reports = report.classes.iter().take(CLASSES_REPORTED_MAX);
    reports.map(|one| of_class(one, &name)).collect()
}

fn of_class(report: &ClassReport, name: impl Fn(NodeId) -> Option<ElementId>) -> ClassStatus {
    let ClassReport {
        class,
        standby,
        demanded,
        agreed,
        reason,
        in_sync,
        entries,
        downgrade,
        last_downgrade,
        downgrades,
        overruns,
        changes_lost,
        overrun_ms,
        repaired_ms,
        event_source,
        fallback_reason,
        restoring,
    } = report;
    let now = downgrade.as_ref().map(|one| one.level.clone());
    ClassStatus {
        class: class.clone(),
        standby: name(NodeId(*standby)),
        demanded: demanded.clone(),
        agreed: agreed.clone(),
        level: agreed.clone().map(|agreed| now.unwrap_or(agreed)),
        reason: text(reason),
        in_sync: *in_sync,
        entries: *entries,
        downgrade: downgrade.as_ref().map(under_way),
        last_downgrade: last_downgrade.as_ref().map(|one| DowngradeStatus {
            lasted_ms: Some(one.lasted_ms),
            unheld: Some(one.unheld),
            ..under_way(one)
        }),
        downgrades: *downgrades,
        overruns: *overruns,
        changes_lost: *changes_lost,
        overrun_ms: *overrun_ms,
        repaired_ms: *repaired_ms,
        event_source: text(event_source),
        fallback_reason: text(fallback_reason),
        restoring: *restoring,
    }
}

fn under_way(report: &DowngradeReport) -> DowngradeStatus {
    DowngradeStatus {
        level: report.level.clone(),
        reason: report.reason.clone(),
        began_ms: report.began_ms,
        lasted_ms: None,
        unheld: None,
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
