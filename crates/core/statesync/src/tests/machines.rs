//! Each machine alone: refusals, misbehaving peers, time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use vnfpool_model::Time;

use super::world::{demand, offer};
use crate::class::{Bounds, Demand, Level, Offer};
use crate::wire::record::{Record, Records};
use crate::wire::{Body, Decoder, Frame, Refusal, VERSION, WireError};
use crate::{
    Change, Effects, Item, Limits, Receiver, ReceiverAction, ReceiverInput, Sender, SenderAction,
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

fn hello(epoch: u64) -> Frame {
    let body = Body::Hello {
        demand: demand(),
        hash_key: [1; 16],
    };
    frame(epoch, 0, 0, body)
}

/// A frame of one record.
fn told(epoch: u64, generation: u32, sequence: u64, record: Record) -> Frame {
    let body = Body::Records(Records::new(&[record]));
    frame(epoch, generation, sequence, body)
}

fn begin(epoch: u64, generation: u32, sequence: u64) -> Frame {
    let record = Record::Begin {
        generation,
        resync: true,
        whole: None,
    };
    told(epoch, generation, sequence, record)
}

fn item() -> Item {
    Item {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"value"),
        ttl_s: 0,
    }
}

fn put(sequence: u64) -> Frame {
    let record = Record::Put {
        item: item(),
        is_new: true,
    };
    told(5, 1, sequence, record)
}

