//! The frame codec.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::class::{Bounds, ClassName, Demand, Level};
use crate::wire::record::{Mark, Record, Records};
use crate::wire::{Body, Decoder, Frame, HEADER_BYTES, PAYLOAD_BYTES_MAX, Refusal, WireError};
use crate::{BUCKETS, Item};

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

pub(super) fn record() -> impl Strategy<Value = Record> {
    let bucket = || 0..BUCKETS;
    prop_oneof![
        (bytes(), bytes(), any::<u32>(), any::<bool>()).prop_map(|(key, value, ttl_s, is_new)| {
            let item = Item { key, value, ttl_s };
            Record::Put { item, is_new }
        }),
        bytes().prop_map(|key| Record::Delete { key }),
        (
            any::<u32>(),
            any::<bool>(),
            prop::option::of(prop::collection::vec(bucket(), 0..20))
        )
            .prop_map(|(generation, resync, whole)| Record::Begin {
                generation,
                resync,
                whole
            }),
        prop::collection::vec(any::<u64>(), 0..20).prop_map(|keys| Record::Forget { keys }),
        any::<u32>().prop_map(|generation| Record::End { generation }),
        (0..BUCKETS - 20, prop::collection::vec(any::<u64>(), 0..20))
            .prop_map(|(first, sums)| Record::Sums { first, sums }),
        Just(Record::Barrier),
        (any::<u64>(), any::<[u32; 2]>(), any::<u64>()).prop_map(|(sent_at_ns, us, changes)| {
            Record::Mark(Mark {
                sent_at_ns,
                behind_us: us[0],
                round_trip_us: us[1],
                changes,
            })
        }),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    let bounds = (1..=u32::MAX, 1..=u32::MAX);
    let bounds = bounds.prop_map(|(lag_ms, entries)| Bounds { lag_ms, entries });
    prop_oneof![
        Just(Level::None),
        Just(Level::Eventual),
        bounds.clone().prop_map(Level::Bounded),
        bounds.prop_map(Level::Commit),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        prop::collection::vec(record(), 1..10)
            .prop_map(|records| Body::Records(Records::new(&records))),
        (
            any::<[u16; 2]>(),
            level(),
            any::<[u8; 16]>(),
            "[a-z][a-z0-9_-]{0,31}"
        )
            .prop_map(|([format, schema], level, hash_key, class)| Body::Hello {
                demand: Demand {
                    class: ClassName::new(&class).unwrap(),
                    format,
                    schema,
                    level,
                },
                hash_key,
            }),
        Just(Body::Ack),
        Just(Body::Swept),
        any::<(u32, u32)>().prop_map(|(entries, refused)| Body::Lacks { entries, refused }),
        prop::collection::vec(any::<u64>(), 1..20).prop_map(|keys| Body::Wants { keys }),
        level().prop_map(|level| Body::Accepted { level }),
        prop::collection::vec(0..BUCKETS, 1..20).prop_map(|buckets| Body::Differs { buckets }),
        (10_u8.., any::<u8>()).prop_map(|(reason, version)| Body::Refused {
            reason: Refusal::Other(reason),
            version,
        }),
        Just(Body::Refused {
            reason: Refusal::Schema,
            version: 1,
        }),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    (any::<u64>(), any::<u32>(), any::<u64>(), body()).prop_map(
        |(epoch, generation, sequence, body)| Frame {
            epoch,
            generation,
            sequence,
            body,
        },
    )
}

fn decode_in_pieces(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, WireError> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        while let Some(frame) = decoder.next_frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fn all(records: Records) -> Result<Vec<Record>, WireError> {
    records.collect()
}

proptest! {
    #[test]
    fn frames_survive_however_the_stream_is_cut(
        frames in prop::collection::vec(frame(), 1..10),
        piece in 1_usize..100,
    ) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            let before = bytes.len();
            let length = frame.encode(&mut bytes);
            prop_assert_eq!(before + length, bytes.len());
        }
        prop_assert_eq!(decode_in_pieces(&bytes, piece), Ok(frames));
    }

    #[test]
    fn records_survive_their_frame(records in prop::collection::vec(record(), 1..20)) {
        prop_assert_eq!(all(Records::new(&records)), Ok(records));
    }

    #[test]
    fn hostile_bytes_give_frames_or_a_lasting_error(
        frame in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.extend_from_slice(&tail);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let mut count = 0;
        let end = loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    count += 1;
                    // Whatever records are read mean the same when written again.
                    if let Body::Records(records) = frame.body
                        && let Ok(records) = all(records)
                    {
                        prop_assert_eq!(all(Records::new(&records)), Ok(records));
                    }
                }
                end => break end,
            }
        };
        prop_assert!(count <= bytes.len() / HEADER_BYTES);
        if end.is_err() {
            decoder.push(&bytes);
            prop_assert_eq!(decoder.next_frame(), end);
        }
    }
}

#[test]
fn every_kind_of_nonsense_has_its_error() {
    let mut good = BytesMut::new();
    let frame = Frame {
        epoch: 1,
        generation: 1,
        sequence: 1,
        body: Body::Ack,
    };
    frame.encode(&mut good);
    let with = |at: usize, values: &[u8]| {
        let mut bytes = good.to_vec();
        bytes[at..at + values.len()].copy_from_slice(values);
        decode_in_pieces(&bytes, 1000)
    };
    assert_eq!(with(0, b"HTTP"), Err(WireError::Magic));
    assert_eq!(decode_in_pieces(b"G", 1), Err(WireError::Magic));
    assert_eq!(with(4, &[1]), Err(WireError::Version { found: 1 }));
    assert_eq!(with(5, &[99]), Err(WireError::Kind { kind: 99 }));
    assert_eq!(with(6, &[0, 1]), Err(WireError::Malformed { kind: 16 }));
    let length = u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap();
    assert_eq!(
        with(20, &length.to_be_bytes()),
        Err(WireError::TooLong { length })
    );
}

#[test]
fn records_that_promise_more_than_there_is_are_none() {
    // Kind, then a length or a number of what does not follow.
    for bytes in [
        &[2, 0xff, 0xff][..],
        &[2, 0, 1],
        &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0],
        &[4, 0, 1, 0],
        &[4, 0xff, 0xff],
        &[6, 0x03, 0xff, 0, 2],
        &[3, 0, 0, 0, 0, 1, 0, 1, 0xff, 0xff],
        &[99],
    ] {
        let mut frame = BytesMut::new();
        let body = Body::Records(Records::new(&[Record::Barrier]));
        let (epoch, generation, sequence) = (1, 1, 1);
        Frame {
            epoch,
            generation,
            sequence,
            body,
        }
        .encode(&mut frame);
        frame.truncate(HEADER_BYTES);
        frame[20..24].copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(bytes);
        let frames = decode_in_pieces(&frame, 1000).unwrap();
        let [
            Frame {
                body: Body::Records(records),
                ..
            },
        ] = &frames[..]
        else {
            panic!("{frames:?}");
        };
        assert_eq!(all(records.clone()), Err(WireError::Record), "{bytes:?}");
    }
}
