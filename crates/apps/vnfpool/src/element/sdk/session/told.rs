//! Roles, levels, and what a function is asked to put again.
//!
//! Roles are told in an order of their own. That this element is not the active any more goes at once.
//! That it is goes behind everything that was committed before: behind the changes of the slot's
//! watches up to the moment of the change.

use std::collections::BTreeMap;
use std::time::Duration;

use vnfpool_model::{self as model, SlotId, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::{Level, LevelNow, Restore, Role, RoleKind, SlotGone};

use super::Session;
use crate::element::sdk::SlotRole;

/// A function that reads its watches more slowly is told that it is the active before it has seen
/// everything: the slot has no other, and a part of the service is more than none.
const HOLD_BACK_MAX: Duration = Duration::from_secs(1);

/// An element that has lost the state of a slot serves it for so long before it takes it that nobody
/// else can. What it has by then is newer than what anybody else may still have.
const TAKEN_OVER_AFTER: Duration = Duration::from_secs(10);

/// What was told last, and what is to be told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of the hub's slots.
    revision: u64,
    /// What this element is, and the first epoch of its tenure as the active.
    now: BTreeMap<SlotId, (SlotRole, Option<u64>)>,
    slots: BTreeMap<SlotId, SlotRole>,
    /// Slots of which this element is the active and the function does not know yet.
    gains: BTreeMap<SlotId, Gain>,
    classes: BTreeMap<(SlotId, u32), ToldOfClass>,
}

/// This element has become the active.
#[derive(Debug)]
struct Gain {
    active_since: u64,
    seen_at: Time,
    /// Of each watch of the slot: the last change before.
    ends: BTreeMap<u64, u64>,
}

#[derive(Debug, Default)]
struct ToldOfClass {
    level: Option<Level>,
    /// The epoch in which the function was asked to put everything again.
    restore_in: Option<u64>,
    /// Since when neither the function nor the agent has what a successor may have.
    lost_since: Option<Time>,
}

impl Told {
    /// Whether the function has yet to hear that it is the active.
    pub(super) fn holds_back(&self) -> bool {
        !self.gains.is_empty()
    }

    /// Slots of which the function believes to be the active, and is not, or was not in between.
    fn losses(&self) -> Vec<SlotId> {
        let actives = self.slots.iter();
        let actives = actives.filter(|(_, told)| told.role == model::Role::Active);
        let lost = actives.filter(|(id, told)| {
            let now = self.now.get(id);
            let since = now.and_then(|(_, active_since)| *active_since);
            since.is_none_or(|since| since > told.epoch.fencing_token())
        });
        lost.map(|(id, _)| *id).collect()
    }
}

impl Session {
    /// Takes in what this element is, and says what it is not any more: that waits for nothing. It is
    /// no more than one message for each time that [`Session::tell_roles`] found room to say the
    /// opposite.
    pub(super) fn tell_losses(&mut self, now: Time) {
        {
            let state = self.hub.state();
            if state.revision == self.told.revision {
                return;
            }
            self.told.revision = state.revision;
            let since = |id| state.active_since.get(id).copied();
            let slots = state.slots.iter();
            let slots = slots.map(|(id, slot)| (*id, (slot.clone(), since(id))));
            self.told.now = slots.collect();
        }
        for id in self.told.losses() {
            let Some((slot, _)) = self.told.now.get(&id).cloned() else {
                self.tell_gone(id);
                continue;
            };
            // One that is the active again was something else meanwhile.
            let role = match slot.role {
                model::Role::Active => model::Role::Standby,
                role => role,
            };
            self.tell_role(id, SlotRole { role, ..slot });
        }
        self.find_gains(now);
    }

    fn find_gains(&mut self, now: Time) {
        let mut gains = BTreeMap::new();
        for (id, (_, active_since)) in &self.told.now {
            let told = self.told.slots.get(id);
            let is_told = told.is_some_and(|told| told.role == model::Role::Active);
            let Some(active_since) = active_since.filter(|_| !is_told) else {
                continue;
            };
            let known = self.told.gains.remove(id);
            let gain = known.filter(|known| known.active_since == active_since);
            let watches = self.watches.iter();
            let watches = watches.filter(|(_, watching)| watching.is_of(*id));
            let gain = gain.unwrap_or_else(|| Gain {
                active_since,
                seen_at: now,
                ends: watches.map(|(id, one)| (*id, one.end())).collect(),
            });
            gains.insert(*id, gain);
        }
        self.told.gains = gains;
    }

    /// Says what this element is, as far as there is room and the function has been told what comes
    /// before it.
    pub(super) fn tell_roles(&mut self, now: Time) {
        let gone = self.told.slots.keys();
        let gone = gone.filter(|id| !self.told.now.contains_key(id));
        let gone: Vec<_> = gone.copied().collect();
        let news = self.told.now.iter();
        let news = news.filter(|(id, (slot, _))| self.told.slots.get(id) != Some(slot));
        let news: Vec<_> = news.map(|(id, (slot, _))| (*id, slot.clone())).collect();
        for id in gone {
            if self.has_room() {
                self.tell_gone(id);
            }
        }
        for (id, slot) in news {
            if self.has_room() && self.may_be_told(id, now) {
                self.told.gains.remove(&id);
                self.tell_role(id, slot);
            }
        }
    }

