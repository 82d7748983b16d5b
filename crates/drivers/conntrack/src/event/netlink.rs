//! Events from the queue of a netlink socket.

use std::os::fd::{AsFd, BorrowedFd};

use super::{EVENTS_PER_READ_MAX, Event, ReadOutcome};
use crate::netlink::constants::CONNTRACK_GROUPS;
use crate::netlink::parse;
use crate::netlink::socket::{NetlinkError, Received, Socket};

#[derive(Debug)]
pub(super) struct NetlinkSource {
    socket: Socket,
    buffer_bytes: usize,
    malformed: u64,
}

impl NetlinkSource {
    pub(super) fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(CONNTRACK_GROUPS, buffer_bytes)?,
            buffer_bytes,
            malformed: 0,
        })
    }

    pub(super) fn read(
        &mut self,
        out: &mut Vec<Event>,
        ignored: Option<u32>,
    ) -> Result<ReadOutcome, NetlinkError> {
        for _ in 0..EVENTS_PER_READ_MAX {
            match self.socket.receive()? {
                Received::Empty => return Ok(ReadOutcome::Drained),
                Received::Overrun => return Ok(ReadOutcome::Overrun { lost: None }),
                Received::Datagram(datagram) => {
                    for message in parse::messages(datagram) {
                        match Event::from_message(&message, ignored) {
                            Some(Ok(event)) => out.push(event),
                            Some(Err(_)) => self.malformed += 1,
                            None => {}
                        }
                    }
                }
            }
        }
        Ok(ReadOutcome::More)
    }

    /// The queue goes with its socket.
    pub(super) fn discard_waiting(&mut self) -> Result<(), NetlinkError> {
        self.socket = Socket::open(CONNTRACK_GROUPS, self.buffer_bytes)?;
        Ok(())
    }

    pub(super) const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for NetlinkSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
