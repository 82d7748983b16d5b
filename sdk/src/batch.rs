//! Changes on their way into a message: encoded as they are put, so that nothing is allocated for each.

use bytes::{BufMut, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};
use vnfpool_wire::sdk::LENGTH_BYTES;

/// A batch is closed when it is so long.
const OPS_BYTES_MAX: usize = 128 * 1024;

/// Tags of sdk.proto, `number << 3 | wire type`.
const REQUEST_BATCH: u8 = 3 << 3 | 2;
const BATCH_SLOT: u8 = 1 << 3;
const BATCH_CLASS: u8 = 2 << 3;
const BATCH_EPOCH: u8 = 3 << 3;
const BATCH_LAST: u8 = 4 << 3;
const BATCH_OPS: u8 = 5 << 3 | 2;
const OP_KEY: u8 = 1 << 3 | 2;
const OP_VALUE: u8 = 2 << 3 | 2;
const OP_TTL_S: u8 = 3 << 3;

/// Where changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) slot: u32,
    pub(crate) class: u32,
    pub(crate) epoch: u64,
}

/// Changes of one target that make one message.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    target: Option<Target>,
    ops: BytesMut,
}

impl Batch {
    /// Whether a change for `target` can be appended.
    pub(crate) fn takes(&self, target: Target) -> bool {
        self.target.is_none_or(|own| own == target) && self.ops.len() < OPS_BYTES_MAX
    }

    /// Appends a change; without a value the key is deleted. The bytes that it takes.
    pub(crate) fn push(
        &mut self,
        target: Target,
        key: &[u8],
        value: Option<&[u8]>,
        ttl_s: u32,
    ) -> usize {
        debug_assert!(self.takes(target));
        self.target = Some(target);
        let before = self.ops.len();
        let mut length = bytes_len(key);
        length += value.map_or(0, bytes_len);
        if ttl_s != 0 {
            length += 1 + encoded_len_varint(ttl_s.into());
        }
        self.ops.put_u8(BATCH_OPS);
        encode_varint(length as u64, &mut self.ops);
        put_bytes(OP_KEY, key, &mut self.ops);
        if let Some(value) = value {
            put_bytes(OP_VALUE, value, &mut self.ops);
        }
        if ttl_s != 0 {
            put_number(OP_TTL_S, ttl_s.into(), &mut self.ops);
        }
        self.ops.len() - before
    }

    /// Writes the message, if there is one, and begins anew. `last` is the number of its last change.
    pub(crate) fn close(&mut self, last: u64, out: &mut BytesMut) {
        let Some(target) = self.target.take() else {
            return;
        };
        let fields = [
            (BATCH_SLOT, target.slot.into()),
            (BATCH_CLASS, target.class.into()),
            (BATCH_EPOCH, target.epoch),
            (BATCH_LAST, last),
        ];
        let fields = fields.into_iter().filter(|(_, value)| *value != 0);
        let header = fields
            .clone()
            .map(|(_, value)| 1 + encoded_len_varint(value));
        let batch = header.sum::<usize>() + self.ops.len();
        let message = 1 + encoded_len_varint(batch as u64) + batch;
        out.reserve(LENGTH_BYTES + message);
        // Far below 2^32: the ops have a bound.
        out.put_u32(u32::try_from(message).unwrap_or(u32::MAX));
        out.put_u8(REQUEST_BATCH);
        encode_varint(batch as u64, out);
        fields.for_each(|(tag, value)| put_number(tag, value, out));
        out.extend_from_slice(&self.ops);
        self.ops.clear();
    }

    /// Forgets what was not written.
    pub(crate) fn clear(&mut self) {
        self.target = None;
        self.ops.clear();
    }
}

const fn bytes_len(bytes: &[u8]) -> usize {
    1 + encoded_len_varint(bytes.len() as u64) + bytes.len()
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut BytesMut) {
    out.put_u8(tag);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_number(tag: u8, number: u64, out: &mut BytesMut) {
    out.put_u8(tag);
    encode_varint(number, out);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vnfpool_wire::sdk::{self, Op, Request, request};

    use super::*;

    /// Goal: what is written by hand is what the generated code reads.
    #[test]
    fn a_batch_is_read_as_it_was_put() {
        let target = Target {
            slot: 1,
            class: 0,
            epoch: 3 << 16,
        };
        let big = vec![7; 300];
        type Told<'a> = (&'a [u8], Option<&'a [u8]>, u32);
        let ops: [Told<'_>; 4] = [
            (b"a", Some(b"1"), 0),
            (b"b", None, 0),
            (b"c", Some(b""), 300),
            (&big, Some(&big), 1),
        ];
        let mut batch = Batch::default();
        for (key, value, ttl_s) in ops {
            batch.push(target, key, value, ttl_s);
        }
        let mut out = BytesMut::new();
        batch.close(9, &mut out);
        let expected = sdk::Batch {
            slot: 1,
            class: 0,
            epoch: 3 << 16,
            last: 9,
            ops: ops
                .map(|(key, value, ttl_s)| Op {
                    key: Bytes::copy_from_slice(key),
                    value: value.map(Bytes::copy_from_slice),
                    ttl_s,
                })
                .into(),
        };
        let read = sdk::decode::<Request>(&mut out).unwrap().unwrap();
        assert_eq!(read.kind, Some(request::Kind::Batch(expected)));
        batch.close(9, &mut out);
        assert!(out.is_empty(), "nothing was put since");
    }

    #[test]
    fn a_batch_is_of_one_target_and_bounded() {
        let target = Target {
            slot: 1,
            class: 0,
            epoch: 1,
        };
        let mut batch = Batch::default();
        while batch.takes(target) {
            batch.push(target, &[0; 1024], Some(&[0; 32 * 1024]), 0);
        }
        let mut out = BytesMut::new();
        batch.close(1, &mut out);
        assert!(out.len() <= sdk::MESSAGE_BYTES_MAX);
        batch.push(target, b"k", None, 0);
        assert!(!batch.takes(Target { epoch: 2, ..target }));
    }
}
