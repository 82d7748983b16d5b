//! In which order a function hears of changes and roles.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use vnfpool_model::{Epoch, Role, Time};
use vnfpool_statesync::Item;
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{LevelKind, Request, RoleKind, Watch, encode};

use super::hostile::{give, register, replies};
use super::pair::{SLOT, named};
use crate::element::sdk::session::{OUTGOING_BYTES_MAX, Session};
use crate::element::sdk::{FunctionHealth, Hub, SlotRole};

/// A function that watches its class as the standby, and has been told everything so far.
struct Watched {
    hub: Arc<Hub>,
    session: Session,
}

impl Watched {
    fn new() -> Self {
        let health = Arc::new(FunctionHealth::new(false));
        let hub = Arc::new(Hub::new("lb1".into(), "lb".into(), health).unwrap());
        let session = Session::new(Arc::clone(&hub));
        let mut watched = Self { hub, session };
        watched.set_role(Role::Standby, 1);
        give(&mut watched.session, register(LevelKind::LevelCommit));
        let (id, slot, class) = (1, SLOT.0, 0);
        give(&mut watched.session, Kind::Watch(Watch { id, slot, class }));
        replies(&mut watched.session);
        watched
    }

    fn set_role(&self, role: Role, term: u64) {
        let (name, epoch) = ("main".to_owned(), Epoch::first_of(term));
        self.hub.set_role(SLOT, SlotRole { name, role, epoch });
    }

    /// What the stream of the active would write.
    fn comes(&self, entries: u32, value: usize) {
        let class = self.hub.class(SLOT, &named("c")).unwrap();
        let mut state = class.state();
        for number in 0..entries {
            let item = Item {
                key: Bytes::copy_from_slice(&number.to_be_bytes()),
                value: vec![7; value].into(),
                ttl_s: 0,
            };
            state.table.put(item, Time(1)).unwrap();
        }
        state.table.ring(Time(1));
    }
}

fn roles(replies: &[ReplyKind]) -> Vec<RoleKind> {
    let roles = replies.iter().filter_map(|reply| match reply {
        ReplyKind::Role(role) => Some(role.role()),
        _ => None,
    });
    roles.collect()
}

fn changes(replies: &[ReplyKind]) -> usize {
    let changes = replies.iter().map(|reply| match reply {
        ReplyKind::Changes(changes) => changes.ops.len(),
        _ => 0,
    });
    changes.sum()
}

/// Goal: the function has seen what was committed when it hears that it is the active. Method: both meet
/// in one look, first with few changes and then with more than there is room for.
#[test]
fn changes_are_told_before_the_word_that_this_element_is_the_active() {
    for (entries, value) in [(3, 1), (1_000, 8 * 1024)] {
        let mut watched = Watched::new();
        watched.comes(entries, value);
        watched.set_role(Role::Active, 2);
        let mut seen = 0;
        loop {
            watched.session.advance(Time(2));
            let told = replies(&mut watched.session);
            assert!(!told.is_empty(), "nothing is told any more");
            let active = told
                .iter()
                .position(|reply| matches!(reply, ReplyKind::Role(_)));
            let before = &told[..active.unwrap_or(told.len())];
            seen += changes(before);
            // A level or a request to restore is of the active only.
            assert!(
                before
                    .iter()
                    .all(|reply| matches!(reply, ReplyKind::Changes(_)))
            );
            if let Some(at) = active {
                assert_eq!(roles(&told[at..]), [RoleKind::RoleActive]);
                break;
            }
        }
        assert_eq!(seen, usize::try_from(entries).unwrap());
        assert!(!watched.session.waits());
    }
}

/// Goal: the end of the active role waits for nothing, not even for room, and nothing is held back
/// after it.
#[test]
fn the_loss_of_the_active_role_is_told_at_once() {
    let mut watched = Watched::new();
    watched.set_role(Role::Active, 2);
    watched.session.advance(Time(2));
    assert_eq!(
        roles(&replies(&mut watched.session)),
        [RoleKind::RoleActive]
    );
    watched.comes(1_000, 8 * 1024);
    watched.session.advance(Time(2));
    assert!(watched.session.outgoing().len() >= OUTGOING_BYTES_MAX);
    watched.set_role(Role::Standby, 3);
    watched.session.advance(Time(2));
    assert_eq!(
        roles(&replies(&mut watched.session)),
        [RoleKind::RoleStandby]
    );
    // Active again and not any more before it was told.
    watched.set_role(Role::Active, 4);
    watched.session.advance(Time(2));
    assert!(watched.session.waits());
    watched.set_role(Role::Spare, 5);
    watched.session.advance(Time(2));
    assert!(!watched.session.waits());
    let mut told = Vec::new();
    while told.last() != Some(&RoleKind::RoleSpare) {
        watched.session.advance(Time(2));
        told.extend(roles(&replies(&mut watched.session)));
    }
    assert_eq!(told, [RoleKind::RoleSpare]);
}

/// Goal: a function that was not the active for a moment that nobody has told it of hears of that, and
/// of what was changed meanwhile, before it is the active again.
#[test]
fn a_break_that_was_over_before_it_was_told_is_told() {
    let mut watched = Watched::new();
    watched.set_role(Role::Active, 2);
    watched.session.advance(Time(2));
    replies(&mut watched.session);
    watched.set_role(Role::Standby, 3);
    watched.comes(1, 1);
    watched.set_role(Role::Active, 4);
    watched.session.advance(Time(2));
    let told = replies(&mut watched.session);
    let [
        ReplyKind::Role(lost),
        ReplyKind::Changes(_),
        ReplyKind::Role(gained),
        ..,
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(lost.role(), RoleKind::RoleStandby);
    assert_eq!(gained.role(), RoleKind::RoleActive);
}

/// Goal: neither a watch that has ended nor one that is read too slowly keeps the slot from its
/// function for ever.
#[test]
fn a_watch_that_is_not_read_holds_the_role_back_for_a_while() {
    let begin = || {
        let mut watched = Watched::new();
        watched.comes(1_000, 8 * 1024);
        watched.set_role(Role::Active, 2);
        watched.session.advance(Time(2));
        assert_eq!(roles(&replies(&mut watched.session)), []);
        watched
    };
    let mut watched = begin();
    let kind = Some(Kind::Unwatch(vnfpool_wire::sdk::Unwatch { id: 1 }));
    encode(&Request { kind }, watched.session.incoming());
    watched.session.advance(Time(2));
    assert_eq!(
        roles(&replies(&mut watched.session)),
        [RoleKind::RoleActive]
    );
    let mut watched = begin();
    watched.session.advance(Time(2));
    let later = Time(2).after(Duration::from_secs(2));
    // It reads what waits for it, but no more than that in all the time.
    let waiting = watched.session.outgoing().len();
    watched.session.outgoing().advance(waiting);
    watched.session.advance(later);
    let told = replies(&mut watched.session);
    assert_eq!(roles(&told[..1]), [RoleKind::RoleActive]);
    assert!(changes(&told) > 0, "the rest follows");
}
