//! A slot of which another process of the agent was the active.

use std::sync::Arc;
use std::time::Duration;

use vnfpool_model::{Epoch, Role, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{LevelKind, Restored};

use super::hostile::{give, register, replies};
use super::pair::{SLOT, named};
use crate::element::sdk::session::Session;
use crate::element::sdk::{FunctionHealth, Hub, SlotRole};

struct Element {
    hub: Arc<Hub>,
    health: Arc<FunctionHealth>,
    session: Session,
}

impl Element {
    /// The active, with an empty table, when the function has registered.
    fn active(is_inherited: bool, has_state: bool) -> Self {
        let health = Arc::new(FunctionHealth::new(true));
        let hub = Hub::new("lb1".into(), "lb".into(), Arc::clone(&health)).unwrap();
        let hub = Arc::new(hub);
        if is_inherited {
            hub.inherit(SLOT);
        }
        let session = Session::new(Arc::clone(&hub));
        let mut element = Self {
            hub,
            health,
            session,
        };
        element.set_role(Role::Active, 1);
        let Kind::Register(mut kind) = register(LevelKind::LevelCommit) else {
            panic!("no registration");
        };
        kind.has_state = has_state;
        kind.health.get_or_insert_default().healthy = true;
        give(&mut element.session, Kind::Register(kind));
        element
    }

    fn set_role(&self, role: Role, term: u64) {
        let (name, epoch) = ("main".to_owned(), Epoch::first_of(term));
        self.hub.set_role(SLOT, SlotRole { name, role, epoch });
    }

    fn is_complete(&self) -> bool {
        let class = self.hub.class(SLOT, &named("c")).unwrap();
        let state = class.state();
        state.table.is_complete()
    }

    /// Whether the manager is told that the function has yet to put its class again.
    fn is_restoring(&self) -> bool {
        self.hub.restoring(SLOT).contains(&named("c"))
    }

    fn is_asked_to_restore(&mut self) -> bool {
        let replies = replies(&mut self.session);
        let is_request = |reply: &ReplyKind| matches!(reply, ReplyKind::Restore(_));
        replies.iter().any(is_request)
    }
}

#[test]
fn the_first_function_of_a_pool_begins_with_what_it_has() {
    let mut element = Element::active(false, false);
    assert!(element.is_complete() && !element.is_restoring());
    assert_eq!(element.health.fault(), None);
    assert!(!element.is_asked_to_restore());
}

#[test]
fn a_function_that_has_the_state_is_asked_for_it() {
    let mut element = Element::active(true, true);
    assert!(!element.is_complete() && element.is_restoring());
    assert_eq!(element.health.fault(), None);
    assert!(element.is_asked_to_restore());
    let restored = Restored {
        slot: SLOT.0,
        class: 0,
        epoch: Epoch::first_of(1).fencing_token(),
    };
    give(&mut element.session, Kind::Restored(restored));
    assert!(element.is_complete() && !element.is_restoring());
}

/// Goal: when agent and function are both new, the successor's copy is the only one. The empty table is
/// not called whole, whatever the function says; the slot goes to the successor, and then all is well.
#[test]
fn what_only_a_successor_has_is_not_overwritten_by_nothing() {
    let mut element = Element::active(true, false);
    assert!(!element.is_complete());
    assert!(element.health.fault().unwrap().contains("is lost here"));
    assert!(!element.is_asked_to_restore());
    let (slot, epoch) = (SLOT.0, Epoch::first_of(1).fencing_token());
    let class = 0;
    give(
        &mut element.session,
        Kind::Restored(Restored { slot, class, epoch }),
    );
    assert!(!element.is_complete());
    element.set_role(Role::Standby, 2);
    assert_eq!(element.health.fault(), None);
    element.set_role(Role::Active, 3);
    element.session.advance(Time(3));
    assert!(element.is_complete());
}

/// Goal: an element that nobody can take the slot from does not stay without a successor for ever.
#[test]
fn a_slot_that_nobody_takes_over_begins_anew() {
    let mut element = Element::active(true, false);
    let later = Time(1).after(Duration::from_secs(11));
    element.session.advance(later);
    element.session.advance(later);
    assert!(element.is_complete());
    assert_eq!(element.health.fault(), None);
}
