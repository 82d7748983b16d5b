//! The ARP and neighbor discovery frames that this crate sends and understands. Pure functions.
//!
//! ARP: RFC 826 and RFC 5227; neighbor discovery: RFC 4861; what a virtual router announces: RFC
//! 9568 §8.1.2 and §8.2.2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vnfpool_model::MacAddr;

use crate::addresses::solicited_node;

/// Length of an ARP frame in bytes.
pub(crate) const ARP_BYTES: usize = 42;
/// Length of a neighbor message's frame with its one option, in bytes.
pub(crate) const NEIGHBOR_BYTES: usize = 86;

pub(crate) type ArpFrame = [u8; ARP_BYTES];
pub(crate) type NeighborFrame = [u8; NEIGHBOR_BYTES];

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER_ICMPV6: u8 = 58;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// ICMPv6 message of 24 bytes and one option of 8.
const ICMPV6_BYTES: u8 = 32;

/// What an ARP frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArpOperation {
    Request,
    Reply,
}

/// A broadcast that says where `address` is; hosts differ in which operation they listen to.
pub(crate) fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr, operation: ArpOperation) -> ArpFrame {
    let target_mac = match operation {
        ArpOperation::Request => MacAddr([0; 6]),
        ArpOperation::Reply => MacAddr::BROADCAST,
    };
    arp(operation, (mac, address), (target_mac, address))
}

/// A broadcast that asks where `target` is.
pub(crate) fn arp_request(mac: MacAddr, own: Ipv4Addr, target: Ipv4Addr) -> ArpFrame {
    arp(ArpOperation::Request, (mac, own), (MacAddr([0; 6]), target))
}

fn arp(
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> ArpFrame {
    let mut frame = [0; ARP_BYTES];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&sender.0.0);
    frame[12..14].copy_from_slice(&ETHERTYPE_ARP);
    // Ethernet, IPv4, and the lengths of their addresses.
    frame[14..20].copy_from_slice(&[0, 1, 0x08, 0, 6, 4]);
    frame[21] = match operation {
        ArpOperation::Request => 1,
        ArpOperation::Reply => 2,
    };
    frame[22..28].copy_from_slice(&sender.0.0);
    frame[28..32].copy_from_slice(&sender.1.octets());
    frame[32..38].copy_from_slice(&target.0.0);
    frame[38..].copy_from_slice(&target.1.octets());
    frame
}

/// An unsolicited advertisement of `address` to all nodes, by a router, overriding what they know.
pub(crate) fn unsolicited_advertisement(mac: MacAddr, address: Ipv6Addr) -> NeighborFrame {
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    neighbor(Neighbor {
        kind: NEIGHBOR_ADVERTISEMENT,
        flags: ROUTER | OVERRIDE,
        mac,
        source: address,
        destination: ALL_NODES,
        target: address,
    })
}

/// A multicast that asks where `target` is.
pub(crate) fn solicitation(mac: MacAddr, own: Ipv6Addr, target: Ipv6Addr) -> NeighborFrame {
    neighbor(Neighbor {
        kind: NEIGHBOR_SOLICITATION,
        flags: 0,
        mac,
        source: own,
        destination: solicited_node(target),
        target,
    })
}

struct Neighbor {
    kind: u8,
    flags: u8,
    mac: MacAddr,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    target: Ipv6Addr,
}

