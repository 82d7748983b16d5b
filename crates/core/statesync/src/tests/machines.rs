//! Each machine alone: refusals, misbehaving peers, time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use vnfpool_model::Time;

use crate::wire::{Body, Decoder, Frame, Refusal, VERSION, WireError};
use crate::{
    Change, Effects, Limits, Receiver, ReceiverAction, ReceiverInput, Sender, SenderAction,
    SenderInput,
};

fn frame(epoch: u64, generation: u32, sequence: u64, body: Body) -> Frame {
    Frame {
        epoch,
        generation,
        sequence,
        body,
    }
}

fn begin(epoch: u64, generation: u32, sequence: u64) -> Frame {
    let body = Body::SnapshotBegin { resync: true };
    frame(epoch, generation, sequence, body)
}

fn snapshot_entry(sequence: u64) -> Frame {
    let body = Body::Upsert {
        is_new: true,
        from_snapshot: true,
        entry: Bytes::from_static(b"entry"),
    };
    frame(5, 1, sequence, body)
}

fn frames(bytes: &BytesMut) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

/// A receiver of epoch 5 with an open stream, and what it does with `inputs`.
fn receiver_with(inputs: Vec<ReceiverInput>) -> (Receiver, Effects<ReceiverAction>) {
    let mut receiver = Receiver::new();
    let mut out = Effects::default();
    let epoch = ReceiverInput::Epoch {
        token: 5,
        accepts: true,
    };
    for input in [epoch, ReceiverInput::Connected].into_iter().chain(inputs) {
        receiver.handle(Time(1), input, &mut out);
    }
    (receiver, out)
}

fn refusal(inputs: Vec<ReceiverInput>) -> Option<Refusal> {
    let (mut receiver, mut out) = receiver_with(inputs);
    let ReceiverAction::Close { reason } = *out.actions.last()? else {
        return None;
    };
    let version = VERSION;
    let said = frames(&out.outgoing).pop().unwrap().body;
    assert_eq!(said, Body::Refused { reason, version });
    // It is deaf afterwards, whatever comes.
    out = Effects::default();
    receiver.handle(Time(1), ReceiverInput::Frame(begin(9, 1, 1)), &mut out);
    assert!(out.actions.is_empty() && out.outgoing.is_empty());
    assert_eq!(receiver.status().refused, 1);
    Some(reason)
}

#[test]
fn the_receiver_refuses_what_does_not_follow() {
    let of = |frames: Vec<Frame>| refusal(frames.into_iter().map(ReceiverInput::Frame).collect());
    let end = |sequence, count| frame(5, 1, sequence, Body::SnapshotEnd { count });
    assert_eq!(of(vec![begin(4, 1, 1)]), Some(Refusal::OldEpoch));
    assert_eq!(of(vec![snapshot_entry(1)]), Some(Refusal::Gap));
    assert_eq!(
        of(vec![begin(5, 1, 1), snapshot_entry(3)]),
        Some(Refusal::Gap)
    );
    assert_eq!(
        of(vec![begin(5, 2, 1), snapshot_entry(2)]),
        Some(Refusal::Gap)
    );
    assert_eq!(
        of(vec![begin(5, 1, 1), snapshot_entry(2), end(3, 2)]),
        Some(Refusal::Gap)
    );
    assert_eq!(
        of(vec![begin(5, 1, 1), end(2, 0), snapshot_entry(3)]),
        Some(Refusal::Gap)
    );
    assert_eq!(
        of(vec![begin(5, 1, 1), frame(5, 1, 2, Body::Ack)]),
        Some(Refusal::Malformed)
    );
    assert_eq!(
        of(vec![begin(5, 1, 77), snapshot_entry(78), end(79, 1)]),
        None
    );
    let old_after_new = vec![begin(6, 1, 1), frame(5, 1, 2, Body::Barrier { id: 1 })];
    assert_eq!(of(old_after_new), Some(Refusal::OldEpoch));
}