fn frames(bytes: &BytesMut) -> Vec<Frame> {
    let mut decoder = Decoder::new();
    decoder.push(bytes);
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

/// A receiver of epoch 5 with an open stream, and what it does with `inputs`.
fn receiver_with(inputs: Vec<ReceiverInput>) -> (Receiver, Effects<ReceiverAction>) {
    let mut receiver = Receiver::new(offer());
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
    let of = |frames: Vec<Frame>| {
        let frames = std::iter::once(hello(5)).chain(frames);
        refusal(frames.map(ReceiverInput::Frame).collect())
    };
    let of_begun = |frame: Frame| of(vec![begin(5, 1, 1), frame]);
    assert_eq!(of(vec![begin(4, 1, 1)]), Some(Refusal::OldEpoch));
    assert_eq!(of(vec![put(1)]), Some(Refusal::Gap), "before the begin");
    assert_eq!(of_begun(put(3)), Some(Refusal::Gap));
    assert_eq!(of_begun(put(1)), Some(Refusal::Gap));
    let of_another_scan = told(5, 2, 2, Record::Barrier);
    assert_eq!(of_begun(of_another_scan), Some(Refusal::Gap));
    assert_eq!(
        of_begun(frame(5, 1, 2, Body::Ack)),
        Some(Refusal::Malformed)
    );
    assert_eq!(of_begun(hello(5)), Some(Refusal::Gap));
    assert_eq!(of_begun(put(2)), None);
    let old_after_new = vec![begin(6, 1, 1), told(5, 1, 2, Record::Barrier)];
    assert_eq!(of(old_after_new), Some(Refusal::OldEpoch));
    let without_hello = vec![ReceiverInput::Frame(begin(5, 1, 1))];
    assert_eq!(refusal(without_hello), Some(Refusal::Gap));
}

/// Goal: the first of many changes is acknowledged at once, the others together a moment later, and
/// one for which the active waits (a barrier) without that moment.
#[test]
fn one_acknowledgement_stands_for_many_changes_but_nobody_waits_for_it() {
    let mut receiver = Receiver::new(offer());
    let mut out = Effects::default();
    let mut apply = |now: Time, input: ReceiverInput| -> Vec<u64> {
        receiver.handle(now, input, &mut out);
        for action in std::mem::take(&mut out.actions) {
            if let ReceiverAction::Flush { ticket } = action {
                receiver.handle(now, ReceiverInput::Applied(ticket), &mut out);
            }
        }
        let said = frames(&std::mem::take(&mut out.outgoing)).into_iter();
        let acks = said.filter(|frame| frame.body == Body::Ack);
        acks.map(|frame| frame.sequence).collect()
    };
    let start = Time(1_000_000_000);
    apply(start, ReceiverInput::Connected);
    apply(start, ReceiverInput::Frame(hello(5)));
    assert_eq!(apply(start, ReceiverInput::Frame(begin(5, 1, 1))), [1]);
    assert_eq!(apply(start, ReceiverInput::Frame(put(2))), []);
    assert_eq!(apply(start, ReceiverInput::Frame(put(3))), []);
    let later = start.after(Duration::from_millis(1));
    assert_eq!(apply(Time(later.0 - 1), ReceiverInput::Tick), []);
    assert_eq!(apply(later, ReceiverInput::Tick), [3]);
    assert_eq!(apply(later, ReceiverInput::Frame(put(4))), []);
    let barrier = told(5, 1, 5, Record::Barrier);
    assert_eq!(apply(later, ReceiverInput::Frame(barrier)), [5]);
    assert_eq!(apply(later, ReceiverInput::Tick), []);
}

#[test]
fn what_a_standby_cannot_read_it_refuses_by_name() {
    let able = offer();
    let other_format = Offer {
        format: 9,
        ..able.clone()
    };
    let older = Offer { schema: 0, ..able };
    for (offer, reason) in [(other_format, Refusal::Class), (older, Refusal::Schema)] {
        let mut receiver = Receiver::new(offer);
        let mut out = Effects::default();
        receiver.handle(Time(1), ReceiverInput::Connected, &mut out);
        receiver.handle(Time(1), ReceiverInput::Frame(hello(5)), &mut out);
        assert_eq!(out.actions, [ReceiverAction::Close { reason }]);
        let version = VERSION;
        assert_eq!(
            frames(&out.outgoing)[0].body,
            Body::Refused { reason, version }
        );
    }
}

#[test]
fn the_receiver_refuses_other_versions_nonsense_and_failures_by_name() {
    let version = WireError::Version { found: 9 };
    let malformed = |error| refusal(vec![ReceiverInput::Malformed(error)]);
    assert_eq!(malformed(version), Some(Refusal::Version));
    assert_eq!(malformed(WireError::Magic), Some(Refusal::Malformed));
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
    let inputs = [
        old,
        ReceiverInput::Connected,
        ReceiverInput::Frame(hello(6)),
    ];
    for input in inputs {
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
    let frames = || [hello(5), begin(5, 1, 1)].map(ReceiverInput::Frame);
    let [greeted, begun] = frames();
    let late = ReceiverInput::Frame(put(2));
    assert_eq!(refusal(vec![greeted, begun, newer.clone(), late]), None);
    let [greeted, begun] = frames();
    assert_eq!(refusal(vec![newer.clone(), greeted, begun]), None);
    let [greeted, _] = frames();
    let reconnected = vec![newer, ReceiverInput::Connected, greeted];
    assert_eq!(refusal(reconnected), Some(Refusal::OldEpoch));
}

#[test]
fn tickets_of_an_earlier_stream_acknowledge_nothing() {
    let frames = || [hello(5), begin(5, 1, 1)].map(ReceiverInput::Frame);
    let (mut receiver, out) = receiver_with(frames().into());
    let Some(ReceiverAction::Flush { ticket }) = out.actions.last() else {
        panic!("unexpected {:?}", out.actions);
    };
    let mut out = Effects::default();
    for input in [ReceiverInput::Disconnected, ReceiverInput::Connected] {
        receiver.handle(Time(1), input, &mut out);
    }
    for input in frames() {
        receiver.handle(Time(1), input, &mut out);
    }
    out.outgoing.clear();
    receiver.handle(Time(1), ReceiverInput::Applied(*ticket), &mut out);
    assert!(out.outgoing.is_empty());
    assert_eq!(receiver.status().applied, 0);
}

#[test]
fn nothing_follows_the_last_sequence_there_is() {
    let greeting = Frame {
        sequence: u64::MAX,
        ..hello(5)
    };
    for sequence in [0, u64::MAX] {
        let inputs = [greeting.clone(), begin(5, 1, sequence)].map(ReceiverInput::Frame);
        assert_eq!(refusal(inputs.into()), Some(Refusal::Gap));
    }
}

#[test]
fn more_than_agreed_is_refused() {
    let value = Bytes::from(vec![0; 30_000]);
    let put = |sequence| {
        let item = Item {
            value: value.clone(),
            ..item()
        };
        let is_new = true;
        ReceiverInput::Frame(told(5, 1, sequence, Record::Put { item, is_new }))
    };
    let mut inputs = [hello(5), begin(5, 1, 1)]
        .map(ReceiverInput::Frame)
        .to_vec();
    inputs.extend((2..800).map(put));
    assert_eq!(refusal(inputs), Some(Refusal::Overload));
}

const BOUNDS: Bounds = Bounds {
    lag_ms: 1_000,
    entries: 100,
};

/// A sender of the active that demands `level`, connected at time 1.
fn sender_of(level: Level, accepts_less: bool) -> (Sender, Effects<SenderAction>) {
    let demand = Demand { level, ..demand() };
    let mut sender = Sender::new(demand, accepts_less, Limits::default());
    let mut out = Effects::default();
    let epoch = SenderInput::Epoch {
        token: 5,
        is_active: true,
    };
    sender.handle(Time(1), epoch, &mut out);
    let hash_key = [1; 16];
    sender.handle(Time(1), SenderInput::Connected { hash_key }, &mut out);
    (sender, out)
}

fn active_sender() -> (Sender, Effects<SenderAction>) {
    sender_of(Level::Bounded(BOUNDS), false)
}

fn said(sequence: u64, body: Body) -> SenderInput {
    SenderInput::Frame(frame(5, 1, sequence, body))
}

fn ack(sequence: u64) -> SenderInput {
    said(sequence, Body::Ack)
}

fn accepted(level: Level) -> SenderInput {
    said(0, Body::Accepted { level })
}

/// A sender that is in sync at time 1 with an empty table.
fn synced_sender() -> Sender {
    let (mut sender, mut out) = active_sender();
    sender.handle(Time(1), accepted(Level::Bounded(BOUNDS)), &mut out);
    let last = SenderInput::ScanChunk {
        generation: 1,
        items: Vec::new(),
        is_last: true,
    };
    sender.handle(Time(1), last, &mut out);
    sender.handle(Time(1), ack(2), &mut out);
    assert!(!sender.status().in_sync, "the copy may hold something else");
    sender.handle(Time(1), said(0, Body::Swept), &mut out);
    assert!(out.actions.contains(&SenderAction::InSync(true)));
    sender
}

/// A change, sent at once.
fn change(sender: &mut Sender, now: Time, out: &mut Effects<SenderAction>) {
    // Another value each time: what is told already is not told again.
    let value = sender.status().changes.to_be_bytes().to_vec().into();
    let change = Change::Put {
        item: Item { value, ..item() },
        is_new: false,
    };
    sender.handle(now, SenderInput::Change(change), out);
    sender.flush(now, out);
}

#[test]
fn acknowledging_what_was_not_sent_closes_the_stream() {
    for sequence in [3, u64::MAX] {
        let (mut sender, mut out) = active_sender();
        sender.handle(Time(1), accepted(Level::Bounded(BOUNDS)), &mut out);
        sender.handle(Time(1), ack(sequence), &mut out);
        assert!(out.actions.contains(&SenderAction::PeerMisbehaved));
        assert!(out.actions.contains(&SenderAction::Close));
        assert!(out.outgoing.is_empty());
    }
}

/// Goal: less than demanded is refused or taken as the pool says, and more than demanded is
/// nonsense; without an acceptance nothing is sent.
#[test]
fn a_standby_that_can_do_less_is_taken_only_where_that_will_do() {
    for (level, accepts_less, goes_on) in [
        (Level::Bounded(BOUNDS), false, true),
        (Level::Eventual, true, true),
        (Level::Eventual, false, false),
        (Level::None, true, false),
        (Level::Commit(BOUNDS), true, false),
    ] {
        let (mut sender, mut out) = sender_of(Level::Bounded(BOUNDS), accepts_less);
        assert!(matches!(
            frames(&out.outgoing)[..],
            [Frame {
                body: Body::Hello { .. },
                ..
            }]
        ));
        change(&mut sender, Time(1), &mut out);
        assert_eq!(frames(&out.outgoing).len(), 1, "it may not understand us");
        sender.handle(Time(1), accepted(level), &mut out);
        let begun = out
            .actions
            .contains(&SenderAction::StartScan { generation: 1 });
        assert_eq!(begun, goes_on, "{level}");
        assert_eq!(
            out.actions.contains(&SenderAction::Close),
            !goes_on,
            "{level}"
        );
    }
}

/// Goal: a standby cannot talk the pool out of its bounds. Method: it accepts the level with greater ones, and
/// lags by more than those that were demanded.
#[test]
fn the_bounds_of_a_level_are_the_ones_demanded() {
    let greater = Bounds {
        lag_ms: u32::MAX,
        entries: u32::MAX,
    };
    let (mut sender, mut out) = active_sender();
    sender.handle(Time(1), accepted(Level::Bounded(greater)), &mut out);
    let level = Level::Bounded(BOUNDS);
    assert!(out.actions.contains(&SenderAction::Accepted { level }));
    assert_eq!(sender.status().level, Some(level));
    sender.handle(
        Time(1),
        SenderInput::ScanChunk {
            generation: 1,
            items: Vec::new(),
            is_last: true,
        },
        &mut out,
    );
    sender.handle(Time(1), ack(2), &mut out);
    sender.handle(Time(1), said(0, Body::Swept), &mut out);
    for _ in 0..=BOUNDS.entries {
        assert!(sender.status().in_sync);
        change(&mut sender, Time(10), &mut out);
    }
    assert!(!sender.status().in_sync);
}

#[test]
fn a_sender_that_is_not_active_sends_nothing_and_stops_when_it_ceases_to_be() {
    let mut sender = synced_sender();
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
    change(&mut sender, Time(1), &mut out);
    let hash_key = [1; 16];
    sender.handle(Time(1), SenderInput::Connected { hash_key }, &mut out);
    assert_eq!(out.actions, [SenderAction::Close]);
    assert!(out.outgoing.is_empty());
}

/// Goal: state that must not be sent is not, not even its name.
#[test]
fn a_class_of_level_none_opens_no_stream() {
    let (mut sender, mut out) = sender_of(Level::None, true);
    change(&mut sender, Time(1), &mut out);
    assert_eq!(out.actions, [SenderAction::Close]);
    assert!(out.outgoing.is_empty());
}

#[test]
fn silence_of_the_standby_ends_being_in_sync_at_the_deadline() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    change(&mut sender, Time(10), &mut out);
    assert!(sender.status().in_sync);
    // Marks fall due all the time and prove nothing.
    let mut due = sender.deadline().unwrap();
    let late = Time(10).after(BOUNDS.lag());
    while due <= late {
        sender.handle(due, SenderInput::Tick, &mut out);
        assert!(sender.status().in_sync);
        due = sender.deadline().unwrap();
    }
    out.actions.clear();
    sender.handle(due, SenderInput::Tick, &mut out);
    assert_eq!(out.actions, [SenderAction::InSync(false)]);
    let all = sender.status().sent;
    sender.handle(due, ack(all), &mut out);
    assert!(sender.status().in_sync);
}

#[test]
fn too_many_changes_under_way_end_being_in_sync_until_half_are_confirmed() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    for _ in 0..BOUNDS.entries {
        change(&mut sender, Time(10), &mut out);
    }
    assert!(sender.status().in_sync);
    change(&mut sender, Time(10), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(10), ack(3), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(10), ack(3 + u64::from(BOUNDS.entries) / 2), &mut out);
    assert!(sender.status().in_sync);
}

