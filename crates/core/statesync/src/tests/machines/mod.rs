//! Each machine alone: refusals, misbehaving peers, time.

mod receiver;
mod sender;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use vnfpool_model::Time;

use self::sender::active_sender;
use super::world::{demand, offer};
use crate::class::{Bounds, Demand, Level, Offer};
use crate::index::{BUCKETS, Hashes};
use crate::wire::record::{Mark, Record, Records};
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

const BOUNDS: Bounds = Bounds {
    lag_ms: 1_000,
    entries: 100,
};

proptest! {
    /// A hostile peer can say what it likes: no panic, and nothing is kept beyond the bounds.
    #[test]
    fn hostile_frames_do_no_harm(
        said in prop::collection::vec((0_u64..8, 0_u32..4, 0_u64..6, 0_u8..11, super::wire::record()), 0..60),
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
                8 => Body::Lacks { entries: generation, refused: generation / 2 },
                9 => Body::Wants { keys: vec![epoch, sequence] },
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