#[test]
fn the_receiver_refuses_other_versions_nonsense_and_failures_by_name() {
    let version = WireError::Version { found: 9 };
    assert_eq!(
        refusal(vec![ReceiverInput::Malformed(version)]),
        Some(Refusal::Version)
    );
    assert_eq!(
        refusal(vec![ReceiverInput::Malformed(WireError::Magic)]),
        Some(Refusal::Malformed)
    );
    assert_eq!(
        refusal(vec![ReceiverInput::ApplyFailed]),
        Some(Refusal::Failed)
    );
    let active = ReceiverInput::Epoch {
        token: 6,
        accepts: false,
    };
    assert_eq!(refusal(vec![active]), Some(Refusal::Role));
}

#[test]
fn an_active_takes_nothing_and_an_old_epoch_changes_nothing() {
    let (mut receiver, _) = receiver_with(vec![ReceiverInput::Epoch {
        token: 6,
        accepts: false,
    }]);
    let mut out = Effects::default();
    let old = ReceiverInput::Epoch {
        token: 5,
        accepts: true,
    };
    for input in [
        old,
        ReceiverInput::Connected,
        ReceiverInput::Frame(begin(6, 1, 1)),
    ] {
        receiver.handle(Time(1), input, &mut out);
    }
    let reason = Refusal::Role;
    assert_eq!(out.actions, [ReceiverAction::Close { reason }]);
}

#[test]
fn a_stream_may_lag_behind_an_epoch_with_the_same_active_but_not_begin_behind_it() {
    let newer = ReceiverInput::Epoch {
        token: 6,
        accepts: true,
    };
    let old = || ReceiverInput::Frame(snapshot_entry(2));
    let begun = ReceiverInput::Frame(begin(5, 1, 1));
    assert_eq!(refusal(vec![begun.clone(), newer.clone(), old()]), None);
    assert_eq!(refusal(vec![newer, begun]), None);
    let reconnected = vec![
        ReceiverInput::Epoch {
            token: 6,
            accepts: true,
        },
        ReceiverInput::Connected,
        ReceiverInput::Frame(begin(5, 1, 1)),
    ];
    assert_eq!(refusal(reconnected), Some(Refusal::OldEpoch));
}

#[test]
fn tickets_of_an_earlier_stream_acknowledge_nothing() {
    let (mut receiver, out) = receiver_with(vec![ReceiverInput::Frame(begin(5, 1, 50))]);
    let [ReceiverAction::BeginGeneration { ticket, .. }] = out.actions[..] else {
        panic!("unexpected {:?}", out.actions);
    };
    let mut out = Effects::default();
    for input in [
        ReceiverInput::Disconnected,
        ReceiverInput::Connected,
        ReceiverInput::Frame(begin(5, 1, 1)),
        ReceiverInput::Applied(ticket),
    ] {
        receiver.handle(Time(1), input, &mut out);
    }
    assert!(out.outgoing.is_empty());
    assert_eq!(receiver.status().applied, 0);
}

#[test]
fn more_than_agreed_is_refused() {
    let entry = Bytes::from(vec![0; 60_000]);
    let upsert = |sequence| {
        let body = Body::Upsert {
            is_new: true,
            from_snapshot: false,
            entry: entry.clone(),
        };
        ReceiverInput::Frame(frame(5, 1, sequence, body))
    };
    let mut inputs = vec![ReceiverInput::Frame(begin(5, 1, 1))];
    inputs.extend((2..400).map(upsert));
    assert_eq!(refusal(inputs), Some(Refusal::Overload));
}

fn active_sender(limits: Limits) -> (Sender, Effects<SenderAction>) {
    let mut sender = Sender::new(limits);
    let mut out = Effects::default();
    let epoch = SenderInput::Epoch {
        token: 5,
        is_active: true,
    };
    sender.handle(Time(1), epoch, &mut out);
    sender.handle(Time(1), SenderInput::Connected, &mut out);
    (sender, out)
}

