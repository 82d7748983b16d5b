//! Planned changes of who serves: asked for by an operator, or back to the preferred element.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use vnfpool_model::{ElementId, PoolHandle, SlotId, SlotName, Switchback};
use vnfpool_northbound::{Code, Problem, SwitchoverDone, SwitchoverRequest};
use vnfpool_succession::element::Refusal;
use vnfpool_transport::Identity;
use vnfpool_wire::control;
use vnfpool_wire::datagram::NodeId;

use super::super::pulse::Command;
use super::super::shared::Shared;
use super::{Api, no_pool, standby_of};

/// How long a switchover may take before the operator is told that it did not happen.
pub(in super::super) const SWITCHOVER_TIME_MAX: Duration = Duration::from_secs(8);

/// A new turn is known here after this time: elements say it with each of their requests, some in a
/// second.
const TURN_TIME_MAX: Duration = Duration::from_secs(1);

/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A switchover that can be asked of the active.
struct Plan {
    slot: SlotName,
    slot_id: SlotId,
    active: ElementId,
    active_node: NodeId,
    standby: ElementId,
    outbox: tokio::sync::mpsc::Sender<control::Frame>,
}

/// While it lives, and once it was done, the handover that it is about is no news: it was ordered. An
/// operator who gives up drops it, too.
struct Order<'a> {
    shared: &'a Shared,
    slot: SlotId,
    is_done: bool,
}

impl<'a> Order<'a> {
    fn begin(shared: &'a Shared, plan: &Plan) -> Self {
        let (slot, from) = (plan.slot_id, Some(plan.active_node));
        shared.pulse.send(Command::Ordered { slot, from });
        let is_done = false;
        Self {
            shared,
            slot,
            is_done,
        }
    }
}

impl Drop for Order<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            let (slot, from) = (self.slot, None);
            self.shared.pulse.send(Command::Ordered { slot, from });
        }
    }
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
        let mut plan = self.plan_switchover(pool, &request)?;
        let mut result = self.ask_active(&plan, by).await?;
        // What this manager knows of the turn is a moment old: the slot may have gone to the other one.
        if says_that_it_does_not_serve(&result) && self.another_serves(&plan).await {
            plan = self.plan_switchover(pool, &request)?;
            result = self.ask_active(&plan, by).await?;
        }
        if !result.done {
            return Err(Problem::new(Code::SwitchoverRefused, result.text));
        }
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let text = format!(
            "{} handed over to {} in {took_ms} ms",
            plan.active, plan.standby
        );
        self.record("switchover", by, pool, Some(plan.slot.clone()), text);
        // Who asks for the status, or for the next switchover, finds what was done by this one.
        self.another_serves(&plan).await;
        Ok(SwitchoverDone {
            slot: plan.slot,
            epoch: result.text,
            from: Some(plan.active),
            active: plan.standby,
            took_ms,
        })
    }

    /// Waits until the active of a plan is known to serve no longer; false if it is not in time.
    async fn another_serves(&self, plan: &Plan) -> bool {
        let began = Instant::now();
        loop {
            let view = self.0.pulse.view();
            let active = view.slots.get(&plan.slot_id).and_then(|slot| slot.active);
            if active.map(|member| member.node) != Some(plan.active_node) {
                return true;
            }
            if began.elapsed() >= TURN_TIME_MAX {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The word of the active of a plan.
    async fn ask_active(
        &self,
        plan: &Plan,
        by: &Identity,
    ) -> Result<control::SwitchoverResult, Problem> {
        let mut order = Order::begin(&self.0, plan);
        let answer = self.word_of_active(plan, by).await;
        order.is_done = answer.as_ref().is_ok_and(|result| result.done);
        answer
    }

    async fn word_of_active(
        &self,
        plan: &Plan,
        by: &Identity,
    ) -> Result<control::SwitchoverResult, Problem> {
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
        match result {
            Ok(Ok(result)) => Ok(result),
            _ => {
                let text = format!(
                    "{} did not say in time that the switchover was done",
                    plan.active
                );
                Err(Problem::new(Code::Timeout, text))
            }
        }
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
        let active = active.and_then(|node| Some((node, name(node)?)));
        if let (Some(to), Some((_, active))) = (&request.to, &active)
            && to == active
        {
            return Err(Problem::new(
                Code::AlreadyActive,
                format!("{to} serves {slot} already"),
            ));
        }
        let standby = standby_of(&slot_view);
        let (Some((active_node, active)), Some(standby)) = (active, standby.and_then(name)) else {
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
        let element = registry.elements.get(&(pool.clone(), active.clone()));
        let Some(live) = element.and_then(|e| e.live.as_ref()) else {
            let text = format!("{active} serves {slot} but is not connected to this manager");
            return Err(Problem::new(Code::Busy, text));
        };
        Ok(Plan {
            slot: slot.clone(),
            slot_id: *slot_id,
            active,
            active_node,
            standby,
            outbox: live.outbox.clone(),
        })
    }
}

/// Whether the element that was asked refused since another one serves. Only its text says so.
fn says_that_it_does_not_serve(result: &control::SwitchoverResult) -> bool {
    !result.done && result.text == Refusal::NotActive.as_str()
}

/// A preferred standby is armed for so long before it gets its slot back by itself.
const SWITCHBACK_AFTER: Duration = Duration::from_secs(10);

/// Since when the preferred element of a slot has been its armed standby.
pub(in super::super) type SwitchbackPatience = BTreeMap<SlotId, Instant>;

/// `switchback = "auto"`: hands a slot back to its preferred element once that has been its armed
/// standby for a while.
pub(in super::super) fn switch_back(shared: &Shared, patience: &mut SwitchbackPatience) {
    let view = shared.pulse.view();
    let mut registry = shared.registry();
    let mut asked = Vec::new();
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
                .and_then(|(_, e)| Some((e.node, e.live.as_ref()?)));
            let Some((node, live)) = live else { continue };
            let command = control::SwitchoverCommand {
                id: 0,
                slot: slot.0,
                reason: "switchback to the preferred element".to_owned(),
            };
            let kind = control::frame::Kind::Switchover(command);
            let _ = live.outbox.try_send(control::Frame { kind: Some(kind) });
            asked.push((*slot, (node, Instant::now())));
        }
    }
    registry.switched_back.extend(asked);
}
