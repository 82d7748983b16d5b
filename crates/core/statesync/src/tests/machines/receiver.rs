//! The standby alone.

use super::*;

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

/// Goal: as long as a stream's first copy is not whole, no statement is made about what is missing.
#[test]
fn a_mark_in_a_snapshot_is_no_watermark() {
    let mark = Record::Mark(Mark {
        sent_at_ns: 1,
        behind_us: 0,
        round_trip_us: 0,
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

/// Goal: what is known to be missing is in the statement of a failover: what the sweep did not find, what
/// somebody changed, what the table refused; until it is told anew.
#[test]
fn a_watermark_counts_what_is_known_to_be_missing() {
    let end = told(5, 1, 3, Record::End { generation: 1 });
    let mark = |sequence| {
        let mark = Mark {
            sent_at_ns: 3,
            behind_us: 0,
            round_trip_us: 0,
            changes: 1,
        };
        ReceiverInput::Frame(told(5, 1, sequence, Record::Mark(mark)))
    };
    let altered = Item {
        value: Bytes::from_static(b"of somebody"),
        ..item()
    };
    for held in [Vec::new(), vec![altered]] {
        let inputs = [hello(5), begin(5, 1, 1), put(2), end.clone()];
        let (mut receiver, mut out) = receiver_with(inputs.map(ReceiverInput::Frame).into());
        let chunk = ReceiverInput::SweepChunk {
            sweep: 1,
            items: held,
            is_last: true,
        };
        receiver.handle(Time(2), chunk, &mut out);
        let wants = |frame: &Frame| matches!(frame.body, Body::Wants { .. });
        assert!(frames(&out.outgoing).iter().any(wants));
        apply_all(&mut receiver, &mut out);
        assert!(receiver.status().in_sync);
        receiver.handle(Time(3), mark(4), &mut out);
        apply_all(&mut receiver, &mut out);
        let missing = |receiver: &Receiver| receiver.watermark().missing(Time(3));
        assert_eq!(missing(&receiver), Some(1));
        receiver.handle(Time(3), ReceiverInput::Frame(put(5)), &mut out);
        apply_all(&mut receiver, &mut out);
        assert_eq!(missing(&receiver), Some(0));
        let refused = ReceiverInput::Unapplied { key: item().key };
        receiver.handle(Time(3), refused, &mut out);
        assert_eq!(missing(&receiver), Some(1));
    }
}

/// Everything is carried out.
fn apply_all(receiver: &mut Receiver, out: &mut Effects<ReceiverAction>) {
    let flush = out.actions.drain(..).rev().find_map(|action| match action {
        ReceiverAction::Flush { ticket } => Some(ticket),
        _ => None,
    });
    receiver.handle(Time(2), ReceiverInput::Applied(flush.unwrap()), out);
}
