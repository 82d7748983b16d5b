//! Protocols and attributes that need packets made by hand, or rules of their own: GRE, SCTP,
//! UDP-Lite, marks, labels, zones. Each is begun through the first gateway, copied, and goes on
//! through the second, which lets nothing begin in the middle.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vnfpool_conntrack::{
    Entry, EventSource, Layer4, ProtocolState, Scope, SctpInfo, Sink, Zone, ZoneDirection, protocol,
};

use crate::alike::{held, told};
use crate::reset::checksum;
use crate::takeover::{Lab, PATIENCE, drain, replicate};
use vnfpool_netns::set;

const RULES: &str = r#"
table inet gateway {
  counter invalid { }
  chain zones {
    type filter hook prerouting priority raw;
    iifname "in" udp dport 7011 ct zone set 7
    iifname "out" udp sport 7011 ct zone set 7
    iifname "in" udp dport 7012 ct original zone set 8
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter name invalid drop
    ct state established accept
    iifname "in" udp dport 7013 ct mark set 0x12345678 accept
    iifname "in" udp dport 7014 ct label set 5 accept
    iifname "in" sctp chunk init exists ct state new accept
    iifname "in" meta l4proto { udp, udplite, gre } ct state new accept
  }
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname "out" meta l4proto { udp, udplite, sctp } ip saddr 10.1.0.0/24 snat ip to 10.2.0.254:30000-40000
    oifname "out" ip saddr 10.1.0.0/24 snat ip to 10.2.0.254
  }
}
"#;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
const TRANSLATED: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 254);

/// The second gateway after a failover, and the table that it had then.
struct Copied {
    lab: Lab,
    table: Vec<Entry>,
}

impl Copied {
    /// Copies what `begin` makes at the first gateway of `lab` and fails over.
    fn new<T>(lab: Lab, begin: impl FnOnce(&Lab) -> T) -> (Self, T) {
        let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
        let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
        let traffic = begin(&lab);
        replicate(&drain(&mut source), &mut sink);
        let table = lab.table(1);
        let essence = |entry: &Entry| {
            let (key, reply, state) = (entry.key, entry.reply, entry.state);
            (key, reply, state, entry.mark, entry.labels)
        };
        let ours: Vec<_> = table.iter().map(essence).collect();
        let theirs: Vec<_> = lab.table(0).iter().map(essence).collect();
        assert_eq!(ours, theirs);
        let [active, standby] = &lab.gateways;
        assert_eq!(held(standby), told(active));
        lab.fail_over();
        (Self { lab, table }, traffic)
    }

    fn only_entry(&self) -> &Entry {
        let [entry] = &self.table[..] else {
            panic!("not one connection: {:?}", self.table);
        };
        entry
    }

    /// The connections of before were used: nothing was refused, nothing is new.
    fn assert_continued(&self) {
        assert_eq!(self.lab.invalid_packets(1), "0");
        let keys = |table: &[Entry]| table.iter().map(|entry| entry.key).collect::<Vec<_>>();
        assert_eq!(keys(&self.lab.table(1)), keys(&self.table));
    }
}

fn lab() -> Lab {
    Lab::with_rules([RULES; 2])
}

/// Both ends of a protocol that this machine has no sockets for.
struct RawPair {
    client: Socket,
    server: Socket,
}

impl RawPair {
    fn new(lab: &Lab, number: u8) -> Self {
        let open = |address: Ipv4Addr| {
            let protocol = Protocol::from(i32::from(number));
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).unwrap();
            socket
                .bind(&SockAddr::from(SocketAddr::from((address, 0))))
                .unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        Self {
            client: lab.client.enter(|| open(CLIENT)),
            server: lab.server.enter(|| open(SERVER)),
        }
    }

    fn to_server(&self, packet: &[u8]) -> Vec<u8> {
        send(&self.client, SERVER, packet);
        receive(&self.server, TRANSLATED)
    }

    fn to_client(&self, packet: &[u8]) -> Vec<u8> {
        send(&self.server, TRANSLATED, packet);
        receive(&self.client, SERVER)
    }
}