#[test]
fn the_lag_is_the_age_of_the_oldest_frame_under_way() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let lag = |sender: &Sender, now| sender.status().lag(Time(now)).as_nanos();
    assert_eq!(lag(&sender, 1_000), 0);
    change(&mut sender, Time(1_000), &mut out);
    change(&mut sender, Time(1_500), &mut out);
    assert_eq!(lag(&sender, 2_000), 1_000);
    sender.handle(Time(2_000), ack(3), &mut out);
    assert_eq!(lag(&sender, 2_000), 500);
    sender.handle(Time(3_000), ack(4), &mut out);
    assert_eq!(lag(&sender, 9_000), 0, "however long ago the last one was");
}

/// Goal: an idle stream proves the copy, and one that is silent proves nothing. Method: marks that
/// are answered, then one that is not.
#[test]
fn an_idle_stream_proves_the_copy_and_a_silent_one_does_not() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let mut proved = Vec::new();
    for sequence in 3..6 {
        let due = sender.deadline().unwrap();
        sender.handle(due, SenderInput::Tick, &mut out);
        assert!(!out.outgoing.split().is_empty());
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
    let interval = Limits::default().proof_interval;
    assert_eq!(proved[2].since(proved[0]), interval * 2);
    let due = sender.deadline().unwrap();
    sender.handle(due, SenderInput::Tick, &mut out);
    for tenths in 1..30 {
        let now = due.after(Duration::from_millis(100) * tenths);
        sender.handle(now, SenderInput::Tick, &mut out);
        let proof = |action: &SenderAction| matches!(action, SenderAction::Proved { .. });
        assert!(!out.actions.iter().any(proof));
    }
}

