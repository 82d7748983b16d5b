//! From ctnetlink messages to entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::attribute::{aligned, attributes, be16, be32, find};
use super::constants::*;
use crate::entry::{
    Entry, EntryError, HelperName, ProtocolState, SctpInfo, SeqAdjust, Status, TcpInfo, tcp_flags,
};
use crate::expectation::ExpectationError;
use crate::tuple::{Key, Layer4, Tuple, Zone, ZoneDirection, protocol};

/// One netlink message in a received buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// Netlink port of the socket whose request caused it; 0 for what a packet or a timer caused.
    pub(crate) port: u32,
    /// What follows the netlink header.
    pub(crate) body: &'a [u8],
}

/// Why a ctnetlink message was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A needed attribute is missing or has a wrong length.
    #[error("attribute {attribute} of a conntrack message is missing or malformed")]
    Attribute {
        /// Name of the attribute in `nfnetlink_conntrack.h`.
        attribute: &'static str,
    },
    /// The attributes contradict each other.
    #[error("a conntrack message holds an impossible connection: {0}")]
    Entry(#[from] EntryError),
    /// The attributes of an expectation contradict each other.
    #[error("a conntrack message holds an impossible expectation: {0}")]
    Expectation(#[from] ExpectationError),
}

/// Iterates over the messages of a received buffer; stops at the first one that does not fit.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(ne32(rest, 0)?).ok()?;
        let body = rest.get(NETLINK_HEADER_BYTES..length)?;
        let kinds = ne32(rest, 4)?.to_ne_bytes();
        let sequence = ne32(rest, 8)?;
        let port = ne32(rest, 12)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([kinds[0], kinds[1]]),
            flags: u16::from_ne_bytes([kinds[2], kinds[3]]),
            sequence,
            port,
            body,
        })
    })
}

/// The errno of an NLMSG_ERROR or NLMSG_DONE message as a positive number; 0 is an
/// acknowledgement.
pub(crate) fn error_number(message: &Message<'_>) -> i32 {
    ne32(message.body, 0)
        .map_or(0, u32::cast_signed)
        .checked_neg()
        .unwrap_or(i32::MAX)
}

/// Reads the connection of a CT_NEW or CT_DELETE message.
pub(crate) fn entry(message: &Message<'_>) -> Result<Entry, ParseError> {
    let bytes = message.body.get(GENERIC_HEADER_BYTES..).unwrap_or_default();
    let mut original = None;
    let mut reply = None;
    let mut zone = Zone::default();
    let mut master = None;
    let mut parsed = Optional::default();
    for (kind, value) in attributes(bytes) {
        match kind {
            CTA_TUPLE_ORIG => original = Some(tuple(value, ZoneDirection::Original, &mut zone)?),
            CTA_TUPLE_REPLY => reply = Some(tuple(value, ZoneDirection::Reply, &mut zone)?),
            CTA_TUPLE_MASTER => {
                let mut same = Zone::default();
                master = Some(tuple(value, ZoneDirection::Both, &mut same)?);
            }
            CTA_ZONE => {
                zone = Zone {
                    id: be16(value).ok_or(missing("CTA_ZONE"))?,
                    direction: ZoneDirection::Both,
                };
            }
            _ => parsed.take(kind, value)?,
        }
    }
    let original = original.ok_or(missing("CTA_TUPLE_ORIG"))?;
    let entry = Entry {
        key: Key { original, zone },
        reply: reply.ok_or(missing("CTA_TUPLE_REPLY"))?,
        status: parsed.status,
        timeout_s: parsed.timeout_s,
        mark: parsed.mark,
        state: parsed.state,
        labels: parsed.labels,
        seq_adjust: parsed.seq_adjust,
        helper: parsed.helper,
        master,
    };
    entry.check()?;
    Ok(entry)
}

/// Attributes besides tuples and zone.
#[derive(Default)]
struct Optional {
    status: Status,
    timeout_s: u32,
    mark: u32,
    state: ProtocolState,
    labels: Option<[u8; 16]>,
    seq_adjust: [Option<SeqAdjust>; 2],
    helper: Option<HelperName>,
}

