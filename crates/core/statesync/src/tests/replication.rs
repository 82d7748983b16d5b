//! Random runs of the whole, and the runs that once found something.

use proptest::prelude::*;

use super::world::World;
use crate::SenderAction;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u32,
    },
    Remove {
        key: u8,
    },
    /// More changes than the source's queue holds.
    Burst {
        value: u32,
    },
    ReadEvents {
        count: usize,
    },
    ReadChunk,
    Deliver {
        bytes: usize,
    },
    Apply {
        count: usize,
    },
    Answer {
        bytes: usize,
    },
    PassTime {
        millis: u64,
    },
    Connect,
    Disconnect,
    RestartSender,
    RestartReceiver,
    NextEpoch {
        tell_receiver: bool,
    },
    Barrier,
    Sweep,
    Lose {
        key: u8,
    },
    Intrude {
        key: u8,
    },
    Alter {
        key: u8,
        value: u32,
        is_other: bool,
    },
}

/// Few keys, so that they meet; faults are rare, so that there is something to break.
fn step() -> impl Strategy<Value = Step> {
    let key = || 0_u8..16;
    prop_oneof![
        12 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Put { key, value }),
        8 => key().prop_map(|key| Step::Remove { key }),
        1 => any::<u32>().prop_map(|value| Step::Burst { value }),
        10 => (1_usize..6).prop_map(|count| Step::ReadEvents { count }),
        8 => Just(Step::ReadChunk),
        10 => (1_usize..200).prop_map(|bytes| Step::Deliver { bytes }),
        8 => (1_usize..8).prop_map(|count| Step::Apply { count }),
        8 => (1_usize..100).prop_map(|bytes| Step::Answer { bytes }),
        4 => (1_u64..30).prop_map(|millis| Step::PassTime { millis }),
        3 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        1 => Just(Step::RestartSender),
        1 => Just(Step::RestartReceiver),
        1 => any::<bool>().prop_map(|tell_receiver| Step::NextEpoch { tell_receiver }),
        1 => Just(Step::Barrier),
        6 => Just(Step::Sweep),
        1 => key().prop_map(|key| Step::Lose { key }),
        1 => key().prop_map(|key| Step::Intrude { key }),
        1 => (key(), any::<u32>(), any::<bool>())
            .prop_map(|(key, value, is_other)| Step::Alter { key, value, is_other }),
    ]
}