fn ack(sequence: u64) -> SenderInput {
    SenderInput::Frame(frame(5, 1, sequence, Body::Ack))
}

/// A sender that is in sync at time 1 with an empty table.
fn synced_sender(limits: Limits) -> Sender {
    let (mut sender, mut out) = active_sender(limits);
    let last = SenderInput::SnapshotChunk {
        generation: 1,
        entries: Vec::new(),
        is_last: true,
    };
    sender.handle(Time(1), last, &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(1), ack(2), &mut out);
    assert!(out.actions.contains(&SenderAction::InSync(true)));
    sender
}

fn update() -> SenderInput {
    SenderInput::Change(Change::Update {
        key: Bytes::from_static(b"k"),
        entry: Bytes::from_static(b"entry"),
    })
}

#[test]
fn acknowledging_what_was_not_sent_closes_the_stream() {
    for sequence in [3, u64::MAX] {
        let (mut sender, mut out) = active_sender(Limits::default());
        sender.handle(Time(1), ack(sequence), &mut out);
        assert!(out.actions.contains(&SenderAction::PeerMisbehaved));
        assert!(out.actions.contains(&SenderAction::Close));
        assert!(out.outgoing.is_empty());
    }
}

#[test]
fn a_sender_that_is_not_active_sends_nothing_and_stops_when_it_ceases_to_be() {
    let mut sender = synced_sender(Limits::default());
    let mut out = Effects::default();
    let other = SenderInput::Epoch {
        token: 6,
        is_active: false,
    };
    sender.handle(Time(1), other, &mut out);
    assert_eq!(
        out.actions,
        [SenderAction::Close, SenderAction::InSync(false)]
    );
    let mut out = Effects::default();
    sender.handle(Time(1), update(), &mut out);
    sender.handle(Time(1), SenderInput::Connected, &mut out);
    assert_eq!(out.actions, [SenderAction::Close]);
    assert!(out.outgoing.is_empty());
}

#[test]
fn silence_of_the_standby_ends_being_in_sync_at_the_deadline() {
    let limits = Limits::default();
    let mut sender = synced_sender(limits);
    let mut out = Effects::default();
    sender.handle(Time(10), update(), &mut out);
    assert!(sender.status().in_sync);
    let due = sender.deadline().unwrap();
    assert_eq!(
        due.since(Time(10)),
        limits.lag_max + Duration::from_nanos(1)
    );
    sender.handle(due, SenderInput::Tick, &mut out);
    assert_eq!(out.actions, [SenderAction::InSync(false)]);
    sender.handle(due, ack(3), &mut out);
    assert!(sender.status().in_sync);
}

#[test]
fn the_lag_is_the_age_of_the_oldest_frame_under_way() {
    let mut sender = synced_sender(Limits::default());
    let mut out = Effects::default();
    let lag = |sender: &Sender, now| sender.status().lag(Time(now)).as_nanos();
    assert_eq!(lag(&sender, 1_000), 0);
    sender.handle(Time(1_000), update(), &mut out);
    sender.handle(Time(1_500), update(), &mut out);
    assert_eq!(lag(&sender, 2_000), 1_000);
    sender.handle(Time(2_000), ack(3), &mut out);
    assert_eq!(lag(&sender, 2_000), 500);
    sender.handle(Time(3_000), ack(4), &mut out);
    assert_eq!(lag(&sender, 9_000), 0, "however long ago the last one was");
}

