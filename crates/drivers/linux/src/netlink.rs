//! Just enough synchronous netlink for configuration time.
//!
//! The messages needed here are few and small, so they are encoded by hand: attributes that this
//! version does not know are skipped, and a new kernel cannot make a decoder fail.

use std::io;

use netlink_sys::{Socket, SocketAddr};

/// Protocol of routing messages (`NETLINK_ROUTE`).
pub(crate) const ROUTE: isize = 0;
/// Protocol of netfilter messages (`NETLINK_NETFILTER`).
pub(crate) const NETFILTER: isize = 12;

/// The subsystem of nftables within [`NETFILTER`].
pub(crate) const NFNL_SUBSYS_NFTABLES: u16 = 10;

const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const EXCLUSIVE: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const REPLACE: u16 = 0x100;

const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// A message body: a fixed header followed by attributes.
#[derive(Debug)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = ATTRIBUTE_HEADER_BYTES + value.len();
        // Everything here is an address, a name or a nest of a few of them.
        let length_field = u16::try_from(length).unwrap_or(u16::MAX);
        self.0.extend(length_field.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn nested(self, kind: u16, inner: Self) -> Self {
        self.attribute(kind, &inner.0)
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value)
    }
}

/// A message from the kernel.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// Sends one request and collects what the kernel answers.
pub(crate) fn request(
    protocol: isize,
    kind: u16,
    flags: u16,
    body: &Body,
) -> io::Result<Vec<Message>> {
    let socket = open(protocol)?;
    let mut request = Vec::with_capacity(HEADER_BYTES + body.0.len());
    append(&mut request, kind, flags, body)?;
    socket.send(&request, 0)?;

    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram) {
            match message.kind {
                KIND_DONE => return Ok(answers),
                KIND_ERROR => return outcome(&message).map(|()| answers),
                _ => answers.push(message),
            }
        }
    }
}

/// A request that is made again and again, over one socket, and of whose answer only the outcome
/// counts.
#[derive(Debug)]
pub(crate) struct Question {
    protocol: isize,
    kind: u16,
    body: Body,
    socket: Option<Socket>,
    request: Vec<u8>,
}

/// Longest answer that is read whole; of a longer one the beginning will do.
const ANSWER_BYTES: usize = 4096;

impl Question {
    pub(crate) const fn new(protocol: isize, kind: u16, body: Body) -> Self {
        Self {
            protocol,
            kind,
            body,
            socket: None,
            request: Vec::new(),
        }
    }

    /// Asks; an error of the kernel's is the answer, after any other one the next question has a
    /// socket of its own.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = open(self.protocol)?;
                // It has answered before `send` returns.
                socket.set_non_blocking(true)?;
                socket
            }
        };
        self.request.clear();
        append(&mut self.request, self.kind, ACK, &self.body)?;
        socket.send(&self.request, 0)?;
        let mut answer = [0; ANSWER_BYTES];
        loop {
            let length = socket.recv(&mut &mut answer[..], 0)?;
            let answered = messages(&answer[..length]).find(|one| one.kind == KIND_ERROR);
            let Some(answered) = answered else { continue };
            self.socket = Some(socket);
            return outcome(&answered);
        }
    }
}

fn open(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// What an acknowledgement says.
fn outcome(message: &Message) -> io::Result<()> {
    let code = message.body.first_chunk();
    match code.map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Has nftables carry out all of `batch` (kind, flags, body) or nothing of it.
pub(crate) fn nftables_batch(batch: &[(u16, u16, Body)]) -> io::Result<()> {
    const BATCH_BEGIN: u16 = 16;
    const BATCH_END: u16 = 17;
    let socket = open(NETFILTER)?;
    // It has answered before `send` returns.
    socket.set_non_blocking(true)?;

    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let mut request = Vec::new();
    append(&mut request, BATCH_BEGIN, 0, &Body::new(&[0, 0, high, low]))?;
    for (kind, flags, body) in batch {
        append(&mut request, *kind, ACK | flags, body)?;
    }
    append(&mut request, BATCH_END, 0, &Body::new(&[0, 0, high, low]))?;
    socket.send(&request, 0)?;

    let mut acknowledged = 0;
    while acknowledged < batch.len() {
        let (datagram, _) = socket.recv_from_full()?;
        for message in messages(&datagram).filter(|m| m.kind == KIND_ERROR) {
            outcome(&message)?;
            acknowledged += 1;
        }
    }
    Ok(())
}

fn append(datagram: &mut Vec<u8>, kind: u16, flags: u16, body: &Body) -> io::Result<()> {
    const SEQUENCE: u32 = 1;
    let length = u32::try_from(HEADER_BYTES + body.0.len()).map_err(io::Error::other)?;
    datagram.extend(length.to_ne_bytes());
    datagram.extend(kind.to_ne_bytes());
    datagram.extend((REQUEST | flags).to_ne_bytes());
    datagram.extend(SEQUENCE.to_ne_bytes());
    datagram.extend([0; 4]);
    datagram.extend(&body.0);
    datagram.resize(datagram.len().next_multiple_of(4), 0);
    Ok(())
}

/// The messages of a datagram; a truncated one ends the iteration.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let header: &[u8; HEADER_BYTES] = datagram.first_chunk()?;
        let [a, b, c, d, e, f, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
        let body = datagram.get(HEADER_BYTES..length)?.to_vec();
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([e, f]),
            body,
        })
    })
}

/// The attributes after a fixed header; a truncated one ends the iteration.
pub(crate) fn attributes(body: &[u8], header_bytes: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header_bytes..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d] = *rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !ATTRIBUTE_FLAGS, value))
    })
}

/// A number in the machine's byte order at `offset`.
pub(crate) fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_survive_a_round_trip() {
        let inner = Body::new(&[]).attribute(7, &[1, 2, 3]);
        let body = Body::new(&[9; 8]).text(3, "in").nested(18 | 0x8000, inner);
        let found: Vec<_> = attributes(&body.0, 8).collect();
        assert_eq!(found[0], (3, &b"in\0"[..]));
        assert_eq!(found[1].0, 18);
        let inner: Vec<_> = attributes(found[1].1, 0).collect();
        assert_eq!(inner, [(7, &[1, 2, 3][..])]);
    }

    /// Goal: no input makes the decoders panic or loop for ever. Method: every prefix of a
    /// message, with every length field.
    #[test]
    fn truncated_messages_end_quietly() {
        let body = Body::new(&[0; 16]).text(3, "interface").text(5, "x");
        let mut message = vec![0_u8; HEADER_BYTES];
        message.extend(&body.0);
        for length in 0..=255_u8 {
            message[0] = length;
            message[HEADER_BYTES + 16] = length;
            for end in 0..=message.len() {
                for found in messages(&message[..end]).take(100) {
                    assert!(attributes(&found.body, 16).take(100).count() < 100);
                }
                assert!(messages(&message[..end]).take(100).count() <= message.len());
            }
        }
    }
}
