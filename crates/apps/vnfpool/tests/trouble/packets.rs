//! Random bytes that can be had again, and packets as they were on the wire.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};

use crate::daemon::LIMIT;
use crate::site::Site;

/// A sequence that is the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(vnfpool_random::Random);

impl Random {
    /// A new seed, which a failing test shows; `VNFPOOL_TEST_SEED` sets it.
    pub(crate) fn seeded() -> Self {
        let chosen = std::env::var("VNFPOOL_TEST_SEED").ok();
        let seed = chosen.map_or_else(
            || {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::from(since.subsec_nanos()) | since.as_secs() << 32
            },
            |seed| seed.parse().unwrap(),
        );
        println!("again with VNFPOOL_TEST_SEED={seed}");
        Self(vnfpool_random::Random::new(seed))
    }

    /// From 0 to `end`, `end` excluded.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0.index(end)
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = 1 + self.below(length_max);
        (0..length)
            .map(|_| self.0.next().to_le_bytes()[0])
            .collect()
    }

    /// `original` damaged: cut off, longer, with some bits turned; or something else altogether.
    pub(crate) fn spoil(&mut self, original: &[u8]) -> Vec<u8> {
        let mut bytes = original.to_vec();
        match self.below(4) {
            0 => bytes.truncate(self.below(original.len().max(1))),
            1 => bytes.extend(self.bytes(64)),
            2 if !bytes.is_empty() => {
                for _ in 0..=self.below(8) {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                // Turned and turned back is not damaged.
                if bytes == original {
                    bytes[0] ^= 1;
                }
            }
            _ => bytes = self.bytes(1_400),
        }
        bytes
    }
}

/// A UDP packet over IPv4 as it was on the wire.
#[derive(Debug, Clone)]
pub(crate) struct Packet(Vec<u8>);

impl Packet {
    fn received(bytes: &[u8]) -> Self {
        let mut packet = Self(bytes.to_vec());
        // On a virtual wire nobody fills the checksum in, and on the way back nobody would either;
        // zero is none (RFC 768).
        let checksum = packet.header_bytes() + 6;
        packet.0[checksum..checksum + 2].fill(0);
        packet
    }

    fn header_bytes(&self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    pub(crate) fn port(&self) -> u16 {
        let udp = &self.0[self.header_bytes()..];
        u16::from_be_bytes([udp[2], udp[3]])
    }

    fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// What the datagram says.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[self.header_bytes() + 8..]
    }
}

fn raw_socket() -> std::io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))
}

/// The next `count` UDP packets that come to a host at an address and port.
pub(crate) fn capture(
    site: &Site,
    host: &str,
    (to, port): (Ipv4Addr, u16),
    count: usize,
) -> Vec<Packet> {
    let listen = || {
        let mut socket = raw_socket()?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut packets = Vec::new();
        let mut buffer = [0; 2_048];
        let give_up = Instant::now() + LIMIT;
        while packets.len() < count {
            assert!(Instant::now() < give_up, "no packets to {to}:{port}");
            let length = match socket.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let packet = Packet::received(&buffer[..length]);
            // On a virtual wire several may come as one that fits nowhere else.
            let is_single = length <= 1_500;
            if is_single && packet.port() == port && packet.destination() == to {
                packets.push(packet);
            }
        }
        Ok(packets)
    };
    site.lab.namespace(host).unwrap().run(listen).unwrap()
}

/// Sends packets again as they were, from a host, at most a few at once.
pub(crate) fn send_again(site: &Site, host: &str, packets: &[Packet]) {
    let send = || {
        let socket = raw_socket()?;
        socket.set_header_included_v4(true)?;
        for (number, packet) in packets.iter().enumerate() {
            let to = SocketAddrV4::new(packet.destination(), 0);
            socket.send_to(&packet.0, &to.into())?;
            breathe(number);
        }
        Ok(())
    };
    site.lab.namespace(host).unwrap().run(send).unwrap();
}

/// After some packets, time for the receiver: what its buffer cannot hold is not tried.
pub(crate) fn breathe(number: usize) {
    if number % 16 == 15 {
        std::thread::sleep(Duration::from_millis(2));
    }
}
