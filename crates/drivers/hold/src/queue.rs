//! The queue: NFQUEUE's side of netlink.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::HoldError;
use crate::netlink::{Head, NLM_F_ACK, NLM_F_REQUEST, Socket, message};

const CONFIG: u16 = 3 << 8 | 2;
const VERDICT_BATCH: u16 = 3 << 8 | 3;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const BIND: u8 = 1;
/// The message says that there is a packet, not what is in it.
const COPY_META: u8 = 1;
/// A packet that finds the queue full goes on.
const FAIL_OPEN: u32 = 1 << 0;
/// A packet that is to be segmented later is one packet here.
const GSO: u32 = 1 << 2;
const ACCEPT: u32 = 1;

/// A queue of this process. Closing it drops the packets that are still in it.
#[derive(Debug)]
pub(crate) struct Queue {
    socket: Socket,
    number: u16,
    verdict: Vec<u8>,
}

impl Queue {
    /// Makes queue `number` for up to `length` packets.
    pub(crate) fn open(number: u16, length: u32) -> Result<Self, HoldError> {
        let socket = Socket::open()?;
        let head = Head {
            kind: CONFIG,
            flags: NLM_F_REQUEST | NLM_F_ACK,
            sequence: 1,
            family: 0,
            resource: number,
        };
        let mut request = Vec::new();
        message(&mut request, head, |writer| {
            writer.put(NFQA_CFG_CMD, &[BIND, 0, 0, 0]);
        });
        message(&mut request, head, |writer| {
            writer.put(NFQA_CFG_PARAMS, &[0, 0, 0, 0, COPY_META]);
            writer.put_u32(NFQA_CFG_QUEUE_MAXLEN, length);
            writer.put_u32(NFQA_CFG_MASK, FAIL_OPEN | GSO);
            writer.put_u32(NFQA_CFG_FLAGS, FAIL_OPEN | GSO);
        });
        socket
            .ask(&request)?
            .map_err(|(_, errno)| HoldError::Refused {
                attempt: "make a packet queue (is its number taken by another process?)",
                source: io::Error::from(errno),
            })?;
        Ok(Self {
            socket,
            number,
            verdict: Vec::new(),
        })
    }

    /// Lets go of all packets up to number `id`, in the order of their numbers. The kernel has
    /// passed them on when this returns.
    pub(crate) fn accept_through(&mut self, id: u32) -> Result<(), HoldError> {
        let head = Head {
            kind: VERDICT_BATCH,
            flags: NLM_F_REQUEST,
            sequence: 0,
            family: 0,
            resource: self.number,
        };
        self.verdict.clear();
        message(&mut self.verdict, head, |writer| {
            let mut value = [0; 8];
            value[..4].copy_from_slice(&ACCEPT.to_be_bytes());
            value[4..].copy_from_slice(&id.to_be_bytes());
            writer.put(NFQA_VERDICT_HDR, &value);
        });
        self.socket.send(&self.verdict)
    }

    /// The wake-up has been heard; there is one at a time.
    pub(crate) fn hush(&self) -> Result<(), HoldError> {
        self.socket.discard()
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
