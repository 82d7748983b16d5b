//! What is told of a held packet, and how it lies in the ring.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// One direction of a connection, as the kernel keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; of ICMP the identifier, of GRE the key.
    pub src_port: u16,
    /// Destination port; of ICMP the type (upper byte) and code, of GRE the key.
    pub dst_port: u16,
}

/// A connection that is in no table yet: what its first packet and the rules have made of it.
///
/// Labels and a helper, if any, are not told here: they come with the connection's first event,
/// after its packet was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The first packet before address translation.
    pub original: Tuple,
    /// Its answer, after address translation.
    pub reply: Tuple,
    /// Number of the zone; 0 is the default zone.
    pub zone: u16,
    /// Directions that the zone applies to: 1 original, 2 reply, 3 both.
    pub zone_directions: u8,
    /// `IPS_*`, without `IPS_CONFIRMED`.
    pub status: u32,
    /// The packet mark kept with the connection.
    pub mark: u32,
    /// How long the connection would live without another packet, in the kernel's ticks
    /// ([`crate::Holder::ticks_per_second`]).
    pub timeout_ticks: u32,
    /// `enum tcp_conntrack` or `enum sctp_conntrack`; 0 for other protocols.
    pub state: u8,
    /// Window scale of TCP, original and reply direction.
    pub window_scale: [u8; 2],
    /// `IP_CT_TCP_FLAG_*`, original and reply direction.
    pub flags: [u8; 2],
    /// Verification tags of SCTP, original and reply direction.
    pub tags: [u32; 2],
}

/// A record of the ring: the packet's number, and its connection if one was noted.
pub(crate) fn parse(record: &[u8]) -> Option<(u32, Option<Connection>)> {
    let id = u32_at(record, 0)?;
    Some((id, connection(record)))
}

fn connection(record: &[u8]) -> Option<Connection> {
    Some(Connection {
        status: u32_at(record, 4)?,
        original: tuple(record.get(8..48)?)?,
        reply: tuple(record.get(48..88)?)?,
        mark: u32_at(record, 88)?,
        timeout_ticks: u32_at(record, 92)?,
        zone: u16_at(record, 96)?,
        zone_directions: *record.get(98)?,
        state: *record.get(99)?,
        window_scale: record.get(100..102)?.try_into().ok()?,
        flags: record.get(102..104)?.try_into().ok()?,
        tags: [be32_at(record, 104)?, be32_at(record, 108)?],
    })
}

/// `struct nf_conntrack_tuple`; none if it is of no IP family.
fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let family = u16_at(bytes, 18)?;
    Some(Tuple {
        src: address(bytes.get(0..16)?, family)?,
        dst: address(bytes.get(20..36)?, family)?,
        src_port: be16_at(bytes, 16)?,
        dst_port: be16_at(bytes, 36)?,
        protocol: *bytes.get(38)?,
    })
}

fn address(bytes: &[u8], family: u16) -> Option<IpAddr> {
    match family {
        AF_INET => {
            let octets: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets).into())
        }
        AF_INET6 => {
            let octets: [u8; 16] = bytes.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let value = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(value))
}

fn be32_at(bytes: &[u8], at: usize) -> Option<u32> {
    u32_at(bytes, at).map(u32::from_be)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let value = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(value))
}

fn be16_at(bytes: &[u8], at: usize) -> Option<u16> {
    u16_at(bytes, at).map(u16::from_be)
}
