//! What was sent and is not acknowledged: bytes and age, without the frames themselves.

use std::collections::VecDeque;

use vnfpool_model::Time;

#[derive(Debug)]
struct Sent {
    /// Sequence of the frame's last record.
    last: u64,
    bytes: usize,
    at: Time,
}

/// Frames sent and not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    frames: VecDeque<Sent>,
    bytes: usize,
}

impl Unacked {
    pub(super) fn push(&mut self, last: u64, bytes: usize, at: Time) {
        self.bytes += bytes;
        self.frames.push_back(Sent { last, bytes, at });
    }

    /// Releases what was sent up to `sequence`; says when the newest of it was sent.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Option<Time> {
        let mut newest = None;
        while let Some(frame) = self.frames.pop_front_if(|frame| frame.last <= sequence) {
            self.bytes -= frame.bytes;
            newest = Some(frame.at);
        }
        newest
    }

    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.bytes = 0;
    }

    /// Bytes of all frames that are not wholly acknowledged.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// When the oldest of them was sent.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.frames.front().map(|frame| frame.at)
    }
}
