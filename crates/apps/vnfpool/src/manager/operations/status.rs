//! What `status` says, from the records, the real-time thread and the elements' reports.

use std::collections::BTreeMap;

use vnfpool_model::{ElementId, Incarnation, PoolHandle, PoolSpec, Role, SlotId, Timing};
use vnfpool_northbound::{
    DrainFailuresStatus, ElementStatus, HandoverTroubleStatus, PoolStatus, PortBlocksStatus,
    SlotStatus,
};
use vnfpool_wire::control;
use vnfpool_wire::datagram::NodeId;

use super::super::handover_news::shortened;
use super::super::paces::Paces;
use super::super::pulse::View;
use super::super::quarantine;
use super::super::registry::{Element, PoolRecord, Registry};
use super::standby_of;
use super::state;
use crate::pulse::now;

/// A pool as operators see it.
pub(super) fn pool_status(
    registry: &Registry,
    view: &View,
    paces: &Paces,
    pool: &PoolRecord,
) -> PoolStatus {
    let handle = &pool.spec.handle;
    let name = |node: NodeId| registry.name_of(node).map(|(_, id)| id.clone());
    let slots = pool.spec.slots.iter().filter_map(|spec| {
        let id = *pool.slots.get(&spec.name)?;
        let slot = view.slots.get(&id).cloned().unwrap_or_default();
        let active = slot.active.map(|m| m.node);
        let live = active.and_then(|node| live_report(registry, handle, node, id));
        Some(SlotStatus {
            id,
            name: spec.name.clone(),
            epoch: slot.epoch.to_string(),
            active: active.and_then(name),
            standby: standby_of(&slot).and_then(name),
            armed: slot.record.is_some_and(|r| r.armed()),
            unconfirmed: live.as_ref().is_some_and(|r| r.unconfirmed),
            holder: slot.record.and_then(|r| name(r.first.node)),
            addresses: spec.addresses.iter().map(|a| a.address).collect(),
            preferred: spec.preferred.clone(),
            heartbeat_ms: slot.record.map(|r| r.pace.heartbeat_interval_ms),
            lease_ms: slot.record.map(|r| r.pace.lease_ms),
            port_blocks: spec.port_blocks.as_ref().map(|blocks| PortBlocksStatus {
                count: blocks.count(),
                in_map: blocks_in_map(registry, handle, id),
            }),
            state: live.map_or_else(Vec::new, |report| state::class_status(&report, name)),
            lease_reason: paces.advice(id).map(|advice| advice.to_string()),
        })
    });
    let slots: Vec<_> = slots.collect();
    let elements = registry.elements_of(handle);
    PoolStatus {
        handle: handle.clone(),
        function: pool.spec.function.clone(),
        profile: profile(&pool.spec),
        on_quorum_loss: pool.spec.on_quorum_loss,
        closing: registry.closing.contains_key(handle),
        elements: elements
            .map(|(id, e)| element_status(registry, view, pool, id, e))
            .collect(),
        slots,
    }
}

fn live_report(
    registry: &Registry,
    pool: &PoolHandle,
    node: NodeId,
    slot: SlotId,
) -> Option<control::SlotReport> {
    let (_, element) = registry.elements_of(pool).find(|(_, e)| e.node == node)?;
    let live = element.live.as_ref()?;
    live.report.slots.iter().find(|s| s.id == slot.0).cloned()
}

/// The block that each element has in its map.
fn blocks_in_map(registry: &Registry, pool: &PoolHandle, slot: SlotId) -> BTreeMap<ElementId, u32> {
    let block = |element: &Element| {
        let reports = &element.live.as_ref()?.report.slots;
        reports.iter().find(|s| s.id == slot.0)?.port_block
    };
    let elements = registry.elements_of(pool);
    elements
        .filter_map(|(id, element)| Some((id.clone(), block(element)?)))
        .collect()
}

