//! Real connections through a gateway that is replaced by another: client – gateways – server,
//! source and destination translation, strict tracking, IPv4 and IPv6.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vnfpool_conntrack::{
    Entry, Event, EventSource, Family, ProtocolState, ReadOutcome, Scope, Settled, Sink, Status,
    codec, dump_all, enable_events, settle,
};

use crate::reset;
use vnfpool_netns::{Namespace, set};

/// Long enough for retransmissions on a busy machine; only failures wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const RULES: &str = r#"
table inet gateway {
  counter invalid { }
  chain input {
    type filter hook input priority 0; policy accept;
    ct state invalid counter name invalid drop
    iifname "out" meta l4proto { tcp, udp } ct state new drop
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter name invalid drop
    ct state established,related accept
    iifname "in" tcp flags & (fin|syn|rst|ack) == syn ct state new accept
    iifname "in" meta l4proto { udp, icmp, ipv6-icmp } ct state new accept
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    iifname "in" ip daddr 10.1.0.254 tcp dport 7000 dnat ip to 10.2.0.10:7001
    iifname "in" ip6 daddr fd00:1::fe tcp dport 7000 dnat ip6 to [fd00:2::a]:7001
  }
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname "out" meta l4proto { tcp, udp } ip saddr 10.1.0.0/24 snat ip to 10.2.0.254:30000-40000
    oifname "out" meta l4proto { tcp, udp } ip6 saddr fd00:1::/64 snat ip6 to [fd00:2::fe]:30000-40000
    oifname "out" ip saddr 10.1.0.0/24 snat ip to 10.2.0.254
    oifname "out" ip6 saddr fd00:1::/64 snat ip6 to fd00:2::fe
  }
}
"#;

pub(crate) struct Lab {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    pub(crate) gateways: [Namespace; 2],
    _switch: Namespace,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with_rules([RULES; 2])
    }

    /// A laboratory whose gateways have the rulesets `rules`.
    pub(crate) fn with_rules(rules: [&str; 2]) -> Self {
        let switch = Namespace::new("sw");
        switch.ip("link add br-in type bridge");
        switch.ip("link add br-out type bridge");
        switch.ip("link set br-in up");
        switch.ip("link set br-out up");
        let host = |role: &str, lan: &str, v4: &str, v6: &str, via: Option<(&str, &str)>| {
            let host = Namespace::new(role);
            plug(&switch, &host, lan, role);
            host.ip(&format!("addr add {v4}/24 dev {lan}"));
            host.ip(&format!("addr add {v6}/64 dev {lan}"));
            if let Some((via4, via6)) = via {
                host.ip(&format!("route add default via {via4}"));
                host.ip(&format!("-6 route add default via {via6}"));
            }
            host
        };
        let via = Some(("10.1.0.254", "fd00:1::fe"));
        let client = host("c", "in", "10.1.0.10", "fd00:1::a", via);
        let server = host("s", "out", "10.2.0.10", "fd00:2::a", None);
        client.enter(|| set("ipv4/ping_group_range", "0 2147483647"));
        let gateways = [1, 2].map(|number| {
            let role = format!("g{number}");
            let gateway = host(
                &role,
                "in",
                &format!("10.1.0.{number}"),
                &format!("fd00:1::{number}"),
                None,
            );
            plug(&switch, &gateway, "out", &role);
            gateway.ip(&format!("addr add 10.2.0.{number}/24 dev out"));
            gateway.ip(&format!("addr add fd00:2::{number}/64 dev out"));
            gateway.enter(|| {
                set("ipv4/ip_forward", "1");
                set("ipv6/conf/all/forwarding", "1");
            });
            gateway.run("nft", "-f -", rules[number - 1]);
            gateway.enter(|| enable_events().unwrap());
            gateway
        });
        let lab = Self {
            client,
            server,
            gateways,
            _switch: switch,
        };
        lab.activate(0);
        lab
    }

    fn activate(&self, gateway: usize) {
        for (address, lan) in VIRTUAL_ADDRESSES {
            self.gateways[gateway].ip(&format!("addr add {address} dev {lan} nodad"));
        }
        for host in [&self.client, &self.server] {
            host.ip("neigh flush all");
            host.ip("-6 neigh flush all");
        }
    }

    /// The first gateway falls silent, the second takes its addresses.
    pub(crate) fn fail_over(&self) {
        for lan in ["in", "out"] {
            self.gateways[0].ip(&format!("link set {lan} down"));
        }
        self.activate(1);
    }

    pub(crate) fn table(&self, gateway: usize) -> Vec<Entry> {
        let mut table = self.gateways[gateway].enter(|| dump_all(Family::All).unwrap());
        let scope = scope(gateway);
        table.retain(|entry| scope.covers(entry));
        table.sort_by_key(|entry| entry.key);
        table
    }

    /// `conntrack -L -o extended` without what differs by nature: timeouts and use counts.
    fn listing(&self, gateway: usize) -> Vec<String> {
        let number = gateway + 1;
        let mut lines = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let text =
                self.gateways[gateway].run("conntrack", &format!("-L -o extended -f {family}"), "");
            for line in text.lines() {
                let own = [
                    format!("src=10.1.0.{number} "),
                    format!("src=10.2.0.{number} "),
                    format!("src=fd00:1::{number} "),
                    format!("src=fd00:2::{number} "),
                    "src=fe80:".to_owned(),
                ];
                if own.iter().any(|own| line.contains(own)) {
                    continue;
                }
                let words = line
                    .split_whitespace()
                    .enumerate()
                    .filter(|(at, word)| *at != 4 && !word.starts_with("use="));
                lines.push(words.map(|(_, word)| word).collect::<Vec<_>>().join(" "));
            }
        }
        lines.sort();
        lines
    }

    pub(crate) fn invalid_packets(&self, gateway: usize) -> String {
        let text = self.gateways[gateway].run("nft", "list counter inet gateway invalid", "");
        text.split_whitespace()
            .skip_while(|word| *word != "packets")
            .nth(1)
            .unwrap()
            .to_owned()
    }
}

