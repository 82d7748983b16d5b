//! A copy that nobody has kept whole up to the takeover.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vnfpool_model::{Epoch, Role, Time};
use vnfpool_statesync::{Item, ReceiverAction};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{LevelKind, Restored};

use super::hostile::{give, register, replies};
use super::pair::{SLOT, named};
use crate::element::sdk::class::{Class, UNKEPT_MAX};
use crate::element::sdk::session::Session;
use crate::element::sdk::{FunctionHealth, Hub, SlotRole};
use crate::element::sync;
use crate::pulse::now;

const AN_HOUR: Duration = Duration::from_secs(3_600);

/// A standby whose function has the class and came without state.
struct Standby {
    hub: Arc<Hub>,
    session: Session,
}

impl Standby {
    fn new() -> Self {
        let health = Arc::new(FunctionHealth::new(false));
        let hub = Arc::new(Hub::new("lb1".into(), "lb".into(), health).unwrap());
        let session = Session::new(Arc::clone(&hub));
        let mut standby = Self { hub, session };
        standby.set_role(Role::Standby, 1, now());
        give(&mut standby.session, register(LevelKind::LevelCommit));
        standby
    }

    fn set_role(&self, role: Role, term: u64, at: Time) {
        let (name, epoch) = ("main".to_owned(), Epoch::first_of(term));
        let role = SlotRole { name, role, epoch };
        self.hub.state().set_role(SLOT, role, &self.hub.bell, at);
    }

    /// A stream of the active that has made the copy whole, with these entries.
    fn fed(&self, entries: u8) -> Box<dyn sync::Sink> {
        let spec = self.hub.state().specs[0].clone();
        let mut sink = (self.hub.stream_class(&spec).open_sink)(SLOT).unwrap();
        for number in 0..entries {
            let item = Item {
                key: Bytes::copy_from_slice(&[number]),
                value: Bytes::new(),
                ttl_s: 0,
            };
            self.class().state().table.put(item, now()).unwrap();
        }
        sink.apply(&ReceiverAction::InSync(true)).unwrap();
        sink
    }

    /// Whether the copy counts as whole when this element becomes the active, and whether the function
    /// is asked to put everything again.
    fn takes_over(&mut self, term: u64, at: Time) -> (bool, bool) {
        self.set_role(Role::Active, term, at);
        replies(&mut self.session);
        self.session.advance(at);
        let is_request = |reply: &ReplyKind| matches!(reply, ReplyKind::Restore(_));
        let is_asked = replies(&mut self.session).iter().any(is_request);
        (self.is_complete(), is_asked)
    }

    fn is_complete(&self) -> bool {
        self.class().state().table.is_complete()
    }

    fn class(&self) -> Arc<Class> {
        self.hub.class(SLOT, &named("c")).unwrap()
    }
}

const WHOLE: (bool, bool) = (true, false);
const OLD: (bool, bool) = (false, true);

/// Goal: what the former active has not sent for long is not called whole, and the function hears of
/// it, also one that came without state; when that has put everything, it is whole.
#[test]
fn a_copy_that_was_not_fed_any_more_is_not_whole() {
    let mut standby = Standby::new();
    drop(standby.fed(2));
    assert_eq!(standby.takes_over(2, now().after(AN_HOUR)), OLD);
    let (slot, epoch) = (SLOT.0, Epoch::first_of(2).fencing_token());
    let restored = Restored {
        slot,
        class: 0,
        epoch,
    };
    give(&mut standby.session, Kind::Restored(restored));
    assert!(standby.is_complete());
}

/// Goal: the copy of an active that died is whole, since the stream ended with it, however the takeover
/// and the end of the stream meet.
#[test]
fn a_copy_of_which_the_active_died_is_whole() {
    let mut ended = Standby::new();
    drop(ended.fed(2));
    let at = now().after(UNKEPT_MAX / 2);
    assert_eq!(ended.takes_over(2, at), WHOLE);
    let mut is_open = Standby::new();
    let stream = is_open.fed(2);
    assert_eq!(is_open.takes_over(2, now().after(AN_HOUR)), WHOLE);
    drop(stream);
    assert!(is_open.is_complete());
}

/// Goal: a stream that ends behind the next one of the same class takes nothing from it.
#[test]
fn the_newer_of_two_streams_keeps_the_copy() {
    let mut standby = Standby::new();
    let older = standby.fed(2);
    let newer = standby.fed(2);
    drop(older);
    assert_eq!(standby.takes_over(2, now().after(AN_HOUR)), WHOLE);
    drop(newer);
}

/// Goal: what this element had as the active is whole after a break, and old after a long time in which
/// another one may have served; a class without entries cannot be old.
#[test]
fn what_this_element_had_as_the_active_ages_too() {
    for (entries, expected) in [(2, OLD), (0, WHOLE)] {
        let mut standby = Standby::new();
        drop(standby.fed(entries));
        let begin = now();
        assert_eq!(standby.takes_over(2, begin), WHOLE);
        standby.set_role(Role::Standby, 3, begin.after(AN_HOUR));
        let soon = begin.after(AN_HOUR + UNKEPT_MAX);
        assert_eq!(standby.takes_over(4, soon), WHOLE);
        standby.set_role(Role::Standby, 5, soon);
        assert_eq!(standby.takes_over(6, soon.after(AN_HOUR)), expected);
    }
}
