//! What a frame that a gateway sent says about ownership.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::namespaces::{VIP_INSIDE_V4, VIP_INSIDE_V6, VIP_OUTSIDE_V4, VIP_OUTSIDE_V6};

/// The probe asks in the name of `.200` to `.231` in turn, so that an answer names its question.
pub(super) const FIRST_ASKER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);
/// How many names it uses before it starts again: 160 ms at one question each 5 ms.
pub(super) const ASKERS: u8 = 32;

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VIRTUAL_MAC_V4: [u8; 5] = [0, 0, 0x5e, 0, 1];
const VIRTUAL_MAC_V6: [u8; 5] = [0, 0, 0x5e, 0, 2];

/// Why a frame is one that only the owner of the virtual addresses may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerFrame {
    /// An answer to the probe that asked as `FIRST_ASKER + n`.
    Answer(u8),
    /// Any other claim to a virtual address by ARP or neighbour discovery.
    Claim,
    /// A packet of the client's or the server's, passed on by this gateway.
    Forwarded,
    /// Anything else from a virtual hardware address.
    VirtualMac,
}

/// Which LAN a tapped port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Inside,
    Outside,
}

/// Judges a frame that came from a gateway; `None` for what anybody may send.
pub(super) fn judge(side: Side, frame: &[u8]) -> Option<OwnerFrame> {
    let source: [u8; 6] = bytes(frame, 6)?;
    let kind = u16::from_be_bytes(bytes(frame, 12)?);
    let judged = match kind {
        ARP => judge_arp(side, frame),
        IPV4 => judge_ipv4(side, frame),
        IPV6 => judge_ipv6(side, frame),
        _ => None,
    };
    let is_virtual = source.starts_with(&VIRTUAL_MAC_V4) || source.starts_with(&VIRTUAL_MAC_V6);
    judged.or_else(|| is_virtual.then_some(OwnerFrame::VirtualMac))
}

fn judge_arp(side: Side, frame: &[u8]) -> Option<OwnerFrame> {
    let operation = u16::from_be_bytes(bytes(frame, 20)?);
    let sender = Ipv4Addr::from(bytes::<4>(frame, 28)?);
    let target = Ipv4Addr::from(bytes::<4>(frame, 38)?);
    let virtual_address = match side {
        Side::Inside => VIP_INSIDE_V4,
        Side::Outside => VIP_OUTSIDE_V4,
    };
    if sender != virtual_address {
        return None;
    }
    let asker = u32::from(target).checked_sub(u32::from(FIRST_ASKER));
    match asker.and_then(|n| u8::try_from(n).ok()) {
        Some(asker) if operation == 2 && asker < ASKERS => Some(OwnerFrame::Answer(asker)),
        _ => Some(OwnerFrame::Claim),
    }
}

fn judge_ipv4(side: Side, frame: &[u8]) -> Option<OwnerFrame> {
    let source = Ipv4Addr::from(bytes::<4>(frame, 26)?);
    let protocol: [u8; 1] = bytes(frame, 23)?;
    let forwarded = match side {
        // On the inside only the server's packets come from beyond the gateway.
        Side::Inside => source.octets()[..3] == [10, 2, 0] && source.octets()[3] == 10,
        // On the outside the translated address is the mark of a passed-on packet. VRRP adverts
        // are left out: a master may send them from any address it owns.
        Side::Outside => source == VIP_OUTSIDE_V4 && protocol != [112],
    };
    forwarded.then_some(OwnerFrame::Forwarded)
}

fn judge_ipv6(side: Side, frame: &[u8]) -> Option<OwnerFrame> {
    let source = Ipv6Addr::from(bytes::<16>(frame, 22)?);
    let [next_header]: [u8; 1] = bytes(frame, 20)?;
    let (virtual_address, forwarded) = match side {
        Side::Inside => (
            VIP_INSIDE_V6,
            source == Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x10),
        ),
        Side::Outside => (VIP_OUTSIDE_V6, source == VIP_OUTSIDE_V6),
    };
    const ICMPV6: u8 = 58;
    const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    if next_header == ICMPV6 && frame.get(54) == Some(&NEIGHBOUR_ADVERTISEMENT) {
        let target = Ipv6Addr::from(bytes::<16>(frame, 62)?);
        return (target == virtual_address).then_some(OwnerFrame::Claim);
    }
    forwarded.then_some(OwnerFrame::Forwarded)
}

fn bytes<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

/// The question "who has the inside virtual address?", asked by `FIRST_ASKER + asker`.
pub(super) fn arp_question(mac: [u8; 6], asker: u8) -> [u8; 42] {
    let name = Ipv4Addr::from(u32::from(FIRST_ASKER) + u32::from(asker % ASKERS));
    let mut frame = [0; 42];
    frame[0..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ARP.to_be_bytes());
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&name.octets());
    frame[38..42].copy_from_slice(&VIP_INSIDE_V4.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// The answer that a kernel gives to the probe's question.
    fn answer_to(question: &[u8; 42], source: [u8; 6]) -> [u8; 42] {
        let mut frame = *question;
        frame[0..6].copy_from_slice(&question[22..28]);
        frame[6..12].copy_from_slice(&source);
        frame[21] = 2;
        frame[22..28].copy_from_slice(&source);
        frame[28..32].copy_from_slice(&question[38..42]);
        frame[32..42].copy_from_slice(&question[22..32]);
        frame
    }

    #[test]
    fn an_answer_names_its_question() {
        for asker in [0, 7, 31] {
            let frame = answer_to(&arp_question(MAC, asker), MAC);
            assert_eq!(judge(Side::Inside, &frame), Some(OwnerFrame::Answer(asker)));
            // The same words on the other LAN are nothing: that address is not virtual there.
            assert_eq!(judge(Side::Outside, &frame), None);
        }
    }

    #[test]
    fn a_gateways_own_question_is_no_claim_but_a_virtual_source_is() {
        let own = arp_question(MAC, 0);
        assert_eq!(judge(Side::Inside, &own), None);
        let virtual_mac = arp_question([0, 0, 0x5e, 0, 1, 11], 0);
        assert_eq!(
            judge(Side::Inside, &virtual_mac),
            Some(OwnerFrame::VirtualMac)
        );
    }

    #[test]
    fn short_frames_are_nothing() {
        let frame = answer_to(&arp_question(MAC, 3), MAC);
        for length in 0..41 {
            assert_eq!(judge(Side::Inside, &frame[..length]), None);
        }
    }
}
