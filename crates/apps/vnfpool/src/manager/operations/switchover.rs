//! Planned changes of who serves: asked for by an operator, or back to the preferred element.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vnfpool_model::{ElementId, PoolHandle, SlotId, SlotName, Switchback};
use vnfpool_northbound::{Code, Problem, SwitchoverDone, SwitchoverRequest};
use vnfpool_transport::Identity;
use vnfpool_wire::control;
use vnfpool_wire::datagram::NodeId;

use super::super::shared::Shared;
use super::{Api, no_pool, standby_of};

/// How long a switchover may take before the operator is told that it did not happen.
const SWITCHOVER_TIME_MAX: Duration = Duration::from_secs(8);

/// A switchover that can be asked of the active.
struct Plan {
    slot: SlotName,
    slot_id: SlotId,
    active: ElementId,
    standby: ElementId,
    outbox: tokio::sync::mpsc::Sender<control::Frame>,
}

impl Api {
    /// Asks the active to hand over and waits for its word.
    pub(super) async fn switch_over(
        &self,
        pool: &PoolHandle,
        request: SwitchoverRequest,
        by: &Identity,
    ) -> Result<SwitchoverDone, Problem> {
        let began = Instant::now();
        let plan = self.plan_switchover(pool, &request)?;
        let (id, result) = self.0.expect_switchover();
        let command = control::SwitchoverCommand {
            id,
            slot: plan.slot_id.0,
            reason: format!("asked for by {by}"),
        };
        let kind = control::frame::Kind::Switchover(command);
        let sent = plan.outbox.try_send(control::Frame { kind: Some(kind) });
        let result = match sent {
            Ok(()) => tokio::time::timeout(SWITCHOVER_TIME_MAX, result).await,
            Err(_) => {
                self.0.forget_switchover(id);
                let text = format!("{} does not take commands", plan.active);
                return Err(Problem::new(Code::Busy, text));
            }
        };
        self.0.forget_switchover(id);
        let Ok(Ok(result)) = result else {
            let text = format!(
                "{} did not say in time that the switchover was done",
                plan.active
            );
            return Err(Problem::new(Code::Timeout, text));
        };
        if !result.done {
            return Err(Problem::new(Code::SwitchoverRefused, result.text));
        }
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let text = format!(
            "{} handed over to {} in {took_ms} ms",
            plan.active, plan.standby
        );
        self.record("switchover", by, pool, Some(plan.slot.clone()), text);
        Ok(SwitchoverDone {
            slot: plan.slot,
            epoch: result.text,
            from: Some(plan.active),
            active: plan.standby,
            took_ms,
        })
    }

    fn plan_switchover(
        &self,
        pool: &PoolHandle,
        request: &SwitchoverRequest,
    ) -> Result<Plan, Problem> {
        let view = self.0.pulse.view();
        let registry = self.0.registry();
        let record = registry.pools.get(pool).ok_or_else(|| no_pool(pool))?;
        let (slot, slot_id) = match &request.slot {
            Some(name) => record.slots.get_key_value(name),
            None if record.slots.len() == 1 => record.slots.first_key_value(),
            None => {
                let text = format!("pool {pool} has several slots: name one with --slot");
                return Err(Problem::new(Code::InvalidRequest, text));
            }
        }
        .ok_or_else(|| Problem::new(Code::SlotUnknown, format!("pool {pool} has no such slot")))?;
        let slot_view = view.slots.get(slot_id).cloned().unwrap_or_default();
        let name = |node: NodeId| registry.name_of(node).map(|(_, id)| id.clone());
        let active = slot_view.active.map(|m| m.node);
        let active_name = active.and_then(name);
        if let (Some(to), Some(active)) = (&request.to, &active_name)
            && to == active
        {
            return Err(Problem::new(
                Code::AlreadyActive,
                format!("{to} serves {slot} already"),
            ));
        }
        let standby = standby_of(&slot_view);
        let (Some(active_name), Some(standby)) = (active_name, standby.and_then(name)) else {
            let text = format!(
                "slot {slot} has no armed standby: see `vnfpool status` for what it waits for"
            );
            return Err(Problem::new(Code::NotArmed, text));
        };
        if let Some(to) = &request.to
            && *to != standby
        {
            let text = format!("{to} is not the armed standby of {slot}: that is {standby}");
            return Err(Problem::new(Code::NotStandby, text));
        }
        let element = registry.elements.get(&(pool.clone(), active_name.clone()));
        let Some(live) = element.and_then(|e| e.live.as_ref()) else {
            let text = format!("{active_name} serves {slot} but is not connected to this manager");
            return Err(Problem::new(Code::Busy, text));
        };
        Ok(Plan {
            slot: slot.clone(),
            slot_id: *slot_id,
            active: active_name,
            standby,
            outbox: live.outbox.clone(),
        })
    }
}

/// A preferred standby is armed for so long before it gets its slot back by itself.
const SWITCHBACK_AFTER: Duration = Duration::from_secs(10);

/// Since when the preferred element of a slot has been its armed standby.
pub(in super::super) type SwitchbackPatience = BTreeMap<SlotId, Instant>;

/// `switchback = "auto"`: hands a slot back to its preferred element once that has been its armed
/// standby for a while.
pub(in super::super) fn switch_back(shared: &Shared, patience: &mut SwitchbackPatience) {
    let view = shared.pulse.view();
    let registry = shared.registry();
    for (handle, pool) in &registry.pools {
        for slot in pool.slots.values() {
            let preferred = registry.preferred(handle, *slot);
            let standby = view.slots.get(slot).and_then(standby_of);
            let wanted = pool.spec.switchback == Switchback::Auto
                && preferred.is_some()
                && standby == preferred;
            if !wanted {
                patience.remove(slot);
                continue;
            }
            let since = *patience.entry(*slot).or_insert_with(Instant::now);
            if since.elapsed() < SWITCHBACK_AFTER {
                continue;
            }
            patience.remove(slot);
            let active = view.slots.get(slot).and_then(|s| s.active);
            let mut elements = registry.elements_of(handle);
            let live = elements
                .find(|(_, e)| Some(e.node) == active.map(|m| m.node))
                .and_then(|(_, e)| e.live.as_ref());
            let Some(live) = live else { continue };
            let command = control::SwitchoverCommand {
                id: 0,
                slot: slot.0,
                reason: "switchback to the preferred element".to_owned(),
            };
            let kind = control::frame::Kind::Switchover(command);
            let _ = live.outbox.try_send(control::Frame { kind: Some(kind) });
        }
    }
}
