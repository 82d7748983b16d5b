//! What was sent and is not acknowledged: bytes and age, without the frames themselves.

use std::collections::VecDeque;

use vnfpool_model::Time;

/// Frames counted together at most: they are all released with the last of them.
const FRAMES_PER_GROUP_MAX: u64 = 64;

#[derive(Debug)]
struct Group {
    first: u64,
    last: u64,
    bytes: usize,
    sent_at: Time,
}

/// Frames sent and not acknowledged, in groups of equal send time.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    groups: VecDeque<Group>,
    bytes: usize,
}

impl Unacked {
    pub(super) fn push(&mut self, sequence: u64, bytes: usize, now: Time) {
        self.bytes += bytes;
        if let Some(group) = self.groups.back_mut()
            && group.sent_at == now
            && sequence - group.first < FRAMES_PER_GROUP_MAX
        {
            group.last = sequence;
            group.bytes += bytes;
            return;
        }
        self.groups.push_back(Group {
            first: sequence,
            last: sequence,
            bytes,
            sent_at: now,
        });
    }

    /// Releases what was sent up to `sequence`; says when the newest of it was sent.
    pub(super) fn acknowledge(&mut self, sequence: u64) -> Option<Time> {
        let mut newest = None;
        while let Some(group) = self.groups.pop_front_if(|group| group.last <= sequence) {
            self.bytes -= group.bytes;
            newest = Some(group.sent_at);
        }
        newest
    }

    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.bytes = 0;
    }

    /// Bytes of all groups that are not wholly acknowledged.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// When the oldest of them was sent.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.groups.front().map(|group| group.sent_at)
    }
}
