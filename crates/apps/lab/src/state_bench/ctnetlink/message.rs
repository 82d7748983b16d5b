//! Netlink messages of connection tracking: building requests, reading what comes back.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;

use super::flow::{Ends, Flow};

const SUBSYSTEM: u16 = 1 << 8;
pub(super) const NEW: u16 = SUBSYSTEM;
pub(super) const GET: u16 = SUBSYSTEM | 1;
pub(super) const DELETE: u16 = SUBSYSTEM | 2;

pub(super) const REQUEST: u16 = 1;
pub(super) const ACKNOWLEDGE: u16 = 4;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE_NEW: u16 = 0x200 | 0x400;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// The header and `nfgenmsg` behind it.
const PREFIX: usize = HEADER + 4;
const NESTED: u16 = 0x8000;

pub(super) const TUPLE_ORIGINAL: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const IP_TARGET: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const PROTOCOL_TARGET: u16 = 3;

/// What the kernel sends fits: it makes messages of a page, and a batch has as many answers as
/// requests.
const RECEIVE_BYTES: usize = 1 << 16;
/// Room for the events of a burst, so that a listener does not lose any.
const QUEUE_BYTES: usize = 64 << 20;
/// The kernel answers at once; this only ends a wait for an answer that never comes.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A request under construction; several may follow each other.
#[derive(Debug, Default)]
pub(super) struct Request {
    bytes: Vec<u8>,
    begun: usize,
}

impl Request {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins a message for IPv4 entries.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.begun = self.bytes.len();
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        let family = u8::try_from(libc::AF_INET).unwrap_or(0);
        self.bytes.extend([family, 0, 0, 0]);
    }

    /// Ends the message begun last.
    pub(super) fn end(&mut self) {
        let length = u32::try_from(self.bytes.len() - self.begun).unwrap_or(u32::MAX);
        self.bytes[self.begun..self.begun + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// One direction of a connection.
    pub(super) fn tuple(&mut self, kind: u16, protocol: u8, ends: Ends) {
        self.nested(kind, |tuple| {
            tuple.nested(TUPLE_IP, |ip| {
                ip.attribute(IP_SOURCE, &ends.source.0.octets());
                ip.attribute(IP_TARGET, &ends.target.0.octets());
            });
            tuple.nested(TUPLE_PROTOCOL, |p| {
                p.attribute(PROTOCOL_NUMBER, &[protocol]);
                p.attribute(PROTOCOL_SOURCE, &ends.source.1.to_be_bytes());
                p.attribute(PROTOCOL_TARGET, &ends.target.1.to_be_bytes());
            });
        });
    }
}

/// A message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// An entry, or what happened to one: its attributes.
    Entry(&'a [u8]),
    /// The end of a dump.
    Done,
    /// The fate of a request: its number and an error number, 0 for success.
    Result(u32, i32),
}

/// The messages of one datagram.
pub(super) fn answers(mut datagram: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(u32::from_ne_bytes(*datagram.first_chunk()?)).ok()?;
            let message = datagram
                .get(..length)
                .filter(|message| message.len() >= HEADER)?;
            datagram = datagram
                .get(length.next_multiple_of(4)..)
                .unwrap_or_default();
            let kind = u16::from_ne_bytes([message[4], message[5]]);
            match kind {
                DONE => return Some(Answer::Done),
                ERROR => {
                    let sequence = u32::from_ne_bytes(*message[8..].first_chunk()?);
                    let code = i32::from_ne_bytes(*message.get(HEADER..)?.first_chunk()?);
                    return Some(Answer::Result(sequence, -code));
                }
                _ if kind & 0xff00 == SUBSYSTEM => {
                    return Some(Answer::Entry(message.get(PREFIX..)?));
                }
                _ => {}
            }
        }
    })
}

/// The connection of an entry, if it is one of IPv4 with ports.
pub(super) fn flow(attributes: &[u8]) -> Option<Flow> {
    let (protocol, original) = tuple(find(attributes, TUPLE_ORIGINAL)?)?;
    let (_, reply) = tuple(find(attributes, TUPLE_REPLY)?)?;
    Some(Flow {
        protocol,
        original,
        reply: Some(reply),
    })
}

/// The protocol and the original direction of an entry, if it is one of IPv4 with ports.
pub(super) fn original(attributes: &[u8]) -> Option<(u8, Ends)> {
    tuple(find(attributes, TUPLE_ORIGINAL)?)
}

fn tuple(attributes: &[u8]) -> Option<(u8, Ends)> {
    let (ip, protocol) = (
        find(attributes, TUPLE_IP)?,
        find(attributes, TUPLE_PROTOCOL)?,
    );
    let address = |kind| {
        find(ip, kind)?
            .first_chunk()
            .map(|four: &[u8; 4]| Ipv4Addr::from(*four))
    };
    let port = |kind| {
        find(protocol, kind)?
            .first_chunk()
            .map(|two| u16::from_be_bytes(*two))
    };
    let ends = Ends {
        source: (address(IP_SOURCE)?, port(PROTOCOL_SOURCE)?),
        target: (address(IP_TARGET)?, port(PROTOCOL_TARGET)?),
    };
    Some((*find(protocol, PROTOCOL_NUMBER)?.first()?, ends))
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(header) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A socket in the network namespace of the thread that opens it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER).context("opening a netlink socket")?;
        socket.bind_auto().context("binding a netlink socket")?;
        sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_BYTES)
            .context("enlarging a netlink socket's queue")?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(ANSWER_LIMIT))
            .context("limiting the wait for the kernel")?;
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Hears the events of `group` from now on, and waits for each at most so long.
    pub(super) fn listen(&self, group: u32, patience: Duration) -> Result<()> {
        sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, Some(patience))
            .context("limiting the wait for events")?;
        self.socket
            .add_membership(group)
            .context("listening to connection tracking")
    }

    pub(super) fn send(&self, request: &[u8]) -> Result<()> {
        let sent = self.socket.send_to(request, &SocketAddr::new(0, 0), 0);
        let sent = sent.context("sending to connection tracking")?;
        if sent < request.len() {
            bail!("connection tracking took {sent} of {} bytes", request.len());
        }
        Ok(())
    }

    /// The next datagram; `WouldBlock` when none came in time.
    pub(super) fn receive(&mut self) -> io::Result<&[u8]> {
        let length = self.socket.recv(&mut self.buffer.as_mut_slice(), 0)?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow;
    use super::*;

    /// Goal: what is built is read back, and cut off or broken messages end the reading.
    #[test]
    fn an_entry_is_read_as_it_was_built_and_garbage_is_not() {
        let flow = flow::flow(flow::TCP, 7);
        let mut request = Request::default();
        request.begin(NEW, 0, 9);
        request.tuple(TUPLE_ORIGINAL, flow.protocol, flow.original);
        request.tuple(TUPLE_REPLY, flow.protocol, flow.reply.unwrap());
        request.end();
        let bytes = request.bytes();
        let Some(Answer::Entry(attributes)) = answers(bytes).next() else {
            unreachable!("one entry was built");
        };
        assert_eq!(super::flow(attributes), Some(flow));
        assert_eq!(original(attributes), Some((flow.protocol, flow.original)));
        for cut in 0..bytes.len() {
            assert_eq!(answers(&bytes[..cut]).count(), 0);
        }
        for cut in 0..attributes.len() {
            assert_eq!(super::flow(&attributes[..cut]), None);
        }
    }
}
