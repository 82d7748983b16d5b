//! Classes that the registered function does not have: how long they are kept, and how many.
//!
//! A function that is upgraded drops a class, one that is taken back to its former version has it again,
//! one that is not well may forget it for a moment. Its entries may be the only ones that there are, so
//! whether this element is the active does not matter here, nor what a successor may hold. A class
//! without entries goes at once. One with entries goes when one function has been registered without it
//! for [`KEPT_FOR`]; what nobody registers meanwhile does not count. That memory has a bound, the one
//! that was left out first goes beyond [`KEPT_MAX`]; since a registration leaves out no more than that,
//! at least two of them have then been made without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use vnfpool_model::{SlotId, Time};
use vnfpool_statesync::class::ClassName;
use vnfpool_wire::sdk::CLASSES_MAX;

use super::class::{Class, LeftOut};
use super::{Hub, State};

/// A class with entries is kept for so long while one function is registered without it: time to find
/// that an upgrade was none, and to take it back.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(600);

/// Such classes of a slot.
const KEPT_MAX: usize = CLASSES_MAX;

/// Classes that are nobody's any more. To be dropped when the hub is unlocked: half a gigabyte of entries
/// takes a while to be freed, and a change of role waits for the lock.
pub(super) type Gone = Vec<Arc<Class>>;

impl Hub {
    /// Lets those go of which the time is over, or that have become empty.
    pub(super) fn drop_left_out(&self, now: Time) {
        if self.health.report().is_none() {
            // Whoever comes next may have them.
            return;
        }
        let mut gone = Gone::new();
        let mut state = self.state();
        for (slot, classes) in &mut state.classes {
            let is_due = |left_out: LeftOut| now.since(left_out.at) >= KEPT_FOR;
            take_those(*slot, classes, is_due, &mut gone);
        }
        drop(state);
        drop(gone);
    }
}

impl State {
    /// A function has registered with `specs`.
    #[must_use]
    pub(super) fn leave_out_others(&mut self, now: Time) -> Gone {
        let mut gone = Gone::new();
        self.registrations += 1;
        for (slot, classes) in &mut self.classes {
            for (name, class) in &mut *classes {
                if !self.specs.iter().any(|spec| spec.name == *name) {
                    class.state().leave_out(self.registrations, now);
                }
            }
            take_those(*slot, classes, |_| false, &mut gone);
            take_surplus(*slot, classes, &mut gone);
        }
        gone
    }
}

/// Takes out the classes that are left out and empty, or due.
fn take_those(
    slot: SlotId,
    classes: &mut BTreeMap<ClassName, Arc<Class>>,
    is_due: impl Fn(LeftOut) -> bool,
    gone: &mut Gone,
) {
    let goes = |name: &ClassName, class: &mut Arc<Class>| {
        let mut state = class.state();
        let Some(left_out) = state.left_out() else {
            return false;
        };
        let entries = state.table.entries();
        if entries > 0 && !is_due(left_out) {
            return false;
        }
        state.end();
        tracing::info!(%slot, class = %name, entries, "a class that the function does not register goes");
        true
    };
    gone.extend(classes.extract_if(.., goes).map(|(_, class)| class));
}

/// Takes out what is above the bound, beginning with what was left out first.
fn take_surplus(slot: SlotId, classes: &mut BTreeMap<ClassName, Arc<Class>>, gone: &mut Gone) {
    let left_out = classes.iter().filter_map(|(name, class)| {
        let since = class.state().left_out()?.since;
        Some((since, name.clone()))
    });
    let mut left_out: Vec<_> = left_out.collect();
    left_out.sort();
    let surplus = left_out.len().saturating_sub(KEPT_MAX);
    for (_, name) in left_out.into_iter().take(surplus) {
        if let Some(class) = classes.remove(&name) {
            let mut state = class.state();
            state.end();
            let entries = state.table.entries();
            tracing::warn!(
                %slot, class = %name, entries,
                "more than {KEPT_MAX} classes of former functions hold entries: the one that was left \
                 out first goes"
            );
            drop(state);
            gone.push(class);
        }
    }
}
