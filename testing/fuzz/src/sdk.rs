//! What a function says at the SDK's socket: the decoder of messages and the session behind it.

use bytes::{Bytes, BytesMut};
use vnfpool::Around;
use vnfpool_model::Epoch;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{
    self, Batch, Class, Commit, Get, Health, Level, LevelKind, Op, Range, Register, Request,
    Restored, Unwatch, Watch,
};

use crate::Script;

const SLOT: u32 = 1;

/// What one function says from the begin of its connection on.
///
/// # Panics
/// When the session breaks its protocol or its bounds.
pub fn run(input: &[u8]) {
    let (script, wire) = Script::split(input);
    let around = Around {
        roles_change: script.has(0),
        has_successor: script.has(1),
        successor_fails: script.has(2),
        reads_slowly: script.has(3),
        in_pieces: script.has(4),
    };
    let mut random = script.random();
    vnfpool::talk(around, &mut || random.next(), wire);
}

/// Functions that do everything that can be done, at each level, around them calm and trouble.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for level in [
        LevelKind::LevelNone,
        LevelKind::LevelEventual,
        LevelKind::LevelBounded,
        LevelKind::LevelCommit,
    ] {
        let wire = function(level);
        for faults in [0, 0b10, 0b1_1111] {
            seeds.push(Script::input(faults, &wire));
        }
    }
    seeds
}

fn function(level: LevelKind) -> BytesMut {
    let (slot, class) = (SLOT, 0);
    let epoch = Epoch::first_of(1).fencing_token();
    let key = || Bytes::from_static(b"k1");
    let requests = [
        register(level),
        batch(epoch, 1, 3),
        // Refused, behind changes that are taken.
        batch(epoch + 1, 4, 4),
        Kind::Commit(Commit { id: 1, slot, class }),
        Kind::Watch(Watch { id: 2, slot, class }),
        batch(epoch, 5, 12),
        Kind::Get(Get {
            id: 3,
            slot,
            class,
            key: key(),
        }),
        Kind::Range(Range {
            id: 4,
            slot,
            class,
            from: key(),
            to: Bytes::from_static(b"k2"),
            limit: 2,
        }),
        Kind::Restored(Restored { slot, class, epoch }),
        Kind::Health(Health {
            healthy: true,
            reason: "as ever".to_owned(),
            load: 3,
            capacity: 10,
        }),
        batch(epoch, 13, 13),
        Kind::Commit(Commit {
            id: 5,
            slot,
            class: 1,
        }),
        Kind::Unwatch(Unwatch { id: 2 }),
    ];
    let mut wire = BytesMut::new();
    for kind in requests {
        sdk::encode(&Request { kind: Some(kind) }, &mut wire);
    }
    wire
}

fn register(level: LevelKind) -> Kind {
    let class = |name: &str| Class {
        name: name.to_owned(),
        level: Some(Level {
            kind: level.into(),
            lag_ms: 100,
            entries: 8,
        }),
        format: 1,
        schema_version: 1,
    };
    Kind::Register(Register {
        version: sdk::VERSION,
        function: "counter".to_owned(),
        classes: vec![class("counts"), class("names")],
        ..Register::default()
    })
}

/// Changes with the numbers from `first` to `last`.
fn batch(epoch: u64, first: u64, last: u64) -> Kind {
    let op = |number: u64| Op {
        key: format!("k{}", number % 5).into(),
        value: (!number.is_multiple_of(3)).then(|| number.to_string().into()),
        ttl_s: u32::from(number.is_multiple_of(2)),
    };
    Kind::Batch(Batch {
        slot: SLOT,
        class: 0,
        epoch,
        last,
        ops: (first..=last).map(op).collect(),
    })
}