const VIRTUAL_ADDRESSES: [(&str, &str); 4] = [
    ("10.1.0.254/24", "in"),
    ("10.2.0.254/24", "out"),
    ("fd00:1::fe/64", "in"),
    ("fd00:2::fe/64", "out"),
];

pub(crate) fn scope(gateway: usize) -> Scope {
    let number = gateway + 1;
    let own = [
        format!("10.1.0.{number}"),
        format!("10.2.0.{number}"),
        format!("fd00:1::{number}"),
        format!("fd00:2::{number}"),
    ];
    Scope::new(own.map(|address| address.parse().unwrap()))
}

fn plug(switch: &Namespace, host: &Namespace, lan: &str, role: &str) {
    let port = format!("{lan}-{role}");
    host.connect(lan, switch, &port);
    switch.ip(&format!("link set {port} master br-{lan}"));
}

/// What goes through the gateways.
pub(crate) struct Traffic {
    pub(crate) tcp: Vec<(TcpStream, TcpStream)>,
    udp: Vec<(UdpSocket, UdpSocket)>,
    echo: Vec<Socket>,
}

impl Traffic {
    pub(crate) fn start(lab: &Lab) -> Self {
        let tcp = [
            ("10.2.0.10:7001", "10.2.0.10:7001"),
            ("[fd00:2::a]:7001", "[fd00:2::a]:7001"),
            ("10.1.0.254:7000", "10.2.0.10:7001"),
            ("[fd00:1::fe]:7000", "[fd00:2::a]:7001"),
        ];
        let udp = ["10.2.0.10:7002", "[fd00:2::a]:7002"];
        let echo = ["10.2.0.10:0", "[fd00:2::a]:0"];
        let mut traffic = Self {
            tcp: tcp
                .iter()
                // Twice: one where the client talks first after the failover, one the server.
                .flat_map(|pair| [pair, pair])
                .map(|(target, listen)| tcp_pair(lab, target, listen))
                .collect(),
            udp: udp.iter().map(|target| udp_pair(lab, target)).collect(),
            echo: echo.iter().map(|target| echo_socket(lab, target)).collect(),
        };
        traffic.exchange(b"before");
        traffic.ping(1);
        traffic
    }

