//! TCP resets made by hand, as somebody sends them who does not see the connection.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A reset from `from` to `to` (IPv4) with the sequence number `sequence`, IP header included.
pub(crate) fn packet(from: SocketAddr, to: SocketAddr, sequence: u32) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        panic!("IPv4 only");
    };
    let mut tcp = Vec::new();
    tcp.extend_from_slice(&from.port().to_be_bytes());
    tcp.extend_from_slice(&to.port().to_be_bytes());
    tcp.extend_from_slice(&sequence.to_be_bytes());
    tcp.extend_from_slice(&[0; 4]);
    // Header of five words, RST; window, checksum, urgent pointer.
    tcp.extend_from_slice(&[5 << 4, 0x04, 0, 0, 0, 0, 0, 0]);
    let mut checked = Vec::new();
    checked.extend_from_slice(&source.octets());
    checked.extend_from_slice(&destination.octets());
    checked.extend_from_slice(&[0, 6, 0, 20]);
    checked.extend_from_slice(&tcp);
    tcp[16..18].copy_from_slice(&checksum(&checked).to_be_bytes());
    // The kernel fills in identification and header checksum.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&tcp);
    packet
}

/// Sends a packet with its own IP header, from the network namespace of the calling thread.
pub(crate) fn send(packet: &[u8], to: SocketAddr) {
    let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    raw.send_to(packet, &SockAddr::from(SocketAddr::new(to.ip(), 0)))
        .unwrap();
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
