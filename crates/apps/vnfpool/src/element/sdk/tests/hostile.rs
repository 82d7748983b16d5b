//! What is no function: bytes without meaning, sizes above the bounds, a peer that never reads.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use vnfpool_model::{Epoch, Role, Time};
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{
    self, Batch, Class, Commit, Get, Level, LevelKind, Op, Range, Register, Reply, Request,
    Restored, Unwatch, Watch,
};

use super::pair::{Agent, SLOT};
use crate::element::sdk::session::{OUTGOING_BYTES_MAX, Session};
use crate::element::sdk::{FunctionHealth, Hub, SlotRole};

fn hub() -> Arc<Hub> {
    let health = Arc::new(FunctionHealth::new(false));
    let hub = Arc::new(Hub::new("lb1".into(), "lb".into(), health).unwrap());
    let (name, epoch) = ("main".to_owned(), Epoch::first_of(1));
    let role = Role::Active;
    hub.set_role(SLOT, SlotRole { name, role, epoch });
    hub
}

fn epoch() -> u64 {
    Epoch::first_of(1).fencing_token()
}

pub(super) fn register(level: LevelKind) -> Kind {
    let level = Level {
        kind: level.into(),
        ..Level::default()
    };
    Kind::Register(Register {
        version: sdk::VERSION,
        function: "f".into(),
        classes: vec![Class {
            name: "c".into(),
            level: Some(level),
            format: 1,
            schema_version: 1,
        }],
        ..Register::default()
    })
}

fn batch(last: u64, key: usize, value: usize) -> Kind {
    let op = Op {
        key: vec![b'k'; key].into(),
        value: Some(vec![b'v'; value].into()),
        ttl_s: 0,
    };
    Kind::Batch(Batch {
        slot: SLOT.0,
        class: 0,
        epoch: epoch(),
        last,
        ops: vec![op],
    })
}

pub(super) fn give(session: &mut Session, kind: Kind) {
    sdk::encode(&Request { kind: Some(kind) }, session.incoming());
    session.advance(Time(1));
}

pub(super) fn replies(session: &mut Session) -> Vec<ReplyKind> {
    let next = || sdk::decode::<Reply>(session.outgoing()).unwrap()?.kind;
    std::iter::from_fn(next).collect()
}

fn failure(session: &mut Session) -> Option<String> {
    replies(session).into_iter().find_map(|reply| match reply {
        ReplyKind::Failure(failure) => Some(failure.code),
        _ => None,
    })
}

#[test]
fn sizes_and_numbers_are_checked() {
    let cases = [
        (batch(1, 1, 0), None),
        (batch(1, 1024, 32 * 1024), None),
        (batch(1, 0, 0), Some("size")),
        (batch(1, 1025, 0), Some("size")),
        (batch(1, 1, 32 * 1024 + 1), Some("size")),
        (batch(2, 1, 0), Some("request")),
        (register(LevelKind::LevelNone), Some("register")),
    ];
    for (message, expected) in cases {
        let mut session = Session::new(hub());
        give(&mut session, register(LevelKind::LevelNone));
        give(&mut session, message.clone());
        assert_eq!(failure(&mut session).as_deref(), expected, "{message:?}");
    }
    let mut session = Session::new(hub());
    give(&mut session, batch(1, 1, 1));
    assert_eq!(failure(&mut session).as_deref(), Some("register"));
}

/// Goal: a function that is turned away knows what of its changes was taken: that is told before, and
/// nothing after.
#[test]
fn why_a_connection_ends_is_the_last_thing_that_is_told() {
    let mut session = Session::new(hub());
    for kind in [register(LevelKind::LevelNone), batch(1, 1, 1)] {
        sdk::encode(&Request { kind: Some(kind) }, session.incoming());
    }
    session.incoming().extend_from_slice(&[0xff; 4]);
    session.advance(Time(1));
    let replies = replies(&mut session);
    let [.., ReplyKind::Taken(taken), ReplyKind::Failure(_)] = &replies[..] else {
        panic!("{replies:?}");
    };
    assert_eq!(taken.last, 1);
}

/// Goal: an older epoch is refused by the agent itself, whatever the SDK thinks; what follows in the
/// right one is taken.
#[test]
fn a_batch_of_another_epoch_is_refused_and_the_connection_goes_on() {
    let mut session = Session::new(hub());
    give(&mut session, register(LevelKind::LevelNone));
    replies(&mut session);
    let Kind::Batch(right) = batch(2, 1, 1) else {
        panic!("a batch");
    };
    for (wrong, code) in [(0, "epoch"), (epoch() + 1, "epoch")] {
        let mut session = Session::new(hub());
        give(&mut session, register(LevelKind::LevelNone));
        replies(&mut session);
        give(
            &mut session,
            Kind::Batch(Batch {
                epoch: wrong,
                last: 1,
                ..right.clone()
            }),
        );
        give(&mut session, Kind::Batch(right.clone()));
        let replies = replies(&mut session);
        let [ReplyKind::Refused(refused), ReplyKind::Taken(taken)] = &replies[..] else {
            panic!("{replies:?}");
        };
        assert_eq!((&*refused.code, refused.first, refused.last), (code, 1, 1));
        assert_eq!(taken.last, 2);
    }
}

