//! Entries as keys and values of the state stream. All numbers in network byte order.
//!
//! ```text
//! key    version(1)=1  flags(1)  protocol(1)  original tuple  [zone]
//! value  flags(1)  state kind(1)  status(4)  [reply tuple]  [mark(4)]
//!        [tcp: state(1) scales(2) flags(2) | sctp: state(1) tags(8)]
//!        [labels(16)]  [seq adjust original(12)]  [seq adjust reply(12)]
//!        [helper: length(1) name]  [master: protocol(1) tuple]
//! tuple  source(4|16)  destination(4|16)  [ports: source(2) destination(2)
//!        | icmp: id(2) type(1) code(1)]            by the protocol
//! zone   id(2)  direction(1): 0 both, 1 original, 2 reply
//! flags  of a key: 1 IPv6, 4 zone
//!        of a value: 1 master present, 2 reply present (else the inverse of the original), 8 mark, 16 labels,
//!        32 and 64 sequence adjustment, 128 helper
//! ```
//!
//! The time that an entry has left is not of its value: it changes all the time, and goes beside it.
//!
//! Decoding is total: any bytes give an entry that the kernel could hold, or an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use vnfpool_statesync::Item;

use crate::entry::{
    Entry, EntryError, HELPER_NAME_BYTES_MAX, HelperName, ProtocolState, SctpInfo, SeqAdjust,
    Status, TcpInfo, tcp_flags,
};
use crate::expectation::ExpectationError;
use crate::tuple::{Key, Layer4, Tuple, TupleError, Zone, ZoneDirection, has_ports, protocol};

/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u8 = 1;

/// Upper bound of the length of an encoded key and value together.
pub const ENTRY_BYTES_MAX: usize =
    12 + 36 + 36 + 3 + 4 + 9 + 16 + 24 + 1 + HELPER_NAME_BYTES_MAX + 37;

pub(crate) const IPV6: u8 = 1;
/// Of a value, whose family is its key's.
const MASTER: u8 = 1;
const REPLY: u8 = 2;
pub(crate) const ZONE: u8 = 4;
const MARK: u8 = 8;
const LABELS: u8 = 16;
const SEQ_ADJUST: [u8; 2] = [32, 64];
const HELPER: u8 = 128;

const STATE_NONE: u8 = 0;
const STATE_TCP: u8 = 1;
const STATE_SCTP: u8 = 2;

/// Why bytes are no entry or key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by another version of vnfpool.
    #[error("connection entry has format version {found}, this program reads version 1")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The bytes end too early.
    #[error("connection entry is cut off")]
    Truncated,
    /// There are bytes after the end.
    #[error("connection entry is followed by {extra} unexpected bytes")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// A field has a value that is not defined.
    #[error("field {field} of a connection entry has an undefined value")]
    Value {
        /// Name of the field.
        field: &'static str,
    },
    /// The fields contradict each other.
    #[error("connection entry is impossible: {0}")]
    Entry(#[from] EntryError),
    /// The fields of an expectation contradict each other.
    #[error("expectation is impossible: {0}")]
    Expectation(#[from] ExpectationError),
}

impl From<TupleError> for DecodeError {
    fn from(error: TupleError) -> Self {
        Self::Entry(EntryError::Tuple(error))
    }
}

/// Items share so much memory: it is free again when the last of them is.
const BUFFER_BYTES: usize = 16 * 1024;

/// What another kernel can hold of `entry`, as an item of the state stream, cut from `buffer` (which is
/// refilled when it is used up, so that an item costs no allocation of its own).
pub fn item(entry: &Entry, buffer: &mut BytesMut) -> Item {
    if buffer.capacity() < ENTRY_BYTES_MAX {
        buffer.reserve(BUFFER_BYTES);
    }
    encode_key(&entry.key, buffer);
    let key = buffer.split().freeze();
    encode_value(&entry.clone().portable(), buffer);
    Item {
        key,
        value: buffer.split().freeze(),
        ttl_s: entry.timeout_s,
    }
}

/// Reads an item of the state stream.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn entry(item: &Item) -> Result<Entry, DecodeError> {
    decode_value(decode_key(&item.key)?, &item.value, item.ttl_s)
}

