//! Handovers that nobody here has ordered, as events: the active could not serve any more, or its agent
//! was stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vnfpool_model::SlotId;
use vnfpool_wire::datagram::NodeId;

use super::handover_news::shortened;
use super::operations::SWITCHOVER_TIME_MAX;
use super::pulse::Handover;
use super::registry::Registry;
use super::shared::Shared;

/// An element may take so long to say why it has handed over: its machines hear of it first.
const REASON_PATIENCE: Duration = Duration::from_millis(500);

/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells of a handover and why it was, as soon as that is known.
pub(super) fn tell(shared: &Arc<Shared>, slot: SlotId, handover: Handover) {
    // The registry is free again when it is told.
    let known = reason(&shared.registry(), slot, handover.from);
    if known.is_some() {
        return tell_with(shared, slot, handover, known);
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let began = Instant::now();
        let mut found = None;
        while found.is_none() && began.elapsed() < REASON_PATIENCE {
            tokio::time::sleep(LOOK_AGAIN).await;
            found = reason(&shared.registry(), slot, handover.from);
        }
        tell_with(&shared, slot, handover, found);
    });
}

fn tell_with(shared: &Shared, slot: SlotId, handover: Handover, reason: Option<String>) {
    shared.tell(slot, "handover", |names| {
        let (from, to) = (names.node(handover.from), names.node(handover.to));
        let reason = reason.unwrap_or_else(|| format!("{from} has not said why"));
        (format!("{from} handed over to {to}"), reason)
    });
}

/// Why the former active of a slot has handed over, as far as it is known.
fn reason(registry: &Registry, slot: SlotId, from: NodeId) -> Option<String> {
    let mut elements = registry.elements.values();
    let element = elements.find(|element| element.node == from)?;
    let faults = element.live.as_ref().map(|live| &live.report.faults);
    let faults = faults.filter(|faults| !faults.is_empty());
    let faults = faults.map(|faults| shortened(&faults.join("; ")));
    faults.or_else(|| {
        let (asked, when) = registry.switched_back.get(&slot)?;
        let is_it = *asked == from && when.elapsed() < SWITCHOVER_TIME_MAX;
        is_it.then(|| "switchback to the preferred element".to_owned())
    })
}
