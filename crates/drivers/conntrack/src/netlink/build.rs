//! From entries to ctnetlink requests.

use std::net::IpAddr;

use super::attribute::Writer;
use super::constants::*;
use crate::entry::{
    Entry, ProtocolState, SeqAdjust, Status, TcpInfo, Translation, tcp_flags, tcp_state,
};
use crate::tuple::{Key, Layer4, Tuple, Zone, ZoneDirection, protocol};

/// Least seconds that a copy lives. The original is kept alive by its packets, of which the copy
/// hears nothing; it is told of by each scan of the active's table, two of which have to come
/// before this is over. If the original does end before, its end is told at once.
pub(crate) const COPY_TIMEOUT_S_MIN: u32 = 60;

/// How a connection is put into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CreateOptions {
    /// Whether the helper is named; not every kernel has loaded every helper.
    pub(crate) helper: bool,
    /// Whether the master is named; it has to be in the table.
    pub(crate) master: bool,
}

/// What an update does about the time that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpdatedTime {
    /// Sets it, if it is known.
    Told,
    /// Leaves it.
    Kept,
}

/// Appends the request that creates `entry`, address translation included.
pub(crate) fn create(out: &mut Vec<u8>, sequence: u32, entry: &Entry, options: CreateOptions) {
    let flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL;
    message(out, CT_NEW, flags, sequence, family(entry), |writer| {
        let source = entry.source_translation();
        // Told that the destination stays as it is, the kernel need not look for another
        // connection that may have it.
        let destination = entry
            .destination_translation()
            .or_else(|| source.and_then(|_| entry.same_destination()));
        let zone = entry.zone();
        put_tuple(writer, CTA_TUPLE_ORIG, &entry.key.original, zone);
        // The kernel wants the reply as it would be without translation and then translates it
        // by itself; NAT bits in the status are refused.
        put_tuple(writer, CTA_TUPLE_REPLY, &entry.key.original.inverse(), zone);
        put_zone(writer, zone);
        if let Some(translation) = source {
            put_translation(writer, CTA_NAT_SRC, translation);
        }
        if let Some(translation) = destination {
            put_translation(writer, CTA_NAT_DST, translation);
        }
        if let Some(master) = entry.master.filter(|_| options.master) {
            put_tuple(writer, CTA_TUPLE_MASTER, &master, Zone::default());
        }
        writer.put(CTA_TIMEOUT, &copy_timeout_s(entry).to_be_bytes());
        // The kernel sets the bit of an expected connection itself, later.
        put_state(writer, entry, 0);
        if let Some(name) = entry.helper.filter(|_| options.helper) {
            writer.nest(CTA_HELP, |help| {
                let mut terminated = name.as_bytes().to_vec();
                terminated.push(0);
                help.put(CTA_HELP_NAME, &terminated);
            });
        }
    });
}

/// Appends the request that brings the existing connection up to date. Translation and helper
/// cannot be changed (the kernel refuses them here) and do not change. The kernel refuses any time for
/// a connection whose timeout is fixed already, and takes it together with what fixes it.
pub(crate) fn update(out: &mut Vec<u8>, sequence: u32, entry: &Entry, time: UpdatedTime) {
    message(
        out,
        CT_NEW,
        NLM_F_REQUEST,
        sequence,
        family(entry),
        |writer| {
            put_tuple(writer, CTA_TUPLE_ORIG, &entry.key.original, entry.zone());
            put_zone(writer, entry.zone());
            if entry.timeout_s > 0 && time == UpdatedTime::Told {
                writer.put(CTA_TIMEOUT, &copy_timeout_s(entry).to_be_bytes());
            }
            // A copy that was made without its master differs in this bit: the kernel refuses
            // the update, and the copy is made anew.
            put_state(writer, entry, entry.status.0 & Status::EXPECTED);
        },
    );
}

/// Appends the request that ends the lenience towards the TCP connection of `key`.
pub(crate) fn make_strict(out: &mut Vec<u8>, sequence: u32, key: &Key) {
    change_tcp(out, sequence, key, |writer| {
        let cleared = [0, tcp_flags::BE_LIBERAL];
        writer.put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &cleared);
        writer.put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &cleared);
    });
}

/// Appends the request that sets both window scales of the TCP connection of `key` to none, which
/// the kernel takes from nobody who does not claim at the same time that both directions have one.
pub(crate) fn forget_scales(out: &mut Vec<u8>, sequence: u32, key: &Key) {
    change_tcp(out, sequence, key, |writer| {
        let set = [tcp_flags::WINDOW_SCALE; 2];
        writer.put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &set);
        writer.put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &set);
        writer.put(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, &[0]);
        writer.put(CTA_PROTOINFO_TCP_WSCALE_REPLY, &[0]);
    });
}