/// Appends everything of `entry` but its key and its timeout to `out`.
pub fn encode_value(entry: &Entry, out: &mut BytesMut) {
    let original = &entry.key.original;
    let plain = entry.reply == original.inverse();
    let mut flags = 0;
    for (present, bit) in [
        (!plain, REPLY),
        (entry.mark != 0, MARK),
        (entry.labels.is_some(), LABELS),
        (entry.seq_adjust[0].is_some(), SEQ_ADJUST[0]),
        (entry.seq_adjust[1].is_some(), SEQ_ADJUST[1]),
        (entry.helper.is_some(), HELPER),
        (entry.master.is_some(), MASTER),
    ] {
        flags |= if present { bit } else { 0 };
    }
    let state_kind = match entry.state {
        ProtocolState::None => STATE_NONE,
        ProtocolState::Tcp(_) => STATE_TCP,
        ProtocolState::Sctp(_) => STATE_SCTP,
    };
    out.extend_from_slice(&[flags, state_kind]);
    out.extend_from_slice(&entry.status.0.to_be_bytes());
    if !plain {
        encode_tuple(&entry.reply, out);
    }
    if entry.mark != 0 {
        out.extend_from_slice(&entry.mark.to_be_bytes());
    }
    match entry.state {
        ProtocolState::None => {}
        ProtocolState::Tcp(tcp) => {
            out.put_u8(tcp.state);
            out.extend_from_slice(&tcp.window_scale);
            out.extend_from_slice(&tcp.flags.map(|flags| flags & tcp_flags::REPLICATED));
        }
        ProtocolState::Sctp(sctp) => {
            out.put_u8(sctp.state);
            out.extend_from_slice(&sctp.tags[0].to_be_bytes());
            out.extend_from_slice(&sctp.tags[1].to_be_bytes());
        }
    }
    out.extend_from_slice(
        entry
            .labels
            .as_ref()
            .map_or(&[], |labels| labels.as_slice()),
    );
    for adjust in entry.seq_adjust.iter().flatten() {
        out.extend_from_slice(&adjust.correction_position.to_be_bytes());
        out.extend_from_slice(&adjust.offset_before.to_be_bytes());
        out.extend_from_slice(&adjust.offset_after.to_be_bytes());
    }
    if let Some(helper) = &entry.helper {
        let name = helper.as_bytes();
        out.put_u8(u8::try_from(name.len()).unwrap_or_default());
        out.extend_from_slice(name);
    }
    if let Some(master) = &entry.master {
        out.put_u8(master.protocol);
        encode_tuple(master, out);
    }
}

/// Appends `key` to `out`.
pub fn encode_key(key: &Key, out: &mut BytesMut) {
    out.extend_from_slice(&[FORMAT_VERSION, key_flags(key), key.original.protocol]);
    encode_tuple(&key.original, out);
    encode_zone(key.zone, out);
}

/// Reads the value of the entry of `key`, which has `timeout_s` seconds left; `bytes` must hold
/// nothing else.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode_value(key: Key, bytes: &[u8], timeout_s: u32) -> Result<Entry, DecodeError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.byte()?;
    if flags & ZONE != 0 {
        return Err(DecodeError::Value { field: "flags" });
    }
    let state_kind = reader.byte()?;
    let status = Status(reader.be32()?);
    let original = key.original;
    let reply = if flags & REPLY == 0 {
        original.inverse()
    } else {
        reader.tuple(original.protocol, family(&key))?
    };
    let mark = if flags & MARK == 0 { 0 } else { reader.be32()? };
    let state = reader.state(state_kind)?;
    let labels = if flags & LABELS == 0 {
        None
    } else {
        Some(reader.array()?)
    };
    let mut seq_adjust = [None; 2];
    for (adjust, bit) in seq_adjust.iter_mut().zip(SEQ_ADJUST) {
        if flags & bit != 0 {
            *adjust = Some(SeqAdjust {
                correction_position: reader.be32()?,
                offset_before: reader.be32()?,
                offset_after: reader.be32()?,
            });
        }
    }
    let helper = if flags & HELPER == 0 {
        None
    } else {
        let length = reader.byte()?;
        let name = HelperName::new(reader.take(usize::from(length))?);
        Some(name.ok_or(DecodeError::Value { field: "helper" })?)
    };
    let master = if flags & MASTER == 0 {
        None
    } else {
        let protocol = reader.byte()?;
        Some(reader.tuple(protocol, family(&key))?)
    };
    reader.end()?;
    let entry = Entry {
        key,
        reply,
        status,
        timeout_s,
        mark,
        state,
        labels,
        seq_adjust,
        helper,
        master,
    };
    entry.check()?;
    Ok(entry)
}

