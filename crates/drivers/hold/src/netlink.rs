//! Netfilter's netlink: messages, attributes, and a socket that asks one thing after the other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::HoldError;

const MESSAGE_HEADER_BYTES: usize = 16;
/// With the family header of netfilter.
const HEADERS_BYTES: usize = MESSAGE_HEADER_BYTES + 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Larger than any answer that is asked for here.
const RECEIVE_BYTES: usize = 64 * 1024;
/// More datagrams than any answer takes.
const DATAGRAMS_PER_ANSWER_MAX: usize = 256;

pub(crate) const NLM_F_REQUEST: u16 = 1;
pub(crate) const NLM_F_ACK: u16 = 4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// The head of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// `AF_*`.
    pub(crate) family: u8,
    /// The queue's number, or the subsystem of a batch.
    pub(crate) resource: u16,
}

/// Appends a message whose attributes `fill` writes.
pub(crate) fn message(out: &mut Vec<u8>, head: Head, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.kind.to_ne_bytes());
    out.extend_from_slice(&head.flags.to_ne_bytes());
    out.extend_from_slice(&head.sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[head.family, 0]);
    out.extend_from_slice(&head.resource.to_be_bytes());
    fill(&mut Writer { out });
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start + 4) {
        header.copy_from_slice(&length.to_ne_bytes());
    }
}

/// Appends attributes to a message.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// Appends an attribute, padded.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(ATTRIBUTE_HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&length.to_ne_bytes());
        self.out.extend_from_slice(&kind.to_ne_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(aligned(self.out.len()), 0);
    }

    /// Appends a number in network byte order.
    pub(crate) fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Appends a text with its NUL.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        let mut terminated = text.as_bytes().to_vec();
        terminated.push(0);
        self.put(kind, &terminated);
    }

    /// Appends a nested attribute whose content `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.out.len() - start).unwrap_or(u16::MAX);
        if let Some(header) = self.out.get_mut(start..start + 2) {
            header.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// Iterates over the attributes of `bytes`; stops at the first one that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..ATTRIBUTE_HEADER_BYTES)?.try_into().ok()?);
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// The first attribute of type `kind` in `bytes`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// A socket of netfilter's netlink.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, HoldError> {
        let open = || {
            let fd = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::NETFILTER),
            )?;
            rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
            Ok(fd)
        };
        let fd = open().map_err(|error: Errno| failed("reach")(error))?;
        Ok(Self { fd })
    }

    /// Hands messages to the kernel, which has done what they say when this returns.
    pub(crate) fn send(&self, messages: &[u8]) -> Result<(), HoldError> {
        loop {
            match rustix::net::send(&self.fd, messages, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed("ask")(error)),
            }
        }
    }

    /// Throws away the next message, if there is one.
    pub(crate) fn discard(&self) -> Result<(), HoldError> {
        match rustix::net::recv(&self.fd, &mut [0; 1], RecvFlags::empty()) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN | Errno::NOBUFS) => Ok(()),
            Err(error) => Err(failed("hear from")(error)),
        }
    }

    /// Sends messages and reads the kernel's answers to them, until nothing is left to read: the
    /// kernel answers while it is sent to. Returns the first refusal, with its sequence number.
    pub(crate) fn ask(&self, messages: &[u8]) -> Result<Result<(), (u32, Errno)>, HoldError> {
        self.send(messages)?;
        let mut refusal = None;
        self.receive(|kind, sequence, body| {
            let code = body.get(..4).and_then(|code| code.try_into().ok());
            let code = code.map_or(0, i32::from_ne_bytes);
            if kind == NLMSG_ERROR && code != 0 {
                let errno = Errno::from_raw_os_error(code.saturating_neg());
                refusal.get_or_insert((sequence, errno));
            }
        })?;
        Ok(refusal.map_or(Ok(()), Err))
    }

    /// Sends a request for a dump and gives the attributes of each message to `each`.
    pub(crate) fn dump(
        &self,
        request: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), HoldError> {
        self.send(request)?;
        self.receive(|kind, _, body| {
            if kind > NLMSG_DONE {
                each(
                    body.get(HEADERS_BYTES - MESSAGE_HEADER_BYTES..)
                        .unwrap_or_default(),
                );
            }
        })
    }

    /// Reads until nothing is left, and gives type, sequence and body of each message to `each`.
    fn receive(&self, mut each: impl FnMut(u16, u32, &[u8])) -> Result<(), HoldError> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        for _ in 0..DATAGRAMS_PER_ANSWER_MAX {
            let length = match rustix::net::recv(&self.fd, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(failed("hear from")(error)),
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, sequence, body, after)) = split_message(rest) {
                each(kind, sequence, body);
                rest = after;
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The first message of `bytes`: type, sequence, body, and what comes after it.
fn split_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
    let body = bytes.get(MESSAGE_HEADER_BYTES..length)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, sequence, body, after))
}

fn failed(attempt: &'static str) -> impl Fn(Errno) -> HoldError {
    move |error| HoldError::Socket {
        attempt,
        source: io::Error::from(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_again() {
        let mut bytes = Vec::new();
        let mut writer = Writer { out: &mut bytes };
        writer.put(1, &[1]);
        writer.nest(2, |inner| {
            inner.put_text(3, "name");
            inner.put_u32(4, 5);
        });
        assert_eq!(find(&bytes, 1), Some(&[1][..]));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(inner, 3), Some(&b"name\0"[..]));
        assert_eq!(find(inner, 4), Some(&[0, 0, 0, 5][..]));
        assert_eq!(find(inner, 5), None);
    }

    #[test]
    fn lengths_that_do_not_fit_end_the_list() {
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 9, 9, 9, 9]);
            assert_eq!(attributes(&bytes).count(), 0, "attribute of {length}");
        }
        for length in [0_u32, 15, 21, u32::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.resize(20, 0);
            assert!(split_message(&bytes).is_none(), "message of {length}");
        }
    }
}