fn send(socket: &Socket, to: Ipv4Addr, packet: &[u8]) {
    let to = SockAddr::from(SocketAddr::from((to, 0)));
    socket.send_to(packet, &to).unwrap();
}

/// The next packet, which has to come from `from`, without its IP header.
fn receive(mut socket: &Socket, from: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; 1500];
    let length = socket.read(&mut packet).unwrap();
    packet.truncate(length);
    assert_eq!(packet[12..16], from.octets());
    packet.split_off(usize::from(packet[0] & 0xf) * 4)
}

#[test]
fn a_gre_tunnel_goes_on() {
    // No key and no checksum, the protocol of IPv4 in it. Translation drops less than 8 bytes.
    const GRE: [u8; 10] = [0, 0, 8, 0, 1, 2, 3, 4, 5, 6];
    let (copied, pair) = Copied::new(lab(), |lab| {
        let pair = RawPair::new(lab, protocol::GRE);
        assert_eq!(pair.to_server(&GRE), GRE);
        assert_eq!(pair.to_client(&GRE), GRE);
        pair
    });
    assert_eq!(copied.only_entry().reply.dst, IpAddr::from(TRANSLATED));
    // The server first: it could not begin.
    assert_eq!(pair.to_client(&GRE), GRE);
    assert_eq!(pair.to_server(&GRE), GRE);
    copied.assert_continued();
}

/// Verification tags that each end chose for what it receives.
const CLIENT_TAG: u32 = 0x0a0b_0c0d;
const SERVER_TAG: u32 = 0x0102_0304;

/// A packet with one chunk: SCTP's header with the tag of the receiver, then the chunk.
fn sctp([from, to]: [u16; 2], tag: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(from.to_be_bytes());
    packet.extend(to.to_be_bytes());
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    let length = u16::try_from(4 + body.len()).unwrap();
    packet.extend([kind, 3]);
    packet.extend(length.to_be_bytes());
    packet.extend(body);
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 * (sum & 1))
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

fn port_at(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

#[test]
fn an_sctp_association_goes_on_and_wrong_tags_are_refused() {
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    const COOKIE_ECHO: u8 = 10;
    const COOKIE_ACK: u8 = 11;
    const DATA: u8 = 0;
    let there = [5000, 5001];
    // Tag, window, streams out and in, first sequence number.
    let init = |tag: u32| {
        [
            &tag.to_be_bytes()[..],
            &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1],
        ]
        .concat()
    };
    let data = [&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0][..], b"data"].concat();
    let (copied, (pair, back)) = Copied::new(lab(), |lab| {
        let pair = RawPair::new(lab, protocol::SCTP);
        let came = pair.to_server(&sctp(there, 0, INIT, &init(CLIENT_TAG)));
        let port = port_at(&came, 0);
        assert!((30000..=40000).contains(&port), "not translated: {port}");
        let back = [5001, port];
        pair.to_client(&sctp(back, CLIENT_TAG, INIT_ACK, &init(SERVER_TAG)));
        pair.to_server(&sctp(there, SERVER_TAG, COOKIE_ECHO, b"cook"));
        pair.to_client(&sctp(back, CLIENT_TAG, COOKIE_ACK, b""));
        (pair, back)
    });
    let established = SctpInfo {
        state: 4,
        tags: [SERVER_TAG, CLIENT_TAG],
    };
    assert_eq!(copied.only_entry().state, ProtocolState::Sctp(established));

    pair.to_client(&sctp(back, CLIENT_TAG, DATA, &data));
    pair.to_server(&sctp(there, SERVER_TAG, DATA, &data));
    copied.assert_continued();
    let wrong = sctp(there, SERVER_TAG + 1, DATA, &data);
    send(&pair.client, SERVER, &wrong);
    let came = pair.to_server(&sctp(there, SERVER_TAG, DATA, &data));
    assert_eq!(came[4..8], SERVER_TAG.to_be_bytes());
    assert_eq!(copied.lab.invalid_packets(1), "1");
}

const UDPLITE: u8 = 136;

