//! The part of `vnfpool status` about planned handovers that did not go as they should.

use vnfpool_northbound::{DrainFailuresStatus, ElementStatus};

use super::ago;

/// A line for each kind of trouble of an element; none while there was none.
pub(super) fn remarks(element: &ElementStatus) -> Vec<String> {
    let Some(trouble) = &element.handover_trouble else {
        return Vec::new();
    };
    let line = |what: &str| format!("  {}: {what}", element.id);
    let failures = |what: &str, of: &DrainFailuresStatus| {
        let DrainFailuresStatus {
            count,
            reason,
            last_ms,
        } = of;
        line(&format!(
            "{what}: {count}, the last one {}: {reason}",
            ago(*last_ms)
        ))
    };
    let mut lines = Vec::new();
    if let Some(of) = &trouble.not_drained {
        let what =
            "planned handovers with requests in flight CUT, since the function was not drained";
        lines.push(failures(what, of));
    }
    if let Some(of) = &trouble.not_resumed {
        let what = "ends of planned handovers that the function was not told, so that it MAY GO ON DRAINING";
        lines.push(failures(what, of));
    }
    if trouble.classes_undrained > 0 {
        lines.push(line(&format!(
            "classes of state handed over without knowing that the newest changes were at the successor: {}",
            trouble.classes_undrained
        )));
    }
    lines
}