/// Reads a key; `bytes` must hold nothing else.
///
/// # Errors
/// [`DecodeError`] names the first thing that is wrong.
pub fn decode_key(bytes: &[u8]) -> Result<Key, DecodeError> {
    let mut reader = Reader::new(bytes);
    let flags = reader.version_and_flags()?;
    if flags & !(IPV6 | ZONE) != 0 {
        return Err(DecodeError::Value { field: "flags" });
    }
    let protocol = reader.byte()?;
    let original = reader.tuple(protocol, flags)?;
    let zone = reader.zone(flags)?;
    reader.end()?;
    original.check()?;
    Ok(Key { original, zone })
}

fn family(key: &Key) -> u8 {
    if key.original.src.is_ipv6() { IPV6 } else { 0 }
}

pub(crate) fn key_flags(key: &Key) -> u8 {
    let family = family(key);
    let zone = if key.zone == Zone::default() { 0 } else { ZONE };
    family | zone
}

pub(crate) fn encode_tuple(tuple: &Tuple, out: &mut impl BufMut) {
    for address in [tuple.src, tuple.dst] {
        match address {
            IpAddr::V4(address) => out.put_slice(&address.octets()),
            IpAddr::V6(address) => out.put_slice(&address.octets()),
        }
    }
    match tuple.layer4 {
        Layer4::Ports { src, dst } => {
            out.put_slice(&src.to_be_bytes());
            out.put_slice(&dst.to_be_bytes());
        }
        Layer4::Icmp { id, kind, code } => {
            out.put_slice(&id.to_be_bytes());
            out.put_slice(&[kind, code]);
        }
        Layer4::None => {}
    }
}

pub(crate) fn encode_zone(zone: Zone, out: &mut impl BufMut) {
    if zone == Zone::default() {
        return;
    }
    out.put_slice(&zone.id.to_be_bytes());
    out.put_u8(match zone.direction {
        ZoneDirection::Both => 0,
        ZoneDirection::Original => 1,
        ZoneDirection::Reply => 2,
    });
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Truncated)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    pub(crate) fn be16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn be32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn version_and_flags(&mut self) -> Result<u8, DecodeError> {
        match self.byte()? {
            FORMAT_VERSION => self.byte(),
            found => Err(DecodeError::Version { found }),
        }
    }

    pub(crate) fn address(&mut self, flags: u8) -> Result<IpAddr, DecodeError> {
        if flags & IPV6 == 0 {
            self.array::<4>()
                .map(|octets| Ipv4Addr::from(octets).into())
        } else {
            self.array::<16>()
                .map(|octets| Ipv6Addr::from(octets).into())
        }
    }

    pub(crate) fn tuple(&mut self, protocol: u8, flags: u8) -> Result<Tuple, DecodeError> {
        Ok(Tuple {
            src: self.address(flags)?,
            dst: self.address(flags)?,
            protocol,
            layer4: match protocol {
                protocol::ICMP | protocol::ICMPV6 => Layer4::Icmp {
                    id: self.be16()?,
                    kind: self.byte()?,
                    code: self.byte()?,
                },
                number if has_ports(number) => Layer4::Ports {
                    src: self.be16()?,
                    dst: self.be16()?,
                },
                _ => Layer4::None,
            },
        })
    }

    pub(crate) fn zone(&mut self, flags: u8) -> Result<Zone, DecodeError> {
        if flags & ZONE == 0 {
            return Ok(Zone::default());
        }
        Ok(Zone {
            id: self.be16()?,
            direction: match self.byte()? {
                0 => ZoneDirection::Both,
                1 => ZoneDirection::Original,
                2 => ZoneDirection::Reply,
                _ => return Err(DecodeError::Value { field: "zone" }),
            },
        })
    }

    pub(crate) fn state(&mut self, kind: u8) -> Result<ProtocolState, DecodeError> {
        Ok(match kind {
            STATE_NONE => ProtocolState::None,
            STATE_TCP => ProtocolState::Tcp(TcpInfo {
                state: self.byte()?,
                window_scale: self.array()?,
                flags: self
                    .array()
                    .map(|flags: [u8; 2]| flags.map(|flags| flags & tcp_flags::REPLICATED))?,
            }),
            STATE_SCTP => ProtocolState::Sctp(SctpInfo {
                state: self.byte()?,
                tags: [self.be32()?, self.be32()?],
            }),
            _ => {
                return Err(DecodeError::Value {
                    field: "state kind",
                });
            }
        })
    }

    pub(crate) const fn end(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }
}
