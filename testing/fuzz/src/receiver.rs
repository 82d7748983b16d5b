//! A state stream as the standby hears it: the decoder of frames and the receiver's machine.

use bytes::BytesMut;
use vnfpool_statesync::wire::Decoder;

use crate::active::Active;
use crate::standby::Standby;
use crate::stream::next_begin;
use vnfpool_random::Random;

use crate::Script;

/// Bytes come in small pieces, by a bit of the script; the others are the standby's.
const IN_PIECES: u8 = 7;

const PIECE_BYTES_MAX: usize = 512;

/// What the active says, over one link after the other.
///
/// # Panics
/// When the receiver breaks its protocol or its bounds, or calls a copy in sync that is not.
pub fn run(input: &[u8]) {
    let (script, mut wire) = Script::split(input);
    let mut random = script.random();
    let mut standby = Standby::new(script);
    while !wire.is_empty() {
        let length = match script.has(IN_PIECES) {
            true => 1 + random.index(48),
            false => PIECE_BYTES_MAX,
        };
        let (piece, rest) = wire.split_at(length.min(wire.len()));
        standby.hear(piece);
        wire = rest;
        if standby.refused().is_some() {
            standby.connect();
            // What was refused is in the piece; there may be more frames in it.
            wire = next_begin(wire);
        }
        standby.said();
    }
    standby.come_to_rest();
}

/// Streams of an active to an honest standby, whole and in the middle of trouble.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    const FRAMES_MAX: usize = 40;
    let of = |(active, standby): (u8, u8)| {
        let (wire, _) = conversation(active, FRAMES_MAX);
        Script::input(standby, &wire)
    };
    [
        (0, 0),
        (0, 1),
        (1, 2),
        (2, 8),
        (8, 0),
        (32, 32),
        (0b111_1111, 0b1111_1111),
    ]
    .map(of)
    .into()
}

/// What an active, in the trouble of the given bits, and an honest standby say to each other: until so
/// many frames of the standby came.
pub(crate) fn conversation(faults: u8, frames_max: usize) -> (BytesMut, BytesMut) {
    let (script, _) = Script::split(&[faults]);
    let (calm, _) = Script::split(&[]);
    let mut active = Active::new(script);
    let mut standby = Standby::new(calm);
    let (mut of_active, mut of_standby) = (BytesMut::new(), BytesMut::new());
    let mut frames = 0;
    let mut silent = Random::new(0);
    while frames < frames_max && active.is_connected() {
        let told = active.said();
        of_active.extend_from_slice(&told);
        standby.hear(&told);
        let mut decoder = Decoder::new();
        let answer = standby.said();
        decoder.push(&answer);
        of_standby.extend_from_slice(&answer);
        let before = frames;
        while let Ok(Some(frame)) = decoder.next_frame() {
            frames += 1;
            active.hear(frame);
        }
        // Nobody says anything any more: that is all.
        if frames == before && silent.once_in(4) {
            break;
        }
    }
    (of_active, of_standby)
}
