//! The map that the agent keeps in the operator's ruleset, and what the kernel makes of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use socket2::{Domain, Protocol, Socket, Type};
use vnfpool_linux::health::TableFamily;
use vnfpool_linux::nat_map::{NatMapError, VerdictMap, generation};

use crate::netns::{self, Lab, capture};

/// Ports in a block of the ruleset below.
const BLOCK: u16 = 200;

/// Four blocks: 2000 to 2199 is block 0, and so on.
fn ruleset() -> String {
    let chains = (0..4).map(|block| {
        let range = range(block);
        let (from, to) = (range.start(), range.end());
        format!(
            "chain vnfpool_main_{block} {{
                meta l4proto {{ tcp, udp, icmp }} snat ip to {v4}:{from}-{to}
                meta l4proto {{ tcp, udp, ipv6-icmp }} snat ip6 to [{v6}]:{from}-{to}
            }}\n",
            v4 = netns::OUTSIDE_V4,
            v6 = netns::OUTSIDE_V6,
        )
    });
    format!(
        "table inet gateway {{
            map vnfpool_main {{ type nf_proto : verdict; }}
            {}
            chain translate {{
                type nat hook postrouting priority srcnat
                oifname out meta nfproto vmap @vnfpool_main
                oifname out drop
            }}
        }}\n",
        chains.collect::<String>()
    )
}

fn range(block: u16) -> std::ops::RangeInclusive<u16> {
    let first = 2000 + block * BLOCK;
    first..=first + BLOCK - 1
}

fn nft(lab: &Lab, node: &str, text: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", &lab.namespace(node), "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
}

fn map() -> VerdictMap {
    VerdictMap {
        family: TableFamily::Inet,
        table: "gateway".to_owned(),
        name: "vnfpool_main".to_owned(),
    }
}

