//! Classes that a function registers with, and the next one without.

use std::sync::Arc;
use std::time::Duration;

use vnfpool_model::{Epoch, Role, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{self, Batch, CLASSES_MAX, Class, Op, Register, Request};

use super::hostile::replies;
use super::pair::{SLOT, named};
use crate::element::sdk::left_out::KEPT_FOR;
use crate::element::sdk::session::Session;
use crate::element::sdk::{FunctionHealth, Hub, SlotRole};
use crate::element::sync;

fn hub(role: Role) -> Arc<Hub> {
    let health = Arc::new(FunctionHealth::new(false));
    let hub = Arc::new(Hub::new("lb1".into(), "lb".into(), health).unwrap());
    set_role(&hub, role, 1);
    hub
}

fn set_role(hub: &Hub, role: Role, term: u64) {
    let (name, epoch) = ("main".to_owned(), Epoch::first_of(term));
    hub.set_role(SLOT, SlotRole { name, role, epoch });
}

/// A function that has registered with these classes.
struct Registered {
    session: Session,
    last: u64,
}

impl Registered {
    fn with(hub: &Arc<Hub>, classes: &[String], at: Time) -> Self {
        let class = |name: &String| Class {
            name: name.clone(),
            format: 1,
            schema_version: 1,
            ..Class::default()
        };
        let mut session = Session::new(Arc::clone(hub));
        let kind = Kind::Register(Register {
            version: sdk::VERSION,
            function: "f".into(),
            classes: classes.iter().map(class).collect(),
            ..Register::default()
        });
        sdk::encode(&Request { kind: Some(kind) }, session.incoming());
        session.advance(at);
        let told = replies(&mut session);
        assert!(
            matches!(told.first(), Some(ReplyKind::Registered(_))),
            "{told:?}"
        );
        Self { session, last: 0 }
    }

    /// Puts or deletes an entry of a class.
    fn change(&mut self, class: u32, value: Option<&'static [u8]>, at: Time) {
        self.last += 1;
        let kind = Kind::Batch(Batch {
            slot: SLOT.0,
            class,
            epoch: Epoch::first_of(1).fencing_token(),
            last: self.last,
            ops: vec![Op {
                key: b"k".as_slice().into(),
                value: value.map(Into::into),
                ttl_s: 0,
            }],
        });
        sdk::encode(&Request { kind: Some(kind) }, self.session.incoming());
        self.session.advance(at);
        let told = replies(&mut self.session);
        let is_refusal = |reply: &ReplyKind| matches!(reply, ReplyKind::Refused(_));
        assert!(!told.iter().any(is_refusal), "{told:?}");
    }
}

fn classes<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

fn held(hub: &Hub) -> Vec<(String, usize)> {
    let figures = hub.figures().into_iter();
    figures
        .map(|(_, class, entries, _)| (class.to_string(), entries))
        .collect()
}

fn after(seconds: u64) -> Time {
    Time(1).after(Duration::from_secs(seconds))
}

/// Goal: a function that registers without a class for less than the time, and again, costs no entry,
/// however long nobody is registered; nor is the other role a reason.
#[test]
fn a_class_that_is_left_out_for_a_while_keeps_its_entries() {
    let hub = hub(Role::Active);
    let mut first = Registered::with(&hub, &classes(["flows", "old"]), Time(1));
    first.change(0, Some(b"v"), Time(1));
    first.change(1, Some(b"v"), Time(1));
    drop(first);
    let almost = KEPT_FOR.as_secs() - 1;
    for (begin, role) in [(0, Role::Standby), (5 * KEPT_FOR.as_secs(), Role::Active)] {
        set_role(&hub, role, begin + 2);
        let second = Registered::with(&hub, &classes(["flows"]), after(begin));
        hub.sweep(after(begin + almost));
        drop(second);
        hub.sweep(after(begin + 4 * KEPT_FOR.as_secs()));
        let kept = [("flows".to_owned(), 1), ("old".to_owned(), 1)];
        assert_eq!(held(&hub), kept);
    }
    let again = after(20 * KEPT_FOR.as_secs());
    let _third = Registered::with(&hub, &classes(["flows", "old"]), again);
    hub.sweep(again.after(2 * KEPT_FOR));
    assert_eq!(held(&hub).len(), 2, "it is one of the function's again");
}

/// Goal: what nobody has registered for long goes, with its table and its figures.
#[test]
fn a_class_that_stays_left_out_goes() {
    let hub = hub(Role::Active);
    let mut first = Registered::with(&hub, &classes(["flows", "old"]), Time(1));
    first.change(1, Some(b"v"), Time(1));
    drop(first);
    let old = Arc::downgrade(&hub.class(SLOT, &named("old")).unwrap());
    let _second = Registered::with(&hub, &classes(["flows"]), Time(1));
    hub.sweep(after(KEPT_FOR.as_secs() - 1));
    assert_eq!(held(&hub).len(), 2);
    hub.sweep(after(KEPT_FOR.as_secs()));
    assert_eq!(held(&hub), [("flows".to_owned(), 0)]);
    assert!(old.upgrade().is_none(), "somebody keeps its table");
}

/// Goal: what has no entries, or has none any more, is kept for nobody.
#[test]
fn an_empty_class_that_is_left_out_goes_at_once() {
    let hub = hub(Role::Active);
    let mut first = Registered::with(&hub, &classes(["flows", "old"]), Time(1));
    first.change(1, Some(b"v"), Time(1));
    first.change(1, None, Time(1));
    drop(first);
    let _second = Registered::with(&hub, &classes(["flows"]), Time(1));
    assert_eq!(held(&hub), [("flows".to_owned(), 0)]);
}

/// Goal: however often a function registers with other classes, it is taken, memory has a bound, and
/// what the last registration left out is there. Method: each time as many as may be, with entries.
#[test]
fn registrations_do_not_use_up_the_room_for_classes() {
    let hub = hub(Role::Active);
    for turn in 0..10 {
        let names: Vec<_> = (0..CLASSES_MAX).map(|n| format!("c{turn}-{n}")).collect();
        let mut function = Registered::with(&hub, &names, Time(1));
        for class in 0..CLASSES_MAX {
            function.change(u32::try_from(class).unwrap(), Some(b"v"), Time(1));
        }
        let held = held(&hub);
        assert!(held.len() <= 2 * CLASSES_MAX, "{held:?}");
        if turn > 0 {
            let before = format!("c{}-", turn - 1);
            let kept = held.iter().filter(|(name, _)| name.starts_with(&before));
            assert_eq!(kept.count(), CLASSES_MAX);
        }
    }
}

/// Goal: nobody who needs the hub waits until the entries of a class are freed. Method: with the lock
/// held, what goes is still there.
#[test]
fn what_goes_is_freed_outside_the_lock() {
    let hub = hub(Role::Active);
    let mut first = Registered::with(&hub, &classes(["old"]), Time(1));
    first.change(0, Some(b"v"), Time(1));
    first.change(0, None, Time(1));
    let old = Arc::downgrade(&hub.class(SLOT, &named("old")).unwrap());
    let mut state = hub.state();
    state.specs.clear();
    let gone = state.leave_out_others(Time(2));
    assert!(state.classes[&SLOT].is_empty());
    assert!(old.upgrade().is_some(), "freed under the lock");
    drop(state);
    drop(gone);
    assert!(old.upgrade().is_none());
}

fn stream(hub: &Arc<Hub>, class: &str) -> sync::Class {
    let state = hub.state();
    let spec = state.specs.iter().find(|spec| spec.name == named(class));
    let spec = spec.unwrap().clone();
    drop(state);
    hub.stream_class(&spec)
}

/// Goal: a standby whose function does not have the class any more is no successor. Method: the
/// stream's end of it, which nothing comes on, is looked at as its thread does.
#[test]
fn a_copy_that_the_function_does_not_know_any_more_ends_its_stream() {
    let hub = hub(Role::Standby);
    let first = Registered::with(&hub, &classes(["flows", "old"]), Time(1));
    let [mut flows, mut old] =
        ["flows", "old"].map(|class| (stream(&hub, class).open_sink)(SLOT).unwrap());
    old.read_sweep().unwrap();
    drop(first);
    old.read_sweep().unwrap();
    let _second = Registered::with(&hub, &classes(["flows"]), Time(1));
    let error = old.read_sweep().unwrap_err().to_string();
    assert!(error.contains("without the class"), "{error}");
    flows.read_sweep().unwrap();
}

/// Goal: a class that went and came again is another one; what still feeds a successor from the old
/// one ends, so that the next stream is of the new one. Method: both happen before the streams are
/// looked at.
#[test]
fn a_stream_of_a_class_that_went_ends() {
    let hub = hub(Role::Active);
    let _ = Registered::with(&hub, &classes(["flows"]), Time(1));
    let mut before = (stream(&hub, "flows").open_source)(SLOT).unwrap();
    before.read(&mut Vec::new()).unwrap();
    let _ = Registered::with(&hub, &classes([]), Time(1));
    let _ = Registered::with(&hub, &classes(["flows"]), Time(1));
    before.read(&mut Vec::new()).unwrap_err();
    let mut now = (stream(&hub, "flows").open_source)(SLOT).unwrap();
    now.read(&mut Vec::new()).unwrap();
}
