use proptest::prelude::*;

use super::*;

fn a_put() -> Request {
    let op = Op {
        key: Bytes::from_static(b"k1"),
        value: Some(Bytes::from_static(b"v")),
        ttl_s: 60,
    };
    let batch = Batch {
        slot: 1,
        class: 0,
        epoch: 65_536,
        last: 1,
        ops: vec![op],
    };
    Request {
        kind: Some(request::Kind::Batch(batch)),
    }
}

/// Goal: the bytes that docs/sdk.md shows are what is sent, for whoever writes them by hand.
#[test]
fn a_put_looks_as_documented() {
    let mut bytes = BytesMut::new();
    encode(&a_put(), &mut bytes);
    let documented = [
        0, 0, 0, 21, // the length of what follows
        0x1a, 19, // Request.batch
        0x08, 1, // Batch.slot
        0x18, 0x80, 0x80, 0x04, // Batch.epoch: term 1, turn 0
        0x20, 1, // Batch.last
        0x2a, 9, // Batch.ops
        0x0a, 2, b'k', b'1', // Op.key
        0x12, 1, b'v', // Op.value
        0x18, 60, // Op.ttl_s
    ];
    assert_eq!(&bytes[..], documented);
}

#[test]
fn a_message_is_whole_or_not_there() {
    let mut bytes = BytesMut::new();
    encode(&a_put(), &mut bytes);
    let whole = bytes.clone();
    for length in 0..whole.len() {
        let mut part = BytesMut::from(&whole[..length]);
        assert_eq!(decode::<Request>(&mut part), Ok(None));
        assert_eq!(part.len(), length);
    }
    assert_eq!(decode(&mut bytes), Ok(Some(a_put())));
    assert!(bytes.is_empty());
}

#[test]
fn a_length_above_the_bound_is_refused_before_the_message_comes() {
    let mut bytes = BytesMut::from(&[0, 4, 0, 1][..]);
    let length = 256 * 1024 + 1;
    assert_eq!(
        decode::<Request>(&mut bytes),
        Err(FrameError::TooLong { length })
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let length = u32::try_from(bytes.len()).unwrap();
        let mut buffer = BytesMut::from(&length.to_be_bytes()[..]);
        buffer.extend_from_slice(&bytes);
        let _ = decode::<Request>(&mut buffer.clone());
        let _ = decode::<Reply>(&mut buffer);
    }
}