    /// Data in both directions on every connection: on even ones the client begins, on odd ones
    /// the server.
    pub(crate) fn exchange(&mut self, data: &[u8]) {
        for (number, (client, server)) in self.tcp.iter_mut().enumerate() {
            let (first, second) = if number % 2 == 0 {
                (client, server)
            } else {
                (server, client)
            };
            pass_on(number, first, second, data);
            pass_on(number, second, first, data);
        }
        for (client, server) in &self.udp {
            let mut read = [0; 100];
            server.send(data).unwrap();
            let length = client.recv(&mut read).unwrap();
            assert_eq!(&read[..length], data);
            client.send(data).unwrap();
            let length = server.recv(&mut read).unwrap();
            assert_eq!(&read[..length], data);
        }
    }

    /// Far more than a window without scaling, so that a gateway that forgot the scale drops it.
    pub(crate) fn bulk(&mut self) {
        const BYTES: usize = 16 << 20;
        for (number, (client, server)) in self.tcp.iter_mut().enumerate() {
            let (from, to) = if number % 2 == 0 {
                (client, server)
            } else {
                (server, client)
            };
            std::thread::scope(|scope| {
                let sender = scope.spawn(|| from.write_all(&vec![7; BYTES]));
                let mut read = vec![0; BYTES];
                to.read_exact(&mut read)
                    .unwrap_or_else(|error| panic!("bulk on TCP connection {number}: {error}"));
                sender.join().unwrap().unwrap();
                assert!(read.iter().all(|byte| *byte == 7));
            });
        }
    }

    pub(crate) fn ping(&self, sequence: u8) {
        for socket in &self.echo {
            let v4 = socket.domain().unwrap() == Domain::IPV4;
            // Type, code, checksum and identifier (both filled in by the kernel), sequence.
            let request = [if v4 { 8 } else { 128 }, 0, 0, 0, 0, 0, 0, sequence];
            socket.send(&request).unwrap();
            let mut answer = [0; 100];
            let length = (&*socket).read(&mut answer).unwrap();
            assert_eq!((length, answer[7]), (8, sequence));
        }
    }
}

pub(crate) fn pass_on(number: usize, from: &mut TcpStream, to: &mut TcpStream, data: &[u8]) {
    from.write_all(data).unwrap();
    let mut read = vec![0; data.len()];
    to.read_exact(&mut read)
        .unwrap_or_else(|error| panic!("TCP connection {number}: {error}"));
    assert_eq!(read, data);
}

