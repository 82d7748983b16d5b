//! What is read from a TCP packet over IPv4, and written into it.
//!
//! Every accessor is total: [`Packet::parse`] has checked that the headers are there.

use std::net::{Ipv4Addr, SocketAddrV4};

const TCP: u8 = 6;
const IP_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const IP_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// A TCP packet with its first fragment's headers.
#[derive(Debug)]
pub struct Packet<'p> {
    bytes: &'p mut [u8],
    tcp: usize,
}

impl<'p> Packet<'p> {
    /// The packet in `bytes`; none of anything else, of fragments, and of what is cut short.
    #[must_use]
    pub fn parse(bytes: &'p mut [u8]) -> Option<Self> {
        let tcp = usize::from(*bytes.first()? & 0x0f) * 4;
        let is_v4 = bytes[0] >> 4 == 4 && tcp >= IP_HEADER_BYTES;
        if !is_v4 || bytes.len() < tcp + TCP_HEADER_BYTES || bytes[9] != TCP {
            return None;
        }
        // Offset, or more to come. Paths within a pool do not fragment TCP.
        let fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff;
        (fragment == 0).then_some(Self { bytes, tcp })
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> SocketAddrV4 {
        self.address(12, 0)
    }

    /// Where it goes.
    #[must_use]
    pub fn destination(&self) -> SocketAddrV4 {
        self.address(16, 2)
    }

    /// Whether it opens a connection.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.bytes[self.tcp + 13] & (SYN | ACK) == SYN
    }

    /// Lets it come from somewhere else.
    pub fn set_source(&mut self, source: SocketAddrV4) {
        self.set(12, 0, source);
    }

    /// Lets it go somewhere else.
    pub fn set_destination(&mut self, destination: SocketAddrV4) {
        self.set(16, 2, destination);
    }

    fn address(&self, ip: usize, port: usize) -> SocketAddrV4 {
        let bytes = &self.bytes;
        let address = Ipv4Addr::new(bytes[ip], bytes[ip + 1], bytes[ip + 2], bytes[ip + 3]);
        let port = self.tcp + port;
        SocketAddrV4::new(address, u16::from_be_bytes([bytes[port], bytes[port + 1]]))
    }

    fn set(&mut self, ip: usize, port: usize, to: SocketAddrV4) {
        let address = to.ip().octets();
        let [a, b, c, d] = address;
        for (at, new) in [(ip, [a, b]), (ip + 2, [c, d])] {
            let old = [self.bytes[at], self.bytes[at + 1]];
            self.bytes[at..at + 2].copy_from_slice(&new);
            self.mend(IP_CHECKSUM, old, new);
            // The addresses are part of what TCP's checksum is over (RFC 9293 section 3.1).
            self.mend(self.tcp + TCP_CHECKSUM, old, new);
        }
        let at = self.tcp + port;
        let (old, new) = (
            [self.bytes[at], self.bytes[at + 1]],
            to.port().to_be_bytes(),
        );
        self.bytes[at..at + 2].copy_from_slice(&new);
        self.mend(self.tcp + TCP_CHECKSUM, old, new);
    }

    /// Takes a changed word into a checksum: RFC 1624, equation 3.
    fn mend(&mut self, at: usize, old: [u8; 2], new: [u8; 2]) {
        let word = |bytes: [u8; 2]| u32::from(u16::from_be_bytes(bytes));
        let checksum = word([self.bytes[at], self.bytes[at + 1]]);
        let mut sum = (!checksum & 0xffff) + (!word(old) & 0xffff) + word(new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        // Below 2^16 after two folds.
        let mended = !u16::try_from(sum).unwrap_or_default();
        self.bytes[at..at + 2].copy_from_slice(&mended.to_be_bytes());
    }
}

/// Packets for tests, with true checksums.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A TCP packet with `payload`.
    pub(crate) fn tcp(from: SocketAddrV4, to: SocketAddrV4, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = IP_HEADER_BYTES + TCP_HEADER_BYTES + payload.len();
        let mut bytes = vec![0; length];
        (bytes[0], bytes[8], bytes[9]) = (0x45, 64, TCP);
        bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        bytes[12..16].copy_from_slice(&from.ip().octets());
        bytes[16..20].copy_from_slice(&to.ip().octets());
        bytes[20..22].copy_from_slice(&from.port().to_be_bytes());
        bytes[22..24].copy_from_slice(&to.port().to_be_bytes());
        (bytes[32], bytes[33]) = (0x50, flags);
        bytes[40..].copy_from_slice(payload);
        let (ip, tcp) = checksums(&bytes);
        bytes[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&ip.to_be_bytes());
        bytes[36..38].copy_from_slice(&tcp.to_be_bytes());
        bytes
    }

    /// Both checksums as they should be, made from nothing (RFC 1071).
    pub(crate) fn checksums(bytes: &[u8]) -> (u16, u16) {
        let mut ip = bytes[..IP_HEADER_BYTES].to_vec();
        ip[IP_CHECKSUM..IP_CHECKSUM + 2].fill(0);
        let mut tcp = bytes[IP_HEADER_BYTES..].to_vec();
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        let length = u16::try_from(tcp.len()).unwrap();
        let mut over = bytes[12..20].to_vec();
        over.extend([0, TCP]);
        over.extend(length.to_be_bytes());
        over.extend(tcp);
        (sum(&ip), sum(&over))
    }

    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::testing::{checksums, tcp};
    use super::*;

    fn any_address() -> impl Strategy<Value = SocketAddrV4> {
        (any::<u32>(), any::<u16>()).prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port))
    }

    proptest! {
        /// Goal: checksums that are mended are those that one would calculate. (Zero and all ones are the
        /// same number in them; RFC 1624 gives the one that a receiver takes.)
        #[test]
        fn mended_checksums_are_right(
            from in any_address(),
            to in any_address(),
            new_from in any_address(),
            new_to in any_address(),
            payload in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = tcp(from, to, ACK, &payload);
            let mut packet = Packet::parse(&mut bytes).unwrap();
            prop_assert_eq!((packet.source(), packet.destination()), (from, to));
            packet.set_source(new_from);
            packet.set_destination(new_to);
            prop_assert_eq!((packet.source(), packet.destination()), (new_from, new_to));
            let (ip, tcp) = checksums(&bytes);
            prop_assert_eq!([bytes[10], bytes[11]], ip.to_be_bytes());
            prop_assert_eq!([bytes[36], bytes[37]], tcp.to_be_bytes());
        }

        #[test]
        fn any_bytes_are_a_packet_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(mut packet) = Packet::parse(&mut bytes) {
                let to = packet.source();
                packet.set_destination(to);
                let _ = packet.is_first();
            }
        }
    }

    #[test]
    fn fragments_and_other_protocols_are_none() {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let mut good = tcp(any, any, SYN, b"");
        assert!(Packet::parse(&mut good.clone()).unwrap().is_first());
        for (at, value) in [(9, 17), (6, 0x20), (7, 1), (0, 0x44), (0, 0x65), (0, 0x4f)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Packet::parse(&mut bad).is_none(), "byte {at} = {value}");
        }
        assert!(Packet::parse(&mut good[..39]).is_none());
    }
}