fn change_tcp(out: &mut Vec<u8>, sequence: u32, key: &Key, fill: impl FnOnce(&mut Writer<'_>)) {
    let family = family_of(&key.original);
    message(out, CT_NEW, NLM_F_REQUEST, sequence, family, |writer| {
        put_tuple(writer, CTA_TUPLE_ORIG, &key.original, key.zone);
        put_zone(writer, key.zone);
        writer.nest(CTA_PROTOINFO, |writer| {
            writer.nest(CTA_PROTOINFO_TCP, fill);
        });
    });
}

/// Appends the request that deletes the connection of `key`.
pub(crate) fn delete(out: &mut Vec<u8>, sequence: u32, key: &Key) {
    let family = family_of(&key.original);
    message(out, CT_DELETE, NLM_F_REQUEST, sequence, family, |writer| {
        put_tuple(writer, CTA_TUPLE_ORIG, &key.original, key.zone);
        put_zone(writer, key.zone);
    });
}

/// Appends the request that deletes the connection whose replies look like `reply`.
pub(crate) fn delete_by_reply(out: &mut Vec<u8>, sequence: u32, reply: &Tuple, zone: Zone) {
    let family = family_of(reply);
    message(out, CT_DELETE, NLM_F_REQUEST, sequence, family, |writer| {
        put_tuple(writer, CTA_TUPLE_REPLY, reply, zone);
        put_zone(writer, zone);
    });
}

/// Appends the request that reads the connection of `key`.
pub(crate) fn get(out: &mut Vec<u8>, sequence: u32, key: &Key) {
    let family = family_of(&key.original);
    message(out, CT_GET, NLM_F_REQUEST, sequence, family, |writer| {
        put_tuple(writer, CTA_TUPLE_ORIG, &key.original, key.zone);
        put_zone(writer, key.zone);
    });
}

/// Appends the request that dumps the table of an address family (0: all).
pub(crate) fn dump(out: &mut Vec<u8>, sequence: u32, family: u8) {
    message(
        out,
        CT_GET,
        NLM_F_REQUEST | NLM_F_DUMP,
        sequence,
        family,
        |_| {},
    );
}

/// Sets NLM_F_ACK in the message that starts at `at`.
pub(crate) fn request_acknowledgement(out: &mut [u8], at: usize) {
    if let Some([low, high]) = out.get_mut(at + 6..at + 8) {
        [*low, *high] = (u16::from_ne_bytes([*low, *high]) | NLM_F_ACK).to_ne_bytes();
    }
}

pub(super) fn message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    fill: impl FnOnce(&mut Writer<'_>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[family, 0, 0, 0]);
    fill(&mut Writer::new(out));
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start + 4) {
        header.copy_from_slice(&length.to_ne_bytes());
    }
}

const fn family(entry: &Entry) -> u8 {
    family_of(&entry.key.original)
}

pub(super) const fn family_of(tuple: &Tuple) -> u8 {
    if tuple.src.is_ipv4() {
        AF_INET
    } else {
        AF_INET6
    }
}

/// Connections about to end keep the time they have, and so do those that packets do not prolong; the
/// others get the least time of a copy.
fn copy_timeout_s(entry: &Entry) -> u32 {
    match entry.state {
        _ if entry.status.has(Status::FIXED_TIMEOUT) => entry.timeout_s.max(1),
        ProtocolState::Tcp(TcpInfo {
            state: tcp_state::LAST_ACK | tcp_state::TIME_WAIT | tcp_state::CLOSE,
            ..
        }) => entry.timeout_s.max(1),
        _ => entry.timeout_s.max(COPY_TIMEOUT_S_MIN),
    }
}

pub(super) fn put_tuple(writer: &mut Writer<'_>, kind: u16, tuple: &Tuple, zone: Zone) {
    writer.nest(kind, |writer| {
        writer.nest(CTA_TUPLE_IP, |writer| match (tuple.src, tuple.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                writer.put(CTA_IP_V4_SRC, &src.octets());
                writer.put(CTA_IP_V4_DST, &dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                writer.put(CTA_IP_V6_SRC, &src.octets());
                writer.put(CTA_IP_V6_DST, &dst.octets());
            }
            // Refused by `Tuple::check`; the kernel refuses the empty attribute too.
            _ => {}
        });
        writer.nest(CTA_TUPLE_PROTO, |writer| {
            writer.put(CTA_PROTO_NUM, &[tuple.protocol]);
            put_layer4(writer, tuple);
        });
        let ours = match zone.direction {
            ZoneDirection::Both => false,
            ZoneDirection::Original => kind == CTA_TUPLE_ORIG,
            ZoneDirection::Reply => kind == CTA_TUPLE_REPLY,
        };
        if ours {
            writer.put(CTA_TUPLE_ZONE, &zone.id.to_be_bytes());
        }
    });
}