/// Goal: an idle stream proves the copy, and one that is silent proves nothing. Method: barriers
/// that are answered, then one that is not.
#[test]
fn an_idle_stream_proves_the_copy_and_a_silent_one_does_not() {
    let limits = Limits::default();
    let mut sender = synced_sender(limits);
    let mut out = Effects::default();
    let mut proved = Vec::new();
    for sequence in 3..6 {
        let due = sender.deadline().unwrap();
        sender.handle(due, SenderInput::Tick, &mut out);
        assert!(matches!(
            frames(&out.outgoing.split())[..],
            [Frame {
                body: Body::Barrier { id: 0 },
                ..
            }]
        ));
        assert_eq!(out.actions, [], "nothing is proved yet");
        let answered = due.after(Duration::from_millis(1));
        sender.handle(answered, ack(sequence), &mut out);
        let as_of = due;
        assert_eq!(
            std::mem::take(&mut out.actions),
            [SenderAction::Proved { as_of }]
        );
        proved.push(as_of);
    }
    assert_eq!(proved[2].since(proved[0]), limits.proof_interval * 2);
    let due = sender.deadline().unwrap();
    sender.handle(due, SenderInput::Tick, &mut out);
    for tenths in 1..30 {
        let now = due.after(Duration::from_millis(100) * tenths);
        sender.handle(now, SenderInput::Tick, &mut out);
        let proof = |action: &SenderAction| matches!(action, SenderAction::Proved { .. });
        assert!(!out.actions.iter().any(proof));
    }
}

#[test]
fn the_table_is_announced_again_in_time() {
    let limits = Limits {
        proof_interval: Duration::MAX,
        ..Limits::default()
    };
    let mut sender = synced_sender(limits);
    let due = sender.deadline().unwrap();
    assert_eq!(due, Time(1).after(limits.refresh_interval));
    let mut out = Effects::default();
    sender.handle(due, SenderInput::Tick, &mut out);
    assert_eq!(out.actions, [SenderAction::StartSnapshot { generation: 2 }]);
    let resync = false;
    assert_eq!(
        frames(&out.outgoing)[0].body,
        Body::SnapshotBegin { resync }
    );
    assert!(sender.status().in_sync && sender.wants_chunk());
}

#[test]
fn a_loss_at_the_source_ends_being_in_sync_until_a_snapshot_without_loss() {
    let mut sender = synced_sender(Limits::default());
    let mut out = Effects::default();
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    let chunk = |generation| SenderInput::SnapshotChunk {
        generation,
        entries: Vec::new(),
        is_last: true,
    };
    // The first is spoilt by the second loss; its end is not announced.
    sender.handle(Time(1), chunk(2), &mut out);
    sender.handle(Time(1), ack(4), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(1), chunk(3), &mut out);
    sender.handle(Time(1), ack(5), &mut out);
    assert!(sender.status().in_sync);
}

proptest! {
    /// A hostile peer can say what it likes: no panic, and nothing is kept beyond the bounds.
    #[test]
    fn hostile_frames_do_no_harm(
        said in prop::collection::vec((0_u64..8, 0_u32..4, 0_u64..6, 0_u8..8), 0..60),
    ) {
        let mut receiver = Receiver::new();
        let mut out = Effects::default();
        receiver.handle(Time(1), ReceiverInput::Connected, &mut out);
        let (mut sender, mut sent) = active_sender(Limits::default());
        for (epoch, generation, sequence, kind) in said {
            let body = match kind {
                0 => Body::SnapshotBegin { resync: true },
                1 => Body::Upsert { is_new: true, from_snapshot: true, entry: Bytes::new() },
                2 => Body::Delete { key: Bytes::new() },
                3 => Body::SnapshotEnd { count: sequence },
                4 => Body::Barrier { id: sequence },
                5 => Body::Ack,
                6 => Body::BarrierDone { id: sequence },
                _ => Body::Refused { reason: Refusal::Failed, version: 1 },
            };
            let frame = frame(epoch, generation, sequence, body);
            receiver.handle(Time(1), ReceiverInput::Frame(frame.clone()), &mut out);
            if let Some(ReceiverAction::Close { .. }) = out.actions.last() {
                receiver.handle(Time(1), ReceiverInput::Connected, &mut out);
            }
            sender.handle(Time(1), SenderInput::Frame(frame), &mut sent);
            let status = sender.status();
            prop_assert!(status.acked <= status.sent);
            prop_assert!(!status.in_sync);
        }
    }
}