/// Goal: a copy learns in time that its original lives on, and only then; it never has less than half
/// of its original's time for long.
#[test]
fn a_scan_prolongs_what_would_expire_early() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let mortal = |key: &'static [u8], ttl_s| Item {
        key: Bytes::from_static(key),
        ttl_s,
        ..item()
    };
    for item in [
        mortal(b"short", 30),
        mortal(b"long", 500),
        mortal(b"busy", 80),
        mortal(b"idle", 30),
    ] {
        let is_new = true;
        sender.handle(
            Time(1),
            SenderInput::Change(Change::Put { item, is_new }),
            &mut out,
        );
    }
    sender.flush(Time(1), &mut out);
    out.outgoing.clear();
    let begin = Limits::default().audit_interval.as_secs() + 2;
    let now = Time(1_000_000_000 * begin);
    let all = sender.status().sent;
    sender.handle(now, ack(all), &mut out);
    sender.handle(now, SenderInput::Tick, &mut out);
    assert!(sender.wants_chunk());
    let left = u32::try_from(30 - begin).unwrap();
    let chunk = SenderInput::ScanChunk {
        generation: 2,
        items: vec![
            mortal(b"short", 30),
            mortal(b"long", 500),
            // What was told is less than half of it by now.
            mortal(b"busy", 150),
            mortal(b"idle", left),
        ],
        is_last: true,
    };
    out.outgoing.clear();
    sender.handle(now, chunk, &mut out);
    let mut put = Vec::new();
    for frame in frames(&out.outgoing) {
        let Body::Records(records) = frame.body else {
            continue;
        };
        for record in records {
            if let Record::Put {
                item,
                is_new: false,
            } = record.unwrap()
            {
                put.push(item);
            }
        }
    }
    assert_eq!(put, [mortal(b"short", 30), mortal(b"busy", 150)]);
    assert_eq!(sender.status().repaired, 0, "nothing was wrong");
}

