//! The frame codec.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::wire::{Body, Decoder, Frame, HEADER_BYTES, PAYLOAD_BYTES_MAX, Refusal, WireError};

fn body() -> impl Strategy<Value = Body> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![
        any::<bool>().prop_map(|resync| Body::SnapshotBegin { resync }),
        (any::<bool>(), any::<bool>(), bytes()).prop_map(|(is_new, from_snapshot, entry)| {
            Body::Upsert {
                is_new,
                from_snapshot,
                entry,
            }
        }),
        bytes().prop_map(|key| Body::Delete { key }),
        any::<u64>().prop_map(|count| Body::SnapshotEnd { count }),
        any::<u64>().prop_map(|id| Body::Barrier { id }),
        Just(Body::Ack),
        any::<u64>().prop_map(|id| Body::BarrierDone { id }),
        (8_u8.., any::<u8>()).prop_map(|(reason, version)| Body::Refused {
            reason: Refusal::Other(reason),
            version,
        }),
        Just(Body::Refused {
            reason: Refusal::OldEpoch,
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

proptest! {
    #[test]
    fn frames_survive_however_the_stream_is_cut(
        frames in prop::collection::vec(frame(), 1..10),
        piece in 1_usize..100,
    ) {
        let mut bytes = BytesMut::new();
        for frame in &frames {
            prop_assert_eq!(frame.encode(&mut bytes), frame.wire_bytes());
        }
        prop_assert_eq!(decode_in_pieces(&bytes, piece), Ok(frames));
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
                Ok(Some(_)) => count += 1,
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
    assert_eq!(with(4, &[2]), Err(WireError::Version { found: 2 }));
    assert_eq!(with(5, &[99]), Err(WireError::Kind { kind: 99 }));
    assert_eq!(with(6, &[0, 1]), Err(WireError::Malformed { kind: 16 }));
    let length = u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap();
    assert_eq!(
        with(20, &length.to_be_bytes()),
        Err(WireError::TooLong { length })
    );
}