/// How far the copy of a standby is behind, by the word of the slots' actives.
fn sync_lag_ms(registry: &Registry, view: &View, pool: &PoolRecord, node: NodeId) -> Option<u64> {
    let lags = pool.slots.values().filter_map(|id| {
        let slot = view.slots.get(id)?;
        let active = slot.active.filter(|_| standby_of(slot) == Some(node))?;
        let report = live_report(registry, &pool.spec.handle, active.node, *id)?;
        Some(report.sync_lag_us / 1_000)
    });
    lags.max()
}

fn element_status(
    registry: &Registry,
    view: &View,
    pool: &PoolRecord,
    id: &ElementId,
    element: &Element,
) -> ElementStatus {
    let slots = || pool.slots.values().filter_map(|slot| view.slots.get(slot));
    let serves = slots().any(|s| s.active.is_some_and(|m| m.node == element.node));
    let stands_by = slots().any(|s| standby_of(s) == Some(element.node));
    let role = match (serves, stands_by) {
        (true, _) => Role::Active,
        (false, true) => Role::Standby,
        (false, false) => Role::Spare,
    };
    let heard = slots()
        .flat_map(|s| &s.heard)
        .filter(|(node, ..)| *node == element.node);
    let last_heard_ms = heard
        .map(|(_, at, _)| u64::try_from(now().since(*at).as_millis()).unwrap_or(u64::MAX))
        .min();
    let live = element.live.as_ref();
    let report = live.map(|l| &l.report);
    let slot_reports = || report.into_iter().flat_map(|r| &r.slots);
    ElementStatus {
        id: id.clone(),
        incarnation: live.map(|l| Incarnation(l.hello.incarnation)),
        role,
        able: report.is_some_and(|r| r.able),
        in_sync: slot_reports().any(|s| s.in_sync),
        sync_lag_ms: sync_lag_ms(registry, view, pool, element.node),
        host: live.map(|l| l.hello.host.clone()).unwrap_or_default(),
        capacity: live.map_or(0, |l| l.hello.capacity),
        labels: live.map_or_else(BTreeMap::new, |l| {
            l.hello.labels.clone().into_iter().collect()
        }),
        gate_driver: live
            .map(|l| l.hello.gate_driver.clone())
            .unwrap_or_default(),
        version: live
            .map(|l| l.hello.program_version.clone())
            .unwrap_or_default(),
        last_heard_ms,
        lease_margin_ms: slot_reports()
            .filter(|s| s.lease_margin_us > 0)
            .map(|s| i64::try_from(s.lease_margin_us / 1_000).unwrap_or(i64::MAX))
            .min(),
        realtime: live.map(|l| l.hello.realtime.clone()).unwrap_or_default(),
        faults: report.map(|r| r.faults.clone()).unwrap_or_default(),
        quarantines: quarantine::status(view, pool, element.node),
        handover_trouble: report.and_then(|r| r.handover_trouble.as_ref().map(handover_trouble)),
    }
}

fn handover_trouble(report: &control::HandoverTrouble) -> HandoverTroubleStatus {
    let failures = |of: &Option<control::DrainFailures>| {
        of.as_ref().map(|of| DrainFailuresStatus {
            count: of.count,
            reason: shortened(&of.reason),
            last_ms: of.last_ms,
        })
    };
    HandoverTroubleStatus {
        not_drained: failures(&report.not_drained),
        not_resumed: failures(&report.not_resumed),
        classes_undrained: report.classes_undrained,
    }
}

fn profile(spec: &PoolSpec) -> String {
    if spec.lease_bounds.is_some() {
        return "auto".to_owned();
    }
    match spec.timing {
        Timing::DEFAULT => "default".to_owned(),
        Timing::FAST => "fast".to_owned(),
        other => format!(
            "heartbeat {} ms, lease {} ms, manager lease {} ms",
            other.heartbeat_interval_ms, other.lease_ms, other.manager_lease_ms
        ),
    }
}