fn tcp_pair(lab: &Lab, target: &str, listen: &str) -> (TcpStream, TcpStream) {
    let listener = lab.server.enter(|| TcpListener::bind(listen).unwrap());
    let target: SocketAddr = target.parse().unwrap();
    let client = lab
        .client
        .enter(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    let (server, peer) = listener.accept().unwrap();
    assert!(
        (30000..=40000).contains(&peer.port()),
        "not translated: {peer}"
    );
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

fn udp_pair(lab: &Lab, target: &str) -> (UdpSocket, UdpSocket) {
    let target: SocketAddr = target.parse().unwrap();
    let server = lab.server.enter(|| UdpSocket::bind(target).unwrap());
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = lab.client.enter(|| UdpSocket::bind(any).unwrap());
    client.connect(target).unwrap();
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.send(b"hello").unwrap();
    let (_, peer) = server.recv_from(&mut [0; 100]).unwrap();
    server.connect(peer).unwrap();
    (client, server)
}

fn echo_socket(lab: &Lab, target: &str) -> Socket {
    let target: SocketAddr = target.parse().unwrap();
    let (domain, protocol) = if target.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4)
    } else {
        (Domain::IPV6, Protocol::ICMPV6)
    };
    lab.client.enter(|| {
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
        socket.connect(&SockAddr::from(target)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    })
}

/// Brings what the events say to the other kernel, through the bytes of the stream.
pub(crate) fn replicate(events: &[Event], sink: &mut Sink) {
    let scope = scope(0);
    for event in events {
        let mut bytes = BytesMut::new();
        match event {
            Event::New(entry) | Event::Update(entry) if scope.covers(entry) => {
                let item = codec::item(entry, &mut bytes);
                sink.put(&item, matches!(event, Event::New(_))).unwrap();
            }
            Event::Destroy(key) => {
                codec::encode_key(key, &mut bytes);
                sink.delete(&bytes).unwrap();
            }
            Event::New(_) | Event::Update(_) => {}
        }
    }
    flush(sink);
}

fn flush(sink: &mut Sink) {
    sink.flush().unwrap();
    let failures = sink.take_failures();
    assert!(failures.is_empty(), "{failures:?}");
}

pub(crate) fn drain(source: &mut EventSource) -> Vec<Event> {
    let mut events = Vec::new();
    while source.read(&mut events).unwrap() != ReadOutcome::Drained {}
    assert_eq!(source.malformed(), 0);
    events
}

/// The tables of both gateways agree in everything that a failover needs.
fn assert_tables_agree(lab: &Lab) {
    const BITS: u32 = Status::ASSURED
        | Status::SEEN_REPLY
        | Status::CONFIRMED
        | Status::SRC_NAT
        | Status::DST_NAT;
    let tables = [lab.table(0), lab.table(1)];
    let essence = |entry: &Entry| {
        let (key, reply, state) = (entry.key, entry.reply, learnt(entry.state));
        (key, reply, state, entry.status.0 & BITS, entry.mark)
    };
    let [active, standby] = tables
        .each_ref()
        .map(|table| table.iter().map(essence).collect::<Vec<_>>());
    assert_eq!(active, standby);
    for entry in &tables[1] {
        assert!(entry.timeout_s >= 50, "{entry:?}");
    }
    assert_eq!(lab.listing(0), lab.listing(1));
}

/// Without the lenience towards connections whose packets a gateway has not seen.
fn learnt(state: ProtocolState) -> ProtocolState {
    match state {
        ProtocolState::Tcp(tcp) => ProtocolState::Tcp(tcp.learnt()),
        other => other,
    }
}

/// Goal: a connection goes on that has lost its acknowledgements in the failover, and tracking is
/// strict in the end. Method: the first gateway lets data through and no acknowledgements; through
/// the second the server repeats its oldest segment and hears that the client has all; then
/// lenience ends, and resets with guessed sequence numbers come.
#[test]
fn lost_acknowledgements_do_not_end_a_connection_nor_does_a_blind_reset() {
    let lab = Lab::new();
    let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
    let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
    let mut traffic = Traffic::start(&lab);
    replicate(&drain(&mut source), &mut sink);

    let silence = "add table inet silence
        add chain inet silence forward { type filter hook forward priority -10; }
        add rule inet silence forward iifname \"in\" drop";
    lab.gateways[0].run("nft", "-f -", silence);
    for (number, (client, server)) in traffic.tcp.iter_mut().enumerate() {
        // As much as leaves without an acknowledgement.
        pass_on(number, server, client, &[7; 12_000]);
    }
    lab.fail_over();
    for (number, (client, server)) in traffic.tcp.iter_mut().enumerate() {
        pass_on(number, server, client, b"after the failover");
    }
    traffic.exchange(b"in both directions");
    assert_eq!(lab.invalid_packets(1), "0");

    let settled = || lab.gateways[1].enter(|| settle(&scope(1), |_| true).unwrap());
    assert_eq!(settled().made_strict, 8);
    assert_eq!(settled(), Settled::default());
    traffic.exchange(b"strictly");
    traffic.bulk();
    assert_eq!(lab.invalid_packets(1), "0");
    let (client, _) = &traffic.tcp[0];
    let (from, to) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    // Spread over the whole space: at most one of them can be in the window.
    const RESETS: u32 = 8;
    for guess in 0..RESETS {
        let packet = reset::packet(from, to, guess.wrapping_mul(u32::MAX / RESETS));
        lab.client.enter(|| reset::send(&packet, to));
    }
    traffic.exchange(b"after the resets");
    let refused: u32 = lab.invalid_packets(1).parse().unwrap();
    assert!(
        refused >= RESETS - 1,
        "{refused} of {RESETS} resets refused"
    );
}

#[test]
fn connections_go_on_through_the_other_gateway() {
    let lab = Lab::new();
    let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
    let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
    let mut traffic = Traffic::start(&lab);
    replicate(&drain(&mut source), &mut sink);

    assert_tables_agree(&lab);
    let table = lab.table(1);
    assert_eq!(table.len(), 8 + 2 + 2, "{table:?}");
    let translated = |bits| table.iter().filter(|entry| entry.status.has(bits)).count();
    assert_eq!(translated(Status::SRC_NAT), 12);
    assert_eq!(translated(Status::DST_NAT), 4);

    lab.fail_over();
    traffic.exchange(b"after the failover");
    traffic.ping(2);
    traffic.bulk();
    assert_eq!(lab.invalid_packets(1), "0");
    // Nothing new was made: these are the connections from before.
    assert_eq!(lab.table(1).len(), 12);

    // Connections injected there tell of their end: the next failover depends on it.
    let mut source = lab.gateways[1].enter(|| EventSource::open(1 << 20).unwrap());
    lab.gateways[1].run("conntrack", "-F", "");
    let ended = drain(&mut source);
    assert!(ended.len() >= 12, "{ended:?}");
    assert!(ended.iter().all(|event| matches!(event, Event::Destroy(_))));
}

#[test]
fn a_dump_instead_of_events_serves_as_well() {
    let lab = Lab::new();
    let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
    let mut traffic = Traffic::start(&lab);
    for entry in lab.table(0) {
        let item = codec::item(&entry, &mut BytesMut::new());
        sink.put(&item, true).unwrap();
    }
    flush(&mut sink);
    assert_tables_agree(&lab);
    lab.fail_over();
    traffic.exchange(b"after the failover");
    assert_eq!(lab.invalid_packets(1), "0");
}

#[test]
fn deletions_and_flushes_are_replicated() {
    let lab = Lab::new();
    let mut source = lab.gateways[0].enter(|| EventSource::open(1 << 20).unwrap());
    let mut sink = lab.gateways[1].enter(|| Sink::open(Scope::default()).unwrap());
    let traffic = Traffic::start(&lab);
    replicate(&drain(&mut source), &mut sink);
    assert_eq!(lab.table(1).len(), 12);
    // Ordered ends of TCP connections come as updates of their state.
    drop(traffic);
    replicate(&drain(&mut source), &mut sink);
    assert_tables_agree_in_keys(&lab);
    lab.gateways[0].run("conntrack", "-F", "");
    replicate(&drain(&mut source), &mut sink);
    assert_eq!(lab.table(1), []);
}

fn assert_tables_agree_in_keys(lab: &Lab) {
    let keys = |gateway| -> Vec<_> {
        let table = lab.table(gateway);
        let essence = |entry: &Entry| (entry.key, learnt(entry.state));
        table.iter().map(essence).collect()
    };
    assert_eq!(keys(0), keys(1));
}

/// The counter-test: what the others show is not shown by a gateway that knows nothing.
#[test]
fn without_replication_connections_do_not_survive() {
    let lab = Lab::new();
    let mut traffic = Traffic::start(&lab);
    lab.fail_over();
    for (number, (client, server)) in traffic.tcp.iter_mut().enumerate() {
        let (from, to) = if number % 2 == 0 {
            (client, server)
        } else {
            (server, client)
        };
        to.set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        from.write_all(b"lost").unwrap();
        let result = to.read(&mut [0; 10]);
        assert!(result.is_err(), "connection {number}: {result:?}");
    }
}