impl Optional {
    fn take(&mut self, kind: u16, value: &[u8]) -> Result<(), ParseError> {
        match kind {
            CTA_STATUS => self.status = Status(be32(value).ok_or(missing("CTA_STATUS"))?),
            CTA_TIMEOUT => self.timeout_s = be32(value).ok_or(missing("CTA_TIMEOUT"))?,
            CTA_MARK => self.mark = be32(value).ok_or(missing("CTA_MARK"))?,
            CTA_PROTOINFO => self.state = protocol_state(value)?,
            // Kernels built for fewer labels send fewer bytes.
            CTA_LABELS => {
                let mut labels = [0; 16];
                labels
                    .get_mut(..value.len())
                    .ok_or(missing("CTA_LABELS"))?
                    .copy_from_slice(value);
                self.labels = Some(labels);
            }
            CTA_SEQ_ADJ_ORIG => self.seq_adjust[0] = Some(seq_adjust(value)?),
            CTA_SEQ_ADJ_REPLY => self.seq_adjust[1] = Some(seq_adjust(value)?),
            CTA_HELP => {
                let name = find(value, CTA_HELP_NAME).ok_or(missing("CTA_HELP_NAME"))?;
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
                self.helper = HelperName::new(name);
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn tuple(
    bytes: &[u8],
    direction: ZoneDirection,
    zone: &mut Zone,
) -> Result<Tuple, ParseError> {
    if let Some(value) = find(bytes, CTA_TUPLE_ZONE) {
        *zone = Zone {
            id: be16(value).ok_or(missing("CTA_TUPLE_ZONE"))?,
            direction,
        };
    }
    let addresses = find(bytes, CTA_TUPLE_IP).ok_or(missing("CTA_TUPLE_IP"))?;
    let (src, dst) = ip_addresses(addresses).ok_or(missing("CTA_IP_*"))?;
    let proto = find(bytes, CTA_TUPLE_PROTO).ok_or(missing("CTA_TUPLE_PROTO"))?;
    let number = find(proto, CTA_PROTO_NUM).and_then(byte);
    let number = number.ok_or(missing("CTA_PROTO_NUM"))?;
    let layer4 = match number {
        protocol::ICMP => icmp(
            proto,
            [CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE],
        ),
        protocol::ICMPV6 => icmp(
            proto,
            [
                CTA_PROTO_ICMPV6_ID,
                CTA_PROTO_ICMPV6_TYPE,
                CTA_PROTO_ICMPV6_CODE,
            ],
        ),
        _ => Ok(ports(proto)),
    }?;
    Ok(Tuple {
        src,
        dst,
        protocol: number,
        layer4,
    })
}

pub(super) fn ip_addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if let (Some(src), Some(dst)) = (find(bytes, CTA_IP_V4_SRC), find(bytes, CTA_IP_V4_DST)) {
        let address = |value: &[u8]| Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?));
        return Some((address(src)?.into(), address(dst)?.into()));
    }
    let address = |value: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?));
    Some((
        address(find(bytes, CTA_IP_V6_SRC)?)?.into(),
        address(find(bytes, CTA_IP_V6_DST)?)?.into(),
    ))
}

fn icmp(bytes: &[u8], [id, kind, code]: [u16; 3]) -> Result<Layer4, ParseError> {
    let layer4 = || {
        Some(Layer4::Icmp {
            id: find(bytes, id).and_then(be16)?,
            kind: find(bytes, kind).and_then(byte)?,
            code: find(bytes, code).and_then(byte)?,
        })
    };
    layer4().ok_or(missing("CTA_PROTO_ICMP_*"))
}

fn ports(bytes: &[u8]) -> Layer4 {
    let port = |kind| find(bytes, kind).and_then(be16);
    match (port(CTA_PROTO_SRC_PORT), port(CTA_PROTO_DST_PORT)) {
        (Some(src), Some(dst)) => Layer4::Ports { src, dst },
        _ => Layer4::None,
    }
}

fn protocol_state(bytes: &[u8]) -> Result<ProtocolState, ParseError> {
    if let Some(tcp) = find(bytes, CTA_PROTOINFO_TCP) {
        let scale = |kind| find(tcp, kind).and_then(byte).unwrap_or_default();
        // struct nf_ct_tcp_flags: the flags, then a mask.
        let flags = |kind| {
            let value = find(tcp, kind).unwrap_or_default();
            value.first().copied().unwrap_or_default()
                & (tcp_flags::REPLICATED | tcp_flags::IN_STEP)
        };
        return Ok(ProtocolState::Tcp(TcpInfo {
            state: find(tcp, CTA_PROTOINFO_STATE)
                .and_then(byte)
                .ok_or(missing("CTA_PROTOINFO_TCP_STATE"))?,
            window_scale: [
                scale(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL),
                scale(CTA_PROTOINFO_TCP_WSCALE_REPLY),
            ],
            flags: [
                flags(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL),
                flags(CTA_PROTOINFO_TCP_FLAGS_REPLY),
            ],
        }));
    }
    let Some(sctp) = find(bytes, CTA_PROTOINFO_SCTP) else {
        return Ok(ProtocolState::None);
    };
    let tag = |kind| find(sctp, kind).and_then(be32).unwrap_or_default();
    Ok(ProtocolState::Sctp(SctpInfo {
        state: find(sctp, CTA_PROTOINFO_STATE)
            .and_then(byte)
            .ok_or(missing("CTA_PROTOINFO_SCTP_STATE"))?,
        tags: [
            tag(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL),
            tag(CTA_PROTOINFO_SCTP_VTAG_REPLY),
        ],
    }))
}

fn seq_adjust(bytes: &[u8]) -> Result<SeqAdjust, ParseError> {
    let number = |kind| {
        find(bytes, kind)
            .and_then(be32)
            .ok_or(missing("CTA_SEQADJ_*"))
    };
    Ok(SeqAdjust {
        correction_position: number(CTA_SEQADJ_CORRECTION_POS)?,
        offset_before: number(CTA_SEQADJ_OFFSET_BEFORE)?,
        offset_after: number(CTA_SEQADJ_OFFSET_AFTER)?,
    })
}

fn byte(value: &[u8]) -> Option<u8> {
    value.first().copied()
}

fn ne32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    word.try_into().ok().map(u32::from_ne_bytes)
}

pub(super) const fn missing(attribute: &'static str) -> ParseError {
    ParseError::Attribute { attribute }
}