fn take(world: &mut World, step: &Step, number: usize) {
    match *step {
        Step::Put { key, value } => world.source.put(key, value),
        Step::Remove { key } => world.source.remove(key),
        Step::Burst { value } => {
            for key in 0..32 {
                world
                    .source
                    .put(key % 16, value.wrapping_add(u32::from(key)));
            }
        }
        Step::ReadEvents { count } => world.read_events(count),
        Step::ReadChunk => world.read_chunk(),
        Step::Deliver { bytes } => world.deliver(bytes),
        Step::Apply { count } => world.apply(count),
        Step::Answer { bytes } => world.answer(bytes),
        Step::PassTime { millis } => world.pass_time(millis),
        Step::Connect => world.connect(),
        Step::Disconnect => world.disconnect(),
        Step::RestartSender => world.restart_sender(),
        Step::RestartReceiver => world.restart_receiver(),
        Step::NextEpoch { tell_receiver } => world.next_epoch(tell_receiver),
        Step::Barrier => world.barrier(number as u64),
        Step::Sweep => world.sweep(),
        Step::Lose { key } => world.lose(key),
        Step::Intrude { key } => world.intrude(key),
        Step::Alter {
            key,
            value,
            is_other,
        } => world.alter(key, value, is_other),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happens on the way: in sync and quiet means equal; every barrier is answered once;
    /// without further faults it ends in sync.
    #[test]
    fn the_copy_ends_equal_to_the_source(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        let mut barriers = 0;
        for (number, step) in steps.iter().enumerate() {
            take(&mut world, step, number);
            barriers += usize::from(matches!(step, Step::Barrier));
            if matches!(step, Step::RestartSender) {
                // Whoever asked the old one is gone with it.
                barriers = answers(&world);
            }
            world.check();
        }
        world.settle();
        world.check();
        prop_assert_eq!(answers(&world), barriers);
        // Whatever else wrote in the copy is found within a minute, while other entries change; an
        // audit of equal tables changes nothing.
        world.audit(|second| Some((100 + (second % 5) as u8, second)));
        prop_assert_eq!(&world.source.table, &world.copy);
        let repaired = world.sender.status().repaired;
        world.audit(|_| None);
        prop_assert_eq!(&world.source.table, &world.copy);
        prop_assert_eq!(world.sender.status().repaired, repaired);
    }
}

fn answers(world: &World) -> usize {
    let is_answer = |action: &&SenderAction| {
        matches!(
            action,
            SenderAction::Reached { .. } | SenderAction::Unreachable { .. }
        )
    };
    world.sender_actions.iter().filter(is_answer).count()
}

#[test]
fn an_entry_deleted_after_its_chunk_was_filled_does_not_come_back() {
    let mut world = World::new();
    for key in 0..9 {
        world.source.put(key, 0);
    }
    world.read_events(100);
    world.connect();
    world.read_chunk();
    // The chunk with key 4 is filled; its deletion is sent before it.
    world.source.remove(4);
    world.read_events(100);
    world.settle();
    assert!(!world.copy.contains_key(&4));
    assert_eq!(world.copy, world.source.table);
}

#[test]
fn what_vanished_while_the_stream_was_broken_is_removed() {
    let mut world = World::new();
    for key in 0..9 {
        world.source.put(key, 0);
    }
    world.settle();
    world.disconnect();
    world.source.remove(3);
    world.read_events(100);
    world.settle();
    assert_eq!(world.copy, world.source.table);
}

#[test]
fn a_standby_that_does_not_keep_up_gets_a_snapshot_later() {
    let mut world = World::new();
    world.settle();
    for round in 0..30 {
        for key in 0..10 {
            world.source.put(key, round);
        }
        world.read_events(100);
    }
    assert_eq!(world.sender.status().lagged, 1);
    assert!(!world.sender.status().in_sync);
    assert!(world.sender.status().unacked_bytes < 2 * super::world::LIMITS.unacked_bytes_max);
    world.settle();
    assert_eq!(world.copy, world.source.table);
}

#[test]
fn a_newer_epoch_with_the_same_active_keeps_the_standby_in_sync() {
    let mut world = World::new();
    world.source.put(1, 1);
    world.settle();
    let generation = world.sender.status().generation;
    world.next_epoch(true);
    assert!(world.sender.status().in_sync);
    world.source.put(2, 2);
    world.settle();
    assert_eq!(world.sender.status().generation, generation);
    assert_eq!(world.receiver.status().epoch, world.epoch);
    assert_eq!(world.copy, world.source.table);
}

#[test]
fn a_barrier_waits_for_what_was_handed_in_before() {
    let mut world = World::new();
    world.settle();
    world.source.put(1, 1);
    world.read_events(100);
    world.barrier(7);
    world.deliver(usize::MAX);
    world.answer(usize::MAX);
    assert!(
        !world
            .sender_actions
            .contains(&SenderAction::Reached { id: 7 })
    );
    world.apply(2);
    world.answer(usize::MAX);
    assert!(
        !world
            .sender_actions
            .contains(&SenderAction::Reached { id: 7 })
    );
    world.apply(1);
    world.answer(usize::MAX);
    assert!(
        world
            .sender_actions
            .contains(&SenderAction::Reached { id: 7 })
    );
    assert_eq!(world.copy, world.source.table);
}

#[test]
fn a_change_lost_behind_queued_ones_is_not_hidden_by_them() {
    let mut world = World::new();
    world.settle();
    for key in 0..40 {
        world.source.put(key % 13, u32::from(key));
    }
    world.settle();
    assert_eq!(world.copy, world.source.table);
}

/// Goal: what the source's loss hid is told, and nothing else. (Few entries of many.)
#[test]
fn after_a_loss_only_what_differs_is_told() {
    let mut world = World::of(200);
    world.settle();
    let changes = world.sender.status();
    for round in 0..2 {
        for key in 0..10 {
            world.source.put(key, round);
        }
    }
    world.settle();
    assert_eq!(world.copy, world.source.table);
    let status = world.sender.status();
    assert_eq!(status.overruns, 1);
    assert_eq!(
        status.repaired - changes.repaired,
        10,
        "{:?}",
        world.sender_actions
    );
    assert!(status.sent - changes.sent < 30);
}

/// Goal: an entry that the standby's kernel lost, one that it invented, and ones that somebody
/// changed there are found and mended within a minute under traffic, and both ends say so.
#[test]
fn a_copy_that_differs_is_found_and_mended_in_part() {
    let mut world = World::of(100);
    world.settle();
    let before = world.sender.status();
    world.lose(17);
    world.intrude(200);
    world.alter(60, 5, false);
    world.alter(61, 0, true);
    let mut seconds = 0;
    while world.copy != world.source.table {
        seconds += 1;
        assert!(seconds < 60, "{world:?}");
        world.pass_time(1_000);
        world.source.put(u8::try_from(seconds).unwrap(), seconds);
        world.settle();
        assert!(world.sender.status().in_sync);
    }
    let (sender, receiver) = (world.sender.status(), world.receiver.status());
    assert_eq!((receiver.missing, receiver.surplus), (1, 1));
    assert_eq!((receiver.altered, receiver.unlike), (2, 0));
    assert_eq!((sender.diverged, sender.wanted), (0, 3));
    // Those entries, not the table.
    assert_eq!(sender.repaired - before.repaired, 3);
}

/// Goal: what the standby's kernel cannot hold as the active's does is told anew once, not for ever,
/// and counted; when it is altered the same way again after it was right, that is found.
#[test]
fn what_a_copy_cannot_hold_is_not_asked_for_for_ever() {
    let mut world = World::of(30);
    world.stubborn = Some(7);
    world.settle();
    world.audit(|_| None);
    let (sender, receiver) = (world.sender.status(), world.receiver.status());
    assert_eq!(
        (receiver.altered, receiver.unlike, sender.wanted),
        (1, 1, 1)
    );
    world.source.put(7, 1);
    world.audit(|_| None);
    let receiver = world.receiver.status();
    assert_eq!((receiver.altered, receiver.unlike), (2, 1));
    world.stubborn = None;
    world.source.put(7, 2);
    for again in 1..3 {
        world.audit(|_| None);
        assert_eq!(world.copy, world.source.table);
        world.alter(7, u32::MAX, false);
        world.audit(|_| None);
        assert_eq!(world.copy, world.source.table);
        let receiver = world.receiver.status();
        assert_eq!((receiver.altered, receiver.unlike), (2 + again, 0));
    }
}

/// Goal: what a loss hides behind an audit that is under way is replaced at the standby, not
/// updated: the entry is of another life, and no later scan could tell by its value.
#[test]
fn a_loss_during_an_audit_leaves_nothing_of_the_life_before() {
    let mut world = World::new();
    world.source.put(1, 1);
    world.settle();
    world.pass_time(1_000);
    assert!(world.sender.wants_chunk(), "an audit is under way");
    // The end of one life and the begin of the next are among what is lost.
    world.source.remove(1);
    world.source.put(1, 2);
    for value in 0..20 {
        world.source.put(9, value);
    }
    world.read_events(1);
    assert_eq!(world.sender.status().overruns, 1);
    world.source.put(1, 3);
    world.read_events(100);
    world.settle();
    assert_eq!(world.copy, world.source.table);
}

/// A world of 30 entries in sync, in which the standby has just found that somebody changed the entry
/// of key 7 and the sender has not heard of it.
fn altered_and_found() -> World {
    let mut world = World::of(30);
    world.settle();
    world.alter(7, 5, false);
    while world.receiver.status().altered == 0 {
        world.pass_time(1_000);
        for _ in 0..40 {
            world.read_chunk();
            world.deliver(usize::MAX);
            world.apply(1000);
            world.sweep();
            if world.receiver.status().altered == 0 {
                world.answer(usize::MAX);
            }
        }
    }
    world
}

/// Goal: an entry that the standby wants anew, and that ends unheard before it is told, does not live on
/// in a copy that is said to be in sync.
#[test]
fn a_wanted_entry_that_ends_in_a_loss_is_no_zombie() {
    let mut world = altered_and_found();
    world.answer(usize::MAX);
    for value in 1..20 {
        world.source.put(20, value);
    }
    world.source.remove(7);
    world.settle();
    let status = world.sender.status();
    assert_eq!((status.wanted, status.overruns), (1, 1));
    assert_eq!(world.copy, world.source.table);
}

/// Goal: what is asked for and has not come yet is not taken for what the table cannot hold, and not
/// asked for twice.
#[test]
fn what_has_not_come_yet_is_not_unlike() {
    let mut world = altered_and_found();
    for _ in 0..60 {
        world.pass_time(1_000);
        for _ in 0..40 {
            world.apply(1000);
            world.sweep();
        }
    }
    let receiver = world.receiver.status();
    assert_eq!(
        (receiver.altered, receiver.unlike, receiver.wanted),
        (1, 0, 1)
    );
    world.audit(|_| None);
    assert_eq!(world.copy, world.source.table);
    let (sender, receiver) = (world.sender.status(), world.receiver.status());
    assert_eq!((sender.wanted, receiver.wanted, receiver.unlike), (1, 0, 0));
}