fn neighbor(message: Neighbor) -> NeighborFrame {
    const OPTION_SOURCE_LINK_ADDRESS: u8 = 1;
    const OPTION_TARGET_LINK_ADDRESS: u8 = 2;
    let mut frame = [0; NEIGHBOR_BYTES];
    let destination = message.destination.octets();
    // RFC 2464 §7: the multicast MAC is made of the last four bytes.
    frame[..2].copy_from_slice(&[0x33, 0x33]);
    frame[2..6].copy_from_slice(&destination[12..]);
    frame[6..12].copy_from_slice(&message.mac.0);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV6);
    frame[14] = 0x60;
    frame[19] = ICMPV6_BYTES;
    frame[20] = NEXT_HEADER_ICMPV6;
    // RFC 4861 §7.1: anything less shows that a router has passed it on.
    frame[21] = 255;
    frame[22..38].copy_from_slice(&message.source.octets());
    frame[38..54].copy_from_slice(&destination);
    frame[54] = message.kind;
    frame[58] = message.flags;
    frame[62..78].copy_from_slice(&message.target.octets());
    frame[78] = if message.kind == NEIGHBOR_SOLICITATION {
        OPTION_SOURCE_LINK_ADDRESS
    } else {
        OPTION_TARGET_LINK_ADDRESS
    };
    // In units of 8 bytes.
    frame[79] = 1;
    frame[80..].copy_from_slice(&message.mac.0);
    let checksum = icmpv6_checksum(&frame);
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// RFC 4443 §2.3: over a pseudo-header of addresses, length and protocol, and the message.
fn icmpv6_checksum(frame: &NeighborFrame) -> u16 {
    let words = frame[22..].chunks_exact(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let pseudo_header = u32::from(ICMPV6_BYTES) + u32::from(NEXT_HEADER_ICMPV6);
    let mut sum = pseudo_header + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits just above.
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Something that a neighbor says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    /// Whose address it says to be its own.
    pub(crate) address: IpAddr,
    /// The MAC that the frame came from.
    pub(crate) mac: MacAddr,
    /// The MAC that an answer is for; none if it is no answer.
    pub(crate) answer_for: Option<MacAddr>,
}

/// What a received frame says, or none if it is not about addresses or not well-formed.
pub(crate) fn parse(frame: &[u8]) -> Option<Statement> {
    let ethernet: &[u8; ETHERNET_BYTES] = frame.first_chunk()?;
    let destination = MacAddr(*ethernet.first_chunk()?);
    let mac = mac_at(frame, 6)?;
    match [ethernet[12], ethernet[13]] {
        ETHERTYPE_ARP => parse_arp(frame, mac),
        ETHERTYPE_IPV6 => parse_neighbor(frame, mac, destination),
        _ => None,
    }
}

fn parse_arp(frame: &[u8], mac: MacAddr) -> Option<Statement> {
    if frame.get(14..20)? != [0, 1, 0x08, 0, 6, 4] {
        return None;
    }
    let sender: [u8; 4] = *frame.get(28..)?.first_chunk()?;
    let is_reply = frame.get(20..22)? == [0, 2];
    let target_mac = mac_at(frame, 32)?;
    // RFC 5227 §1.1: a probe's sender is zero and says nothing about it.
    (sender != [0; 4]).then_some(Statement {
        address: sender.into(),
        mac,
        answer_for: is_reply.then_some(target_mac),
    })
}

fn parse_neighbor(frame: &[u8], mac: MacAddr, destination: MacAddr) -> Option<Statement> {
    const SOLICITED: u8 = 0x40;
    let is_icmpv6 = *frame.get(20)? == NEXT_HEADER_ICMPV6 && *frame.get(21)? == 255;
    let source: [u8; 16] = *frame.get(22..)?.first_chunk()?;
    let target: [u8; 16] = *frame.get(62..)?.first_chunk()?;
    let (address, answer_for) = match *frame.get(54)? {
        _ if !is_icmpv6 => return None,
        NEIGHBOR_ADVERTISEMENT => {
            let solicited = frame.get(58)? & SOLICITED != 0;
            (target, solicited.then_some(destination))
        }
        // Its source is what it speaks for; without one it asks whether the target is free.
        NEIGHBOR_SOLICITATION if source == [0; 16] => (target, None),
        NEIGHBOR_SOLICITATION => (source, None),
        _ => return None,
    };
    Some(Statement {
        address: address.into(),
        mac,
        answer_for,
    })
}

fn mac_at(frame: &[u8], offset: usize) -> Option<MacAddr> {
    Some(MacAddr(*frame.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
