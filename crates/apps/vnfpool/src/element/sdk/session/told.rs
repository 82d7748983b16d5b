//! Roles, levels, and what a function is asked to put again.

use std::collections::BTreeMap;

use vnfpool_model::{self as model, SlotId, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::{Level, LevelNow, Restore, Role, RoleKind, SlotGone};

use super::Session;
use crate::element::sdk::SlotRole;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Of the hub's slots.
    revision: u64,
    slots: BTreeMap<SlotId, SlotRole>,
    classes: BTreeMap<(SlotId, u32), ToldOfClass>,
}

#[derive(Debug, Default)]
struct ToldOfClass {
    level: Option<Level>,
    /// The epoch in which the function was asked to put everything again.
    restore_in: Option<u64>,
}

impl Session {
    pub(super) fn tell_roles_and_levels(&mut self, now: Time) {
        let news = {
            let state = self.hub.state();
            (state.revision != self.told.revision).then(|| {
                self.told.revision = state.revision;
                state.slots.clone()
            })
        };
        if let Some(slots) = news {
            self.tell_roles(slots);
        }
        let count = self.classes.as_ref().map_or(0, Vec::len);
        let classes = 0..u32::try_from(count).unwrap_or(u32::MAX);
        for slot in self.told.slots.keys().copied().collect::<Vec<_>>() {
            for class in classes.clone() {
                self.tell_class(slot, class, now);
            }
        }
    }

    fn tell_roles(&mut self, slots: BTreeMap<SlotId, SlotRole>) {
        let before = std::mem::replace(&mut self.told.slots, slots);
        let gone = before
            .keys()
            .filter(|slot| !self.told.slots.contains_key(slot));
        for slot in gone.copied().collect::<Vec<_>>() {
            self.told.classes.retain(|(of, _), _| *of != slot);
            self.send(ReplyKind::SlotGone(SlotGone { slot: slot.0 }));
        }
        let news: Vec<_> = self
            .told
            .slots
            .iter()
            .filter(|(id, slot)| before.get(id) != Some(slot))
            .map(|(id, slot)| role_message(*id, slot))
            .collect();
        for role in news {
            self.send(ReplyKind::Role(role));
        }
    }

    fn tell_class(&mut self, slot: SlotId, class: u32, now: Time) {
        let Ok(found) = self.class(slot.0, class) else {
            return;
        };
        let mut state = found.state();
        let tenure = state.tenure();
        if tenure.is_some() && !state.table.is_complete() && !self.has_state {
            // There is nobody who has more of it.
            state.table.set_complete(true, now);
        }
        let lost = tenure.filter(|_| !state.table.is_complete());
        // Only the active has a level to hold.
        let level = tenure.map(|_| state.level_now(now));
        drop(state);
        let told = self.told.classes.entry((slot, class)).or_default();
        if lost.is_some() && told.restore_in != lost {
            told.restore_in = lost;
            let slot = slot.0;
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