#[test]
fn a_loss_at_the_source_ends_being_in_sync_until_a_scan_without_loss() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    sender.handle(Time(1), SenderInput::Overrun, &mut out);
    let chunk = |generation| SenderInput::ScanChunk {
        generation,
        items: Vec::new(),
        is_last: true,
    };
    let swept = |generation| SenderInput::Frame(frame(5, generation, 0, Body::Swept));
    // The first is spoilt by the second loss; its end is not announced.
    sender.handle(Time(1), chunk(2), &mut out);
    let all = sender.status().sent;
    sender.handle(Time(1), ack(all), &mut out);
    sender.handle(Time(1), swept(2), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(1), chunk(3), &mut out);
    let all = sender.status().sent;
    sender.handle(Time(1), swept(3), &mut out);
    sender.handle(Time(1), ack(all), &mut out);
    assert!(sender.status().in_sync);
    assert!(out.actions.contains(&SenderAction::Repaired {
        put: 0,
        forgotten: 0
    }));
}

proptest! {
    /// A hostile peer can say what it likes: no panic, and nothing is kept beyond the bounds.
    #[test]
    fn hostile_frames_do_no_harm(
        said in prop::collection::vec((0_u64..8, 0_u32..4, 0_u64..6, 0_u8..9, super::wire::record()), 0..60),
    ) {
        let mut receiver = Receiver::new(offer());
        let mut out = Effects::default();
        receiver.handle(Time(1), ReceiverInput::Connected, &mut out);
        let (mut sender, mut sent) = active_sender();
        for (epoch, generation, sequence, kind, record) in said {
            let body = match kind {
                0 => begin(epoch, generation, sequence).body,
                1 | 2 => Body::Records(Records::new(&[record])),
                3 => hello(epoch).body,
                4 => Body::Ack,
                5 => Body::Accepted { level: Level::Bounded(BOUNDS) },
                6 => Body::Differs { buckets: vec![3] },
                7 => Body::Swept,
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

/// Goal: what is put again with the value that it had, while an audit runs, is not taken for gone.
#[test]
fn an_audit_keeps_what_is_put_again() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    let put = || {
        SenderInput::Change(Change::Put {
            item: item(),
            is_new: false,
        })
    };
    sender.handle(Time(2), put(), &mut out);
    sender.flush(Time(2), &mut out);
    let sent = sender.status().sent;
    sender.handle(Time(2), ack(sent), &mut out);
    out = Effects::default();
    let later = Time(2).after(Duration::from_secs(30));
    sender.handle(later, SenderInput::Tick, &mut out);
    let generation = sender.status().generation;
    assert!(
        out.actions
            .contains(&SenderAction::StartScan { generation })
    );
    sender.handle(later, put(), &mut out);
    sender.handle(later, SenderInput::Barrier { id: 7 }, &mut out);
    let chunk = SenderInput::ScanChunk {
        generation,
        items: vec![item()],
        is_last: true,
    };
    sender.handle(later, chunk, &mut out);
    sender.flush(later, &mut out);
    let mut told = Vec::new();
    for frame in frames(&out.outgoing) {
        if let Body::Records(records) = frame.body {
            told.extend(records.map(|one| one.unwrap()));
        }
    }
    assert_eq!(sender.status().entries, 1, "{told:?}");
}

/// Goal: as long as a stream's first copy is not whole, no statement is made about what is missing.
#[test]
fn a_mark_in_a_snapshot_is_no_watermark() {
    let mark = Record::Mark(crate::wire::record::Mark {
        sent_at_ns: 1,
        behind_us: 0,
        round_trip_us: 0,
        backlog: 0,
        changes: 0,
    });
    let inputs = [hello(5), begin(5, 1, 1), told(5, 1, 2, mark)].map(ReceiverInput::Frame);
    let (mut receiver, mut out) = receiver_with(inputs.into());
    let tickets: Vec<_> = out
        .actions
        .iter()
        .filter_map(|action| match action {
            ReceiverAction::Flush { ticket } => Some(*ticket),
            _ => None,
        })
        .collect();
    for ticket in tickets {
        receiver.handle(Time(2), ReceiverInput::Applied(ticket), &mut out);
    }
    assert!(!receiver.status().in_sync);
    assert_eq!(receiver.watermark().complete_until, None);
}

/// Goal: what the table refuses is said before the acknowledgement that covers it, and again when it is
/// settled: told anew and taken, or gone.
#[test]
fn what_the_table_refuses_is_told_before_the_acknowledgement() {
    let barrier = told(5, 1, 3, Record::Barrier);
    let inputs = [hello(5), begin(5, 1, 1), put(2), barrier].map(ReceiverInput::Frame);
    let (mut receiver, mut out) = receiver_with(inputs.into());
    let mut apply = |refused: bool, more: Option<Frame>| {
        if let Some(frame) = more {
            receiver.handle(Time(2), ReceiverInput::Frame(frame), &mut out);
        }
        let last = out.actions.drain(..).rev().find_map(|action| match action {
            ReceiverAction::Flush { ticket } => Some(ticket),
            _ => None,
        });
        out.outgoing.clear();
        if refused {
            let key = item().key;
            receiver.handle(Time(2), ReceiverInput::Unapplied { key }, &mut out);
        }
        receiver.handle(Time(2), ReceiverInput::Applied(last.unwrap()), &mut out);
        let said = frames(&out.outgoing).into_iter().map(|frame| frame.body);
        said.collect::<Vec<_>>()
    };
    let lacks = |entries, refused| Body::Lacks { entries, refused };
    assert_eq!(apply(true, None), [lacks(1, 1), Body::Ack]);
    let barrier = |sequence| Some(told(5, 1, sequence, Record::Barrier));
    assert_eq!(apply(false, barrier(4)), [Body::Ack], "that is known");
    assert_eq!(apply(true, Some(put(5)))[0], lacks(1, 1), "refused again");
    assert_eq!(apply(false, Some(put(6)))[0], lacks(0, 0), "taken");
}

/// Goal: nobody is told that the standby has what its table refused; the rest goes on, and more of it than the
/// pool allows to be missing puts the standby out of sync.
#[test]
fn a_refused_entry_is_not_held() {
    let mut sender = synced_sender();
    let mut out = Effects::default();
    change(&mut sender, Time(2), &mut out);
    sender.handle(Time(2), SenderInput::Barrier { id: 7 }, &mut out);
    sender.flush(Time(2), &mut out);
    let lacks = |entries, refused| said(0, Body::Lacks { entries, refused });
    sender.handle(Time(3), lacks(1, 1), &mut out);
    sender.handle(Time(3), ack(sender.status().sent), &mut out);
    assert!(out.actions.contains(&SenderAction::Unreachable { id: 7 }));
    assert!(!out.actions.contains(&SenderAction::Reached { id: 7 }));
    assert!(out.actions.contains(&SenderAction::Lacking { entries: 1 }));
    assert!(sender.status().in_sync, "within the bounds");
    sender.handle(Time(4), SenderInput::Barrier { id: 8 }, &mut out);
    sender.flush(Time(4), &mut out);
    sender.handle(Time(5), ack(sender.status().sent), &mut out);
    assert!(out.actions.contains(&SenderAction::Reached { id: 8 }));
    sender.handle(Time(6), lacks(BOUNDS.entries + 1, 100), &mut out);
    assert!(!sender.status().in_sync);
    sender.handle(Time(7), lacks(0, 0), &mut out);
    assert!(sender.status().in_sync);
}

/// Goal: after a loss that is not repaired a mark promises nothing newer than before the loss.
#[test]
fn a_loss_stops_the_mark() {
    let mut sender = synced_sender();
    let caught_up = |at| SenderInput::CaughtUp {
        up_to: at,
        backlog: 0,
    };
    let mut behind = |at: Time, input: SenderInput| {
        let mut out = Effects::default();
        sender.handle(at, input, &mut out);
        let records = frames(&out.outgoing)
            .into_iter()
            .flat_map(|frame| match frame.body {
                Body::Records(records) => records.map(Result::unwrap).collect::<Vec<_>>(),
                _ => Vec::new(),
            });
        let marks = records.filter_map(|record| match record {
            Record::Mark(mark) => Some(mark.behind_us),
            _ => None,
        });
        marks.last()
    };
    let at = |millis| Time(1).after(Duration::from_millis(millis));
    assert_eq!(behind(at(100), caught_up(at(100))), Some(0));
    assert_eq!(behind(at(200), SenderInput::Overrun), Some(100_000));
    behind(at(201), caught_up(at(201)));
    assert_eq!(behind(at(300), SenderInput::Tick), Some(200_000));
}