fn put_layer4(writer: &mut Writer<'_>, tuple: &Tuple) {
    match tuple.layer4 {
        Layer4::Ports { src, dst } => {
            writer.put(CTA_PROTO_SRC_PORT, &src.to_be_bytes());
            writer.put(CTA_PROTO_DST_PORT, &dst.to_be_bytes());
        }
        Layer4::Icmp { id, kind, code } if tuple.protocol == protocol::ICMP => {
            writer.put(CTA_PROTO_ICMP_ID, &id.to_be_bytes());
            writer.put(CTA_PROTO_ICMP_TYPE, &[kind]);
            writer.put(CTA_PROTO_ICMP_CODE, &[code]);
        }
        Layer4::Icmp { id, kind, code } => {
            writer.put(CTA_PROTO_ICMPV6_ID, &id.to_be_bytes());
            writer.put(CTA_PROTO_ICMPV6_TYPE, &[kind]);
            writer.put(CTA_PROTO_ICMPV6_CODE, &[code]);
        }
        Layer4::None => {}
    }
}

fn put_zone(writer: &mut Writer<'_>, zone: Zone) {
    if zone.id != 0 && zone.direction == ZoneDirection::Both {
        writer.put(CTA_ZONE, &zone.id.to_be_bytes());
    }
}

/// A range of one address and one port, so that the kernel has no choice.
fn put_translation(writer: &mut Writer<'_>, kind: u16, translation: Translation) {
    writer.nest(kind, |writer| {
        match translation.address {
            IpAddr::V4(address) => {
                writer.put(CTA_NAT_V4_MINIP, &address.octets());
                writer.put(CTA_NAT_V4_MAXIP, &address.octets());
            }
            IpAddr::V6(address) => {
                writer.put(CTA_NAT_V6_MINIP, &address.octets());
                writer.put(CTA_NAT_V6_MAXIP, &address.octets());
            }
        }
        if let Some(port) = translation.port {
            writer.nest(CTA_NAT_PROTO, |writer| {
                writer.put(CTA_PROTONAT_PORT_MIN, &port.to_be_bytes());
                writer.put(CTA_PROTONAT_PORT_MAX, &port.to_be_bytes());
            });
        }
    });
}

/// What both creation and update may say. `expected` is the bit that must be as it is.
fn put_state(writer: &mut Writer<'_>, entry: &Entry, expected: u32) {
    // CONFIRMED must be there, or the kernel takes the request for an attempt to clear it; the
    // bits of translation and adjustment are set by the kernel only.
    let told = Status::ASSURED | Status::SEEN_REPLY | Status::FIXED_TIMEOUT;
    let status = Status::CONFIRMED | expected | (entry.status.0 & told);
    writer.put(CTA_STATUS, &status.to_be_bytes());
    writer.put(CTA_MARK, &entry.mark.to_be_bytes());
    match entry.state {
        ProtocolState::None => {}
        ProtocolState::Tcp(tcp) => writer.nest(CTA_PROTOINFO, |writer| {
            writer.nest(CTA_PROTOINFO_TCP, |writer| {
                let [original, reply] = tcp
                    .flags
                    .map(|flags| [flags & tcp_flags::REPLICATED, tcp_flags::REPLICATED]);
                writer.put(CTA_PROTOINFO_STATE, &[tcp.state]);
                writer.put(CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, &original);
                writer.put(CTA_PROTOINFO_TCP_FLAGS_REPLY, &reply);
                // The kernel takes the scales only when both directions come with the flag.
                writer.put(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, &[tcp.window_scale[0]]);
                writer.put(CTA_PROTOINFO_TCP_WSCALE_REPLY, &[tcp.window_scale[1]]);
            });
        }),
        ProtocolState::Sctp(sctp) => writer.nest(CTA_PROTOINFO, |writer| {
            writer.nest(CTA_PROTOINFO_SCTP, |writer| {
                writer.put(CTA_PROTOINFO_STATE, &[sctp.state]);
                writer.put(
                    CTA_PROTOINFO_SCTP_VTAG_ORIGINAL,
                    &sctp.tags[0].to_be_bytes(),
                );
                writer.put(CTA_PROTOINFO_SCTP_VTAG_REPLY, &sctp.tags[1].to_be_bytes());
            });
        }),
    }
    put_seq_adjust(writer, CTA_SEQ_ADJ_ORIG, entry.seq_adjust[0]);
    put_seq_adjust(writer, CTA_SEQ_ADJ_REPLY, entry.seq_adjust[1]);
    if let Some(labels) = entry.labels {
        writer.put(CTA_LABELS, &labels);
    }
}

fn put_seq_adjust(writer: &mut Writer<'_>, kind: u16, adjust: Option<SeqAdjust>) {
    let Some(adjust) = adjust else { return };
    writer.nest(kind, |writer| {
        writer.put(
            CTA_SEQADJ_CORRECTION_POS,
            &adjust.correction_position.to_be_bytes(),
        );
        writer.put(
            CTA_SEQADJ_OFFSET_BEFORE,
            &adjust.offset_before.to_be_bytes(),
        );
        writer.put(CTA_SEQADJ_OFFSET_AFTER, &adjust.offset_after.to_be_bytes());
    });
}
