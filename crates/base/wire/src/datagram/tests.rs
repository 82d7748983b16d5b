//! Every message survives its round trip, and no bytes do harm.

use proptest::prelude::*;
use vnfpool_model::SlotId;

use super::*;

fn member() -> impl Strategy<Value = Member> {
    (1..9u32, any::<u64>()).prop_map(|(n, i)| Member {
        node: NodeId(n),
        incarnation: Incarnation(i),
    })
}
fn record() -> impl Strategy<Value = Record> {
    let second = prop::option::of(member());
    (1..u64::MAX, member(), second, pace()).prop_map(|(term, first, second, pace)| Record {
        term,
        first,
        second,
        pace,
    })
}
fn pace() -> impl Strategy<Value = Pace> {
    (1..LEASE_MS_MAX).prop_flat_map(|heartbeat_interval_ms| {
        (heartbeat_interval_ms + 1..=LEASE_MS_MAX).prop_map(move |lease_ms| Pace {
            heartbeat_interval_ms,
            lease_ms,
        })
    })
}
fn time() -> impl Strategy<Value = Time> {
    any::<u64>().prop_map(Time)
}
fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<u16>()).prop_map(|(term, turn)| Epoch { term, turn })
}
fn inc() -> impl Strategy<Value = Incarnation> {
    any::<u64>().prop_map(Incarnation)
}
fn token() -> impl Strategy<Value = Token> {
    (any::<u64>(), time()).prop_map(|(boot, clock)| Token { boot, clock })
}
fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (any::<u16>(), record(), time(), time()).prop_map(|(turn, record, sent_at, echo)| {
            Message::Heartbeat(Heartbeat {
                turn,
                record,
                sent_at,
                echo,
            })
        }),
        (epoch(), inc(), time(), time(), any::<bool>(), any::<bool>()).prop_map(
            |(epoch, incarnation, sent_at, echo, promise, able)| Message::Ack(Ack {
                epoch,
                incarnation,
                sent_at,
                echo,
                promise,
                able
            })
        ),
        (epoch(), inc(), time(), time()).prop_map(|(epoch, incarnation, sent_at, echo)| {
            Message::Handover(Handover {
                epoch,
                incarnation,
                sent_at,
                echo,
            })
        }),
        (
            epoch(),
            inc(),
            time(),
            any::<[bool; 3]>(),
            prop::option::of(member())
        )
            .prop_map(|(epoch, incarnation, sent_at, flags, candidate)| {
                let [heard_manager, able, renounces] = flags;
                Message::Request(Request {
                    epoch,
                    incarnation,
                    sent_at,
                    heard_manager,
                    able,
                    renounces,
                    candidate,
                })
            }),
        (prop::option::of(record()), token(), time(), any::<bool>()).prop_map(
            |(record, token, echo, grant)| Message::Info(Info {
                record,
                token,
                echo,
                grant
            })
        ),
        (any::<u64>(), inc(), time(), token(), any::<bool>()).prop_map(
            |(term, incarnation, sent_at, token, able)| Message::Split(Split {
                term,
                incarnation,
                sent_at,
                token,
                able
            })
        ),
        (epoch(), inc(), time(), time(), any::<u32>(), any::<bool>()).prop_map(
            |(epoch, incarnation, sent_at, echo, manager_silence_ms, able)| {
                Message::Gossip(Gossip {
                    epoch,
                    incarnation,
                    sent_at,
                    echo,
                    manager_silence_ms,
                    able,
                })
            }
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(slot: u32, message in message()) {
        let mut body = [0; BODY_BYTES_MAX];
        let length = message.encode(SlotId(slot), &mut body);
        let read = Message::decode(message.kind(), &body[..length]);
        prop_assert_eq!(read, Ok((SlotId(slot), message)));
        // No shorter and no longer body of the kind is accepted.
        prop_assert!(Message::decode(message.kind(), &body[..length - 1]).is_err());
        prop_assert!(Message::decode(message.kind(), &[&body[..length], &[0]].concat()).is_err());
    }

    /// A record without a heartbeat, or with a lease that no heartbeat renews, is no record.
    #[test]
    fn a_record_has_a_pace_that_can_be_kept(record in record(), heartbeat in 0..4u32, lease: u32) {
        let pace = Pace { heartbeat_interval_ms: heartbeat, lease_ms: lease };
        let record = Some(Record { pace, ..record });
        let info = Info { record, token: Token::default(), echo: Time::ZERO, grant: false };
        let mut body = [0; BODY_BYTES_MAX];
        let length = Message::Info(info).encode(SlotId(1), &mut body);
        let read = Message::decode(Message::Info(info).kind(), &body[..length]);
        prop_assert_eq!(read.is_ok(), heartbeat > 0 && heartbeat < lease && lease <= LEASE_MS_MAX);
    }

    #[test]
    fn hostile_bytes_never_panic(kind: u8, body in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Message::decode(kind, &body);
    }
}
