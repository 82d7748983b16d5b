//! What a link begins with: which slot it is for, and which life of the caller calls.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::{Buf, BufMut, BytesMut};
use vnfpool_heartbeat::Poller;
use vnfpool_model::{Incarnation, SlotId};
use vnfpool_statesync::wire::{Body, Decoder, Frame};
use vnfpool_transport::link::{Link, Received};

use crate::pulse::now;

/// `"VPSL"`, slot(4), incarnation(8); big-endian. Then the frames of the state stream.
const BYTES: usize = 16;
const MAGIC: [u8; 4] = *b"VPSL";

/// A caller has to say what it wants within this time.
const TIME_MAX: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preface {
    pub(super) slot: SlotId,
    pub(super) caller: Incarnation,
}

impl Preface {
    pub(super) fn encode(self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        let mut rest = &mut out[..];
        rest.put_slice(&MAGIC);
        rest.put_u32(self.slot.0);
        rest.put_u64(self.caller.0);
        out
    }

    fn decode(mut bytes: &[u8]) -> anyhow::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        bytes.try_copy_to_slice(&mut magic)?;
        ensure!(magic == MAGIC, "a link that does not begin as one");
        Ok(Self {
            slot: SlotId(bytes.try_get_u32()?),
            caller: Incarnation(bytes.try_get_u64()?),
        })
    }
}

/// Reads the preface and the first frame, which names the class. What came after them stays in the
/// decoder.
pub(super) fn read(link: &mut Link, poller: &Poller) -> anyhow::Result<(Preface, Frame, Decoder)> {
    let began = Instant::now();
    let mut bytes = BytesMut::new();
    let mut preface = None;
    let mut decoder = Decoder::new();
    loop {
        let received = link.receive(&mut bytes)?;
        if preface.is_none() && bytes.len() >= BYTES {
            preface = Some(Preface::decode(&bytes.split_to(BYTES))?);
        }
        if let Some(preface) = preface {
            decoder.push(&bytes.split());
            if let Some(frame) = decoder.next_frame()? {
                ensure!(
                    matches!(frame.body, Body::Hello { .. }),
                    "a state stream that does not begin with a hello"
                );
                return Ok((preface, frame, decoder));
            }
        }
        if received == Received::Closed {
            bail!("a link that ended before it began");
        }
        ensure!(began.elapsed() < TIME_MAX, "a link on which nothing came");
        if received == Received::All {
            let due = now().after(Duration::from_millis(100)).0;
            poller.wait(std::iter::once(std::os::fd::AsFd::as_fd(link)), due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_read_as_it_was_written() {
        let preface = Preface {
            slot: SlotId(7),
            caller: Incarnation(0x0102_0304_0506_0708),
        };
        let bytes = preface.encode();
        assert_eq!(Preface::decode(&bytes).unwrap(), preface);
        for cut in 0..BYTES {
            Preface::decode(&bytes[..cut]).unwrap_err();
        }
        Preface::decode(b"VPSSxxxxxxxxxxxx").unwrap_err();
    }
}
