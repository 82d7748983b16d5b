//! The fencing command: switches the machines of a silent pair off and proves it (R14).
//!
//! A task of its own, which nothing waits for. [`Decision`] says when a command is due; its proof
//! counts as the operator's word does.

mod decision;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinSet;
use vnfpool_config::Fencing;
use vnfpool_model::{ElementId, Incarnation, PoolHandle, SlotName, Time};
use vnfpool_wire::datagram::NodeId;

use self::decision::{ArmedSlot, Decision, Member};
use super::control::SILENCE_OF_THE_DEAD;
use super::events::Happening;
use super::operations::{ALIVE, Word};
use super::pulse::View;
use super::registry::{Element, PoolRecord, Registry};
use super::shared::{Shared, lock};
use crate::command::{self, CommandError};
use crate::pulse::now;

/// How often it is looked for silent pairs.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// An element to be switched off, as the command is told.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pool: PoolHandle,
    slot: SlotName,
    element: ElementId,
    node: NodeId,
    /// Of the life that the record names.
    incarnation: Incarnation,
    /// Where it was, as far as this boot of the manager has heard.
    host: String,
}

/// A command that has ended.
struct Ended {
    target: Target,
    began: Time,
    result: Result<(), CommandError>,
}

/// Looks for silent pairs and runs the command, until the task is ended; that ends the commands.
pub(super) async fn run(shared: std::sync::Arc<Shared>, fencing: Fencing) {
    if let Some(obstacle) = command::obstacle(&fencing.command) {
        tracing::error!("no machine can be fenced: {obstacle}");
    }
    let mut decision = Decision::new(fencing.without_spare, now());
    let mut running = JoinSet::new();
    let mut interval = tokio::time::interval(LOOK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = interval.tick() => {
                let at = now();
                let (slots, mut targets) = armed_slots(&shared.registry(), &shared.pulse.view(), at);
                for node in decision.due(at, &slots) {
                    if let Some(target) = targets.remove(&node) {
                        begin(&shared, &target);
                        running.spawn(fence(fencing.clone(), target));
                    }
                }
            }
            Some(ended) = running.join_next() => {
                // The task cannot have panicked, and nobody else ends it.
                if let Ok(ended) = ended {
                    let is_off = settle(&shared, &ended);
                    decision.ended(now(), ended.target.node, is_off);
                }
            }
        }
    }
}

/// The slots with an armed record of all pools that are not being deleted, and their members.
pub(super) fn armed_slots(
    registry: &Registry,
    view: &View,
    at: Time,
) -> (Vec<ArmedSlot>, BTreeMap<NodeId, Target>) {
    let (mut slots, mut targets) = (Vec::new(), BTreeMap::new());
    let mut heard = BTreeMap::new();
    for (node, at, _) in view.slots.values().flat_map(|slot| &slot.heard) {
        let newest = heard.entry(*node).or_insert(*at);
        *newest = (*newest).max(*at);
    }
    let pools = registry.pools.iter();
    for (handle, pool) in pools.filter(|(handle, _)| !registry.closing.contains_key(*handle)) {
        for (slot, id) in &pool.slots {
            let record = view.slots.get(id).and_then(|slot| slot.record);
            let Some((record, second)) = record.and_then(|r| Some((r, r.second?))) else {
                continue;
            };
            let pair = [record.first, second].map(|member| {
                let mut elements = registry.elements_of(handle);
                let (name, element) = elements.find(|(_, e)| e.node == member.node)?;
                let target = Target {
                    pool: handle.clone(),
                    slot: slot.clone(),
                    element: name.clone(),
                    node: member.node,
                    incarnation: member.incarnation,
                    host: element.host.clone(),
                };
                targets.insert(member.node, target);
                Some(Member {
                    node: member.node,
                    heard_at: heard.get(&member.node).copied(),
                    is_connected: element.live.is_some(),
                    is_fenced: element.fenced,
                })
            });
            if let [Some(first), Some(second)] = pair {
                slots.push(armed_slot(registry, pool, [first, second], &heard, at));
            }
        }
    }
    (slots, targets)
}

fn armed_slot(
    registry: &Registry,
    pool: &PoolRecord,
    members: [Member; 2],
    heard: &BTreeMap<NodeId, Time>,
    at: Time,
) -> ArmedSlot {
    let lease = Duration::from_millis(pool.spec.timing.manager_lease_ms.into());
    let is_spare = |element: &Element| {
        let is_able = element.live.as_ref().is_some_and(|l| l.report.able);
        let heard = heard.get(&element.node).map(|heard| at.since(*heard));
        is_able
            && heard.is_some_and(|silence| silence < lease)
            && members.iter().all(|m| m.node != element.node)
    };
    let mut elements = registry.elements_of(&pool.spec.handle);
    ArmedSlot {
        members,
        has_spare: elements.any(|(_, element)| is_spare(element)),
        patience: (lease * 2).max(ALIVE),
        settling: (lease * 2).max(SILENCE_OF_THE_DEAD + lease),
    }
}

fn begin(shared: &Shared, target: &Target) {
    let Target { element, slot, .. } = target;
    shared.events.add(Happening {
        kind: "fencing",
        pool: Some(target.pool.clone()),
        slot: Some(slot.clone()),
        text: format!("the fencing command is run for {element}"),
        reason: "both members of the armed pair are silent".into(),
    });
}

async fn fence(fencing: Fencing, target: Target) -> Ended {
    let began = now();
    let mut program = Command::new(&fencing.command);
    program
        .env("VNFPOOL_POOL", target.pool.as_str())
        .env("VNFPOOL_ELEMENT", target.element.as_str())
        .env("VNFPOOL_HOST", &target.host)
        .env("VNFPOOL_SLOT", target.slot.as_str())
        .env("VNFPOOL_INCARNATION", target.incarnation.0.to_string());
    let result = command::run(program, fencing.timeout).await;
    Ended {
        target,
        began,
        result,
    }
}

/// Takes the proof, or says why there is none; whether the element is off now.
fn settle(shared: &Shared, ended: &Ended) -> bool {
    let Target { pool, element, .. } = &ended.target;
    let began = ended.began;
    let (outcome, failure) = match &ended.result {
        Ok(()) => match shared.declare_off(pool, element, Word::Hook { began }) {
            Ok(()) => ("off", None),
            Err(problem) => ("refused", Some(problem.detail)),
        },
        Err(CommandError::TimeLimit(_)) => ("timeout", ended.failure()),
        Err(_) => ("failed", ended.failure()),
    };
    *lock(&shared.counters.fencings).entry(outcome).or_default() += 1;
    let Some(failure) = failure else {
        return true;
    };
    tracing::error!(%pool, %element, outcome, "fencing failed: {failure}");
    shared.events.add(Happening {
        kind: "fencing-failed",
        pool: Some(pool.clone()),
        slot: Some(ended.target.slot.clone()),
        text: format!("it is not proved that {element} is off"),
        reason: failure,
    });
    false
}

impl Ended {
    fn failure(&self) -> Option<String> {
        let error = self.result.as_ref().err()?;
        Some(format!("the fencing command: {error}"))
    }
}