/// Goal: a function that asks and never reads fills no memory: it is not read any more.
#[test]
fn who_does_not_read_is_not_read() {
    let agent = Agent::start();
    agent.set_role(Role::Active, 1);
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let mut out = BytesMut::new();
    let value = batch(1, 1, 32 * 1024);
    for kind in [register(LevelKind::LevelNone), value] {
        sdk::encode(&Request { kind: Some(kind) }, &mut out);
    }
    stream.write_all(&out).unwrap();
    out.clear();
    let get = |id| {
        Kind::Get(Get {
            id,
            slot: SLOT.0,
            class: 0,
            key: Bytes::from_static(b"k"),
        })
    };
    (0..1000).for_each(|id| {
        let kind = Some(get(id));
        sdk::encode(&Request { kind }, &mut out);
    });
    stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut asked = 0u64;
    // It ends when the agent reads no more: each question is answered by 32 KiB.
    while stream.write_all(&out).is_ok() {
        asked += 1000;
        assert!(
            asked < 1_000_000,
            "the agent reads on: it keeps the answers somewhere"
        );
    }
    // Another one is served meanwhile.
    let mut other = UnixStream::connect(agent.socket()).unwrap();
    other.write_all(&[0xff; 4]).unwrap();
    let mut answer = Vec::new();
    other.read_to_end(&mut answer).unwrap();
    let answer = sdk::decode::<Reply>(&mut BytesMut::from(&answer[..]))
        .unwrap()
        .unwrap();
    assert!(matches!(answer.kind, Some(ReplyKind::Failure(f)) if f.code == "malformed"));
}

fn any_request() -> impl Strategy<Value = Kind> {
    let number = || prop_oneof![Just(0u32), Just(1), any::<u32>()];
    let id = || 0u64..8;
    let bytes = || prop::collection::vec(0u8..4, 0..3).prop_map(Bytes::from);
    let op = (bytes(), prop::option::of(bytes()), 0u32..3);
    let op = op.prop_map(|(key, value, ttl_s)| Op { key, value, ttl_s });
    let batch = (
        number(),
        number(),
        prop_oneof![Just(epoch()), any::<u64>()],
        0u64..6,
    )
        .prop_flat_map(move |head| (Just(head), prop::collection::vec(op.clone(), 0..4)));
    prop_oneof![
        Just(register(LevelKind::LevelCommit)),
        batch.prop_map(|((slot, class, epoch, last), ops)| {
            Kind::Batch(Batch {
                slot,
                class,
                epoch,
                last,
                ops,
            })
        }),
        (id(), number(), number())
            .prop_map(|(id, slot, class)| { Kind::Commit(Commit { id, slot, class }) }),
        (id(), number(), number(), bytes()).prop_map(|(id, slot, class, key)| {
            Kind::Get(Get {
                id,
                slot,
                class,
                key,
            })
        }),
        (id(), number(), number(), bytes(), bytes(), number()).prop_map(
            |(id, slot, class, from, to, limit)| {
                Kind::Range(Range {
                    id,
                    slot,
                    class,
                    from,
                    to,
                    limit,
                })
            }
        ),
        (id(), number(), number())
            .prop_map(|(id, slot, class)| { Kind::Watch(Watch { id, slot, class }) }),
        id().prop_map(|id| Kind::Unwatch(Unwatch { id })),
        (number(), number(), any::<u64>())
            .prop_map(|(slot, class, epoch)| { Kind::Restored(Restored { slot, class, epoch }) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Goal: whatever comes, in whatever pieces, the session answers in whole messages, ends at most
    /// once, and holds no more than its bounds.
    #[test]
    fn any_requests_in_any_pieces_are_survived(
        requests in prop::collection::vec(any_request(), 0..24),
        noise in prop::collection::vec(any::<u8>(), 0..24),
        piece in 1usize..40,
    ) {
        let mut session = Session::new(hub());
        let mut bytes = BytesMut::new();
        sdk::encode(&Request { kind: Some(register(LevelKind::LevelCommit)) }, &mut bytes);
        for kind in requests {
            sdk::encode(&Request { kind: Some(kind) }, &mut bytes);
        }
        bytes.extend_from_slice(&noise);
        let mut failures = 0;
        for piece in bytes.chunks(piece) {
            session.incoming().extend_from_slice(piece);
            session.advance(Time(1));
            prop_assert!(session.outgoing().len() <= OUTGOING_BYTES_MAX + sdk::MESSAGE_BYTES_MAX);
            let is_failure = |reply: &ReplyKind| matches!(reply, ReplyKind::Failure(_));
            failures += replies(&mut session).iter().filter(|reply| is_failure(reply)).count();
            prop_assert!(failures <= 1);
        }
        prop_assert_eq!(session.is_over(), failures == 1);
    }
}