/// Goal: a verdict is written whole or not at all, is read back, and says what is wrong when it
/// cannot be. Method: right and wrong chains, maps of other kinds, a ruleset that is loaded anew.
#[test]
fn a_verdict_is_written_whole_or_not_at_all() {
    let lab = Lab::new(1);
    let within = |body: &(dyn Fn() + Sync)| lab.within("gw1", body);
    within(&|| {
        let missing = map().goes_to().unwrap_err();
        assert!(matches!(missing, NatMapError::Missing { .. }), "{missing}");
        assert!(map().go_to("vnfpool_main_0").is_err());
    });
    nft(&lab, "gw1", &ruleset());
    within(&|| {
        assert_eq!(map().goes_to().unwrap(), None, "it is empty");
        let mut last = generation().unwrap();
        for block in [0, 3, 3] {
            let chain = format!("vnfpool_main_{block}");
            map().go_to(&chain).unwrap();
            assert_eq!(map().goes_to().unwrap(), Some(chain));
            let now = generation().unwrap();
            assert_ne!(std::mem::replace(&mut last, now), now);
        }
        let refused = map().go_to("vnfpool_main_9").unwrap_err();
        assert!(matches!(refused, NatMapError::Refused { .. }), "{refused}");
        let kept = map().goes_to().unwrap();
        assert_eq!(kept.as_deref(), Some("vnfpool_main_3"), "as it was");
        assert_eq!(generation().unwrap(), last);
    });
    // What somebody else may have put there.
    for elements in [
        "ipv4 : goto vnfpool_main_1",
        "ipv4 : goto vnfpool_main_1, ipv6 : goto vnfpool_main_2",
        "ipv4 : jump vnfpool_main_1, ipv6 : jump vnfpool_main_1",
        "ipv4 : drop, ipv6 : drop",
    ] {
        let text = format!(
            "flush map inet gateway vnfpool_main
             add element inet gateway vnfpool_main {{ {elements} }}\n"
        );
        nft(&lab, "gw1", &text);
        within(&|| {
            assert_eq!(map().goes_to().unwrap(), None, "{elements}");
            map().go_to("vnfpool_main_1").unwrap();
            let now = map().goes_to().unwrap();
            assert_eq!(now.as_deref(), Some("vnfpool_main_1"));
        });
    }
    nft(
        &lab,
        "gw1",
        "delete table inet gateway
         table inet gateway {
            map vnfpool_main { type ipv4_addr : verdict; }
            chain vnfpool_main_0 { }
         }\n",
    );
    within(&|| {
        let refused = map().go_to("vnfpool_main_0").unwrap_err();
        assert!(refused.to_string().contains("type nf_proto : verdict"));
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Udp,
    Udp6,
    Tcp,
    Ping,
    Ping6,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Udp, Self::Udp6, Self::Tcp, Self::Ping, Self::Ping6];

    /// Begins a flow of the client from a port or with an identifier; what carries it has to live
    /// as long as it shall.
    fn begin(self, from: u16) -> Socket {
        let (v4, v6) = (netns::CLIENT_V4, netns::CLIENT_V6);
        let (client, server) = match self {
            Self::Udp | Self::Tcp | Self::Ping => (v4, netns::SERVER_V4),
            Self::Udp6 | Self::Ping6 => (v6, netns::SERVER_V6),
        };
        let client: IpAddr = client.parse().unwrap();
        let domain = Domain::for_address(SocketAddr::new(client, 0));
        let (kind, protocol) = match self {
            Self::Udp | Self::Udp6 => (Type::DGRAM, Protocol::UDP),
            Self::Tcp => (Type::STREAM, Protocol::TCP),
            Self::Ping => (Type::RAW, Protocol::ICMPV4),
            Self::Ping6 => (Type::RAW, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, kind, Some(protocol)).unwrap();
        let server: IpAddr = server.parse().unwrap();
        let port = |port| match kind {
            Type::RAW => 0,
            _ => port,
        };
        socket
            .bind(&SocketAddr::new(client, port(from)).into())
            .unwrap();
        socket.set_nonblocking(true).unwrap();
        let connected = socket.connect(&SocketAddr::new(server, port(9)).into());
        match self {
            // The first segment is on its way.
            Self::Tcp => assert_eq!(
                connected.unwrap_err().raw_os_error(),
                Some(rustix::io::Errno::INPROGRESS.raw_os_error())
            ),
            _ => connected.unwrap(),
        }
        let id = from.to_be_bytes();
        let sent = match self {
            Self::Udp | Self::Udp6 => socket.send(&id),
            Self::Tcp => Ok(0),
            Self::Ping => {
                // The checksum of: echo request, the identifier, sequence number 0, the identifier.
                let sum = 0x0800 + u32::from(from) * 2;
                let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
                let [a, b] = sum.to_be_bytes();
                socket.send(&[8, 0, a, b, id[0], id[1], 0, 0, id[0], id[1]])
            }
            // The kernel adds the checksum.
            Self::Ping6 => socket.send(&[128, 0, 0, 0, id[0], id[1], 0, 0, id[0], id[1]]),
        };
        sent.unwrap();
        socket
    }
}

/// A flow as the server sees it: its port or identifier after translation, and what says which
/// flow it was.
fn seen(frame: &[u8]) -> Option<(Kind, u16, u64)> {
    let u16_at = |at: usize| {
        frame
            .get(at..)?
            .first_chunk()
            .map(|c| u16::from_be_bytes(*c))
    };
    let is_v6 = match u16_at(12)? {
        0x0800 => false,
        0x86dd => true,
        _ => return None,
    };
    let (protocol, start) = match is_v6 {
        false => (*frame.get(23)?, 14 + usize::from(frame.get(14)? & 15) * 4),
        true => (*frame.get(20)?, 54),
    };
    let (kind, port, flow) = match (is_v6, protocol, frame.get(start)?) {
        (false, 17, _) => (Kind::Udp, start, start + 8),
        (true, 17, _) => (Kind::Udp6, start, start + 8),
        // The initial sequence number, which no two connections here share.
        (false, 6, _) if frame.get(start + 13)? & 0x12 == 2 => {
            let sequence = frame.get(start + 4..)?.first_chunk()?;
            let sequence = u32::from_be_bytes(*sequence);
            return Some((Kind::Tcp, u16_at(start)?, sequence.into()));
        }
        (false, 1, 8) => (Kind::Ping, start + 4, start + 8),
        (true, 58, 128) => (Kind::Ping6, start + 4, start + 8),
        _ => return None,
    };
    Some((kind, u16_at(port)?, u16_at(flow)?.into()))
}

/// What the server saw of a block's flows: the flow of every port. A port of two flows fails.
fn ports(frames: &[Vec<u8>]) -> BTreeMap<(Kind, u16), u64> {
    let mut ports = BTreeMap::new();
    for (kind, port, flow) in frames.iter().filter_map(|frame| seen(frame)) {
        let known = *ports.entry((kind, port)).or_insert(flow);
        assert_eq!(known, flow, "{kind:?}: two flows from port {port}");
    }
    ports
}

/// Routes the client through a gateway. Everybody knows the next one: what waits for an address
/// may be dropped.
fn route_through(lab: &Lab, gateway: u8) {
    let node = format!("gw{gateway}");
    for (subnet, server) in [
        ("10.2.0.0/24", netns::SERVER_V4),
        ("fd00:2::/64", netns::SERVER_V6),
    ] {
        let via = match server.contains(':') {
            true => format!("fd00:1::{gateway}"),
            false => format!("10.1.0.{gateway}"),
        };
        lab.ip("client", &format!("route replace {subnet} via {via}"));
        let mac = lab.mac(&node, "in");
        lab.ip(
            "client",
            &format!("neigh replace {via} lladdr {mac} dev in"),
        );
        let mac = lab.mac("server", "out");
        lab.ip(
            &node,
            &format!("neigh replace {server} lladdr {mac} dev out"),
        );
    }
}

/// Begins `count` flows of every kind from the ports from 2000 on, and returns what the server
/// saw of them.
fn burst(lab: &Lab, count: u16) -> BTreeMap<(Kind, u16), u64> {
    let capture = capture(lab, "server");
    let sockets: Vec<_> = lab.within("client", || {
        let flows = Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..count).map(move |i| (kind, i)));
        flows
            .map(|(kind, i)| {
                let socket = kind.begin(2000 + i);
                // The capture's queue does not hold all of them.
                if i % 16 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                socket
            })
            .collect()
    });
    // So that what was sent last has arrived.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let frames = capture.finish();
    drop(sockets);
    ports(&frames)
}