    /// Whether everything that has to come before the role in a slot was told; a watch that has ended
    /// is waited for no longer, one that is not read not for ever.
    fn may_be_told(&self, id: SlotId, now: Time) -> bool {
        let Some(gain) = self.told.gains.get(&id) else {
            return true;
        };
        let is_told = |(watch, end): (&u64, &u64)| {
            let watching = self.watches.get(watch);
            watching.is_none_or(|watching| watching.is_told(*end))
        };
        if gain.ends.iter().all(is_told) {
            return true;
        }
        let is_late = now.since(gain.seen_at) > HOLD_BACK_MAX;
        if is_late {
            tracing::warn!(
                slot = id.0,
                "the function does not read its watches: it is told that it is the active before it \
                 has seen everything that was committed"
            );
        }
        is_late
    }

    fn tell_role(&mut self, id: SlotId, slot: SlotRole) {
        self.send(ReplyKind::Role(role_message(id, &slot)));
        self.told.slots.insert(id, slot);
    }

    fn tell_gone(&mut self, id: SlotId) {
        self.told.slots.remove(&id);
        self.told.classes.retain(|(of, _), _| *of != id);
        self.send(ReplyKind::SlotGone(SlotGone { slot: id.0 }));
    }

    /// Levels, and requests to put everything again, of the slots of which the role was told.
    pub(super) fn tell_classes(&mut self, now: Time) {
        let count = self.classes.as_ref().map_or(0, Vec::len);
        let classes = 0..u32::try_from(count).unwrap_or(u32::MAX);
        for slot in self.told.slots.keys().copied().collect::<Vec<_>>() {
            if self.told.gains.contains_key(&slot) {
                continue;
            }
            for class in classes.clone() {
                if self.has_room() {
                    self.tell_class(slot, class, now);
                }
            }
        }
    }

    fn tell_class(&mut self, slot: SlotId, class: u32, now: Time) {
        let Ok(found) = self.class(slot.0, class) else {
            return;
        };
        let is_inherited = self.hub.is_inherited(slot);
        let mut state = found.state();
        let tenure = state.tenure();
        let is_stale = state.is_stale();
        // An old copy may have been watched, or can be read, by a function that came with nothing.
        let has_none = !self.has_state && !is_stale;
        let is_lost = tenure.is_some() && !state.table.is_complete() && has_none;
        if is_lost && !is_inherited {
            // There is nobody who has more of it.
            state.table.set_complete(true, now);
        }
        // Asked of nobody who has nothing: that it has put everything would be true.
        let lost = tenure.filter(|_| !state.table.is_complete() && !is_lost);
        // Only the active has a level to hold.
        let level = tenure.map(|_| state.level_now(now));
        drop(state);
        if is_lost && is_inherited {
            self.report_loss(slot, class, now);
        }
        let told = self.told.classes.entry((slot, class)).or_default();
        if lost.is_some() && told.restore_in != lost {
            told.restore_in = lost;
            let slot = slot.0;
            if is_stale {
                tracing::warn!(
                    slot,
                    class,
                    "the copy of a class was not kept up to now, the former active did not send it or was \
                     not heard: the function is asked to put everything again"
                );
            }
            self.send(ReplyKind::Restore(Restore { slot, class }));
        }
        let told = self.told.classes.entry((slot, class)).or_default();
        if told.level != level.map(|(level, _)| level) {
            told.level = level.map(|(level, _)| level);
            if let Some((level, reason)) = level {
                self.send(ReplyKind::LevelNow(LevelNow {
                    slot: slot.0,
                    class,
                    level: Some(level),
                    reason: reason.to_owned(),
                }));
            }
        }
    }
}

impl Session {
    /// The agent was replaced, and so was the function: both are empty. To call that the whole state
    /// would make the successor delete its copy, which is the only one; so it has to take over.
    fn report_loss(&mut self, slot: SlotId, class: u32, now: Time) {
        let told = self.told.classes.entry((slot, class)).or_default();
        let since = *told.lost_since.get_or_insert(now);
        if since == now {
            let why = format!(
                "the state of slot {slot} is lost here: the agent was replaced, and the function has \
                 registered without any; a successor that has it takes over"
            );
            tracing::error!("{why}");
            self.hub.health.has_lost(slot, why);
        } else if now.since(since) > TAKEN_OVER_AFTER {
            tracing::error!(
                "nobody has taken over slot {slot}, of which the state is lost here: it begins anew, \
                 without what was there"
            );
            self.hub.begin_anew(slot);
        }
    }
}

fn role_message(id: SlotId, slot: &SlotRole) -> Role {
    let role = match slot.role {
        model::Role::Active => RoleKind::RoleActive,
        model::Role::Standby => RoleKind::RoleStandby,
        model::Role::Spare => RoleKind::RoleSpare,
    };
    Role {
        slot: id.0,
        name: slot.name.clone(),
        role: role.into(),
        epoch: slot.epoch.fencing_token(),
    }
}