/// A UDP-Lite packet from `ends[0]` to `ends[1]`, its checksum over all of it.
fn udplite(ends: [(Ipv4Addr, u16); 2], data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(ends[0].1.to_be_bytes());
    packet.extend(ends[1].1.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(data);
    let length = u16::try_from(packet.len()).unwrap();
    let mut checked = [ends[0].0.octets(), ends[1].0.octets()].concat();
    checked.extend([0, UDPLITE]);
    checked.extend(length.to_be_bytes());
    checked.extend(&packet);
    packet[6..8].copy_from_slice(&checksum(&checked).to_be_bytes());
    packet
}

#[test]
fn udp_lite_goes_on() {
    let client = [(CLIENT, 6000), (SERVER, 6001)];
    let lab = lab();
    for gateway in &lab.gateways {
        // The kernel checks UDP-Lite's sum as if it were UDP's and finds each one wrong.
        gateway.enter(|| set("netfilter/nf_conntrack_checksum", "0"));
    }
    let (copied, (pair, server)) = Copied::new(lab, |lab| {
        let pair = RawPair::new(lab, UDPLITE);
        let came = pair.to_server(&udplite(client, b"data"));
        let server = [(SERVER, 6001), (TRANSLATED, port_at(&came, 0))];
        assert!((30000..=40000).contains(&server[1].1), "not translated");
        pair.to_client(&udplite(server, b"data"));
        (pair, server)
    });
    assert_eq!(copied.only_entry().key.original.protocol, UDPLITE);
    let came = pair.to_client(&udplite(server, b"back"));
    assert_eq!((port_at(&came, 2), &came[8..]), (6000, &b"back"[..]));
    pair.to_server(&udplite(client, b"more"));
    copied.assert_continued();
}

/// A UDP connection to the server's port `port`.
struct UdpPair {
    client: UdpSocket,
    server: UdpSocket,
}

impl UdpPair {
    fn start(lab: &Lab, port: u16) -> Self {
        let target = SocketAddr::from((SERVER, port));
        let server = lab.server.enter(|| UdpSocket::bind(target).unwrap());
        let client = lab
            .client
            .enter(|| UdpSocket::bind((CLIENT, port)).unwrap());
        client.connect(target).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        client.send(b"hello").unwrap();
        let (_, peer) = server.recv_from(&mut [0; 100]).unwrap();
        assert_eq!(peer.ip(), IpAddr::from(TRANSLATED));
        server.connect(peer).unwrap();
        let pair = Self { client, server };
        pair.exchange();
        pair
    }

    /// The server first.
    fn exchange(&self) {
        for (from, to) in [(&self.server, &self.client), (&self.client, &self.server)] {
            from.send(b"data").unwrap();
            assert_eq!(to.recv(&mut [0; 100]).unwrap(), 4);
        }
    }
}

#[test]
fn marks_labels_and_zones_stay_with_their_connections() {
    const PORTS: std::ops::RangeInclusive<u16> = 7011..=7014;
    let (copied, pairs) = Copied::new(lab(), |lab| {
        PORTS
            .map(|port| UdpPair::start(lab, port))
            .collect::<Vec<_>>()
    });
    assert_eq!(copied.table.len(), pairs.len());
    let entry = |port: u16| {
        let is_it = |entry: &&Entry| matches!(entry.key.original.layer4, Layer4::Ports { dst, .. } if dst == port);
        copied.table.iter().find(is_it).unwrap()
    };
    let zone = |id, direction| Zone { id, direction };
    assert_eq!(entry(7011).zone(), zone(7, ZoneDirection::Both));
    assert_eq!(entry(7012).zone(), zone(8, ZoneDirection::Original));
    assert_eq!(entry(7013).zone(), Zone::default());
    assert_eq!(entry(7013).mark, 0x1234_5678);
    let labels = entry(7014).labels.unwrap();
    assert_eq!(u128::from_ne_bytes(labels).count_ones(), 1, "{labels:?}");
    for pair in &pairs {
        pair.exchange();
    }
    copied.assert_continued();
}