/// Two gateways that know nothing of each other, with blocks of two owners.
fn gateways_apart() -> Lab {
    let lab = Lab::new(2);
    for (node, block) in [("gw1", 0), ("gw2", 2)] {
        nft(&lab, node, &ruleset());
        lab.within(node, || {
            map().go_to(&format!("vnfpool_main_{block}")).unwrap();
        });
    }
    lab
}

/// Goal: two gateways without replication hand out no port and no ICMP identifier twice, when
/// their blocks are 95 % full and when they are full; what finds no room leaves with no port at
/// all, neither another's nor one of another block. Method: more flows than a block has ports
/// through both gateways, one after the other, from the same client ports; each says who it is.
#[test]
fn gateways_that_are_apart_hand_out_no_port_twice() {
    let lab = gateways_apart();
    let full = usize::from(BLOCK);
    let mut all = BTreeMap::new();
    for (gateway, block) in [(1, 0), (2, 2)] {
        route_through(&lab, gateway);
        let found = burst(&lab, BLOCK + 40);
        for kind in Kind::ALL {
            let of_kind = found.keys().filter(|(k, _)| *k == kind).count();
            // The kernel does not look at every port for a free one.
            let enough = full * 95 / 100..=full;
            assert!(
                enough.contains(&of_kind),
                "{kind:?} through {gateway}: {of_kind}"
            );
        }
        for (key, flow) in found {
            assert!(
                range(block).contains(&key.1),
                "{key:?} is not of block {block}"
            );
            assert_eq!(all.insert(key, flow), None, "{key:?} through both gateways");
        }
    }
}

/// Goal: the next block takes new flows at once, and flows that were there keep their ports.
/// Method: the verdict changes between two bursts, of which the second repeats the first.
#[test]
fn the_next_block_is_for_new_flows() {
    let lab = gateways_apart();
    route_through(&lab, 2);
    let kept = burst(&lab, 20);
    lab.within("gw2", || map().go_to("vnfpool_main_3").unwrap());
    let found = burst(&lab, 40);
    for ((kind, port), flow) in found {
        let is_kept = kept.contains_key(&(kind, port));
        assert!(is_kept || range(3).contains(&port), "{kind:?} {port}");
        // A new connection of the same client port is a flow that was not there.
        if kind != Kind::Tcp {
            assert_eq!(is_kept, flow < 2020, "{kind:?} {port}");
        }
    }
}
