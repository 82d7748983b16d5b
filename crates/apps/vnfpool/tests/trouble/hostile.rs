//! Hostile bytes on every port: nothing stops, nothing changes, and it is counted.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use vnfpool_lab::Gateway;

use crate::daemon::LIMIT;
use crate::packets::{Packet, Random, breathe, capture, send_again};
use crate::site::{METRICS_PORT, Site};

/// How many datagrams, and how many connections, each port gets.
const DATAGRAMS: usize = 2_000;
const CONNECTIONS: usize = 150;

const MANAGER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
/// Of both gateways, where the other one is next door.
const LINKS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 3, 0, 1), Ipv4Addr::new(10, 3, 0, 2)];
/// Of both gateways, where clients are.
const LANS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)];

/// Sends spoiled copies of `originals`, or of nothing, to a UDP port.
fn send_spoiled(
    site: &Site,
    from: &str,
    to: (Ipv4Addr, u16),
    originals: &[Packet],
    random: &mut Random,
) {
    let send = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for number in 0..DATAGRAMS {
            let original = match originals {
                [] => &[][..],
                some => some[number % some.len()].payload(),
            };
            // A port that is closed would answer with an error here: none is.
            socket.send_to(&random.spoil(original), to)?;
            breathe(number);
        }
        Ok(())
    };
    site.lab.namespace(from).unwrap().run(send).unwrap();
}

/// Opens connections that say wrong things, and nothing, and break off.
fn connect_spoiled(
    site: &Site,
    from: &str,
    to: (Ipv4Addr, u16),
    beginnings: &[&[u8]],
    random: &mut Random,
) {
    let talk = || {
        for number in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(SocketAddr::from(to))?;
            stream.set_read_timeout(Some(Duration::from_millis(200)))?;
            let bytes = random.spoil(beginnings[number % beginnings.len()]);
            // It may be closed at the first wrong byte.
            let _ = stream.write_all(&bytes);
            if number % 2 == 0 {
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read(&mut [0; 512]);
            }
        }
        Ok(())
    };
    site.lab.namespace(from).unwrap().run(talk).unwrap();
}

fn datagrams(site: &Site, host: &str, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    site.metric(host, "vnfpool_datagrams_total", &label)
}

fn wait_counted(site: &Site, host: &str, outcome: &str, enough: f64) {
    let give_up = Instant::now() + LIMIT;
    while datagrams(site, host, outcome) < enough {
        assert!(
            Instant::now() < give_up,
            "not {enough} {outcome} on {host}, but\n{}",
            site.metrics(host)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn connections_rejected(site: &Site, host: &str) -> f64 {
    site.metric(host, "vnfpool_connections_rejected_total", "")
}

/// Everything that the pool can do it still does.
fn works(site: &Site) {
    site.wait_armed();
    let both = match site.active().as_deref() {
        Some("gw1") => [Gateway::Gw2, Gateway::Gw1],
        _ => Gateway::BOTH,
    };
    for to in both {
        site.operate(&["switchover", "edge", "--to", to.name()]);
        site.wait_owner(to);
        site.wait_armed();
    }
    assert_eq!(site.manager().ended(), None);
    for gateway in Gateway::BOTH {
        assert_eq!(site.element(gateway).ended(), None);
    }
    site.ends_well();
}

#[test]
fn spoiled_datagrams_stop_nothing_and_are_counted() {
    let site = Site::serving();
    let talk = site.talk();
    let mut random = Random::seeded();
    // Many more are counted as copies: those whose number was used before are not looked at.
    let enough = f64::from(u32::try_from(DATAGRAMS / 4).unwrap());

    // Heartbeats, to active and standby, from the neighbour and from the LAN.
    for victim in Gateway::BOTH {
        let at = (LINKS[victim.index()], 7_401);
        let real = capture(&site, victim.name(), at, 32);
        let before = datagrams(&site, victim.name(), "rejected");
        send_spoiled(&site, victim.other().name(), at, &real, &mut random);
        wait_counted(&site, victim.name(), "rejected", before + enough);
        let before = datagrams(&site, victim.name(), "rejected");
        let at = (LANS[victim.index()], 7_401);
        send_spoiled(&site, "client", at, &real, &mut random);
        wait_counted(&site, victim.name(), "rejected", before + enough);
        talk.goes_on();
    }
    // Requests to the manager.
    let real = capture(&site, "manager", (MANAGER, 7_401), 32);
    let before = datagrams(&site, "manager", "rejected");
    send_spoiled(&site, "gw2", (MANAGER, 7_401), &real, &mut random);
    wait_counted(&site, "manager", "rejected", before + enough);
    assert_eq!(site.active().as_deref(), Some("gw1"));
    talk.goes_on();
    works(&site);
}

#[test]
fn spoiled_quic_packets_stop_nothing() {
    let site = Site::serving();
    let talk = site.talk();
    let mut random = Random::seeded();
    // Everything of a registration, from the first packet on.
    site.element(Gateway::Gw2).kill();
    site.start_element(Gateway::Gw2);
    let control = capture(&site, "manager", (MANAGER, 7_400), 24);
    let gw1 = (LINKS[0], 7_402);
    let state = capture(&site, "gw1", gw1, 8);
    site.wait_armed();
    for real in [&control, &Vec::new()] {
        send_spoiled(&site, "gw2", (MANAGER, 7_400), real, &mut random);
    }
    for real in [&state, &Vec::new()] {
        send_spoiled(&site, "gw2", gw1, real, &mut random);
    }
    // A handshake that was real once.
    for _ in 0..20 {
        send_again(&site, "gw2", &control);
        send_again(&site, "gw2", &state);
    }
    talk.goes_on();
    works(&site);
}

#[test]
fn spoiled_connections_stop_nothing() {
    let site = Site::serving();
    let talk = site.talk();
    let mut random = Random::seeded();
    let before = connections_rejected(&site, "manager");
    let hello: &[u8] = b"\x16\x03\x01\x00\xfa\x01\x00\x00\xf6\x03\x03";
    let plain: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n";
    connect_spoiled(&site, "gw2", (MANAGER, 7_443), &[hello, plain], &mut random);
    let more = connections_rejected(&site, "manager") - before;
    assert!(more >= 10.0, "{more}");

    let loopback = (Ipv4Addr::LOCALHOST, METRICS_PORT);
    let requests: [&[u8]; 4] = [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"GET /\x00\xff/../../etc/passwd HTTP/1.1\r\n\r\n",
    ];
    for host in ["manager", "gw1", "gw2"] {
        connect_spoiled(&site, host, loopback, &requests, &mut random);
        assert!(site.metrics(host).contains("# EOF"));
    }
    talk.goes_on();
    works(&site);
}

/// Packets that were real, sent again as they were.
#[test]
fn replayed_datagrams_change_nothing_and_are_counted() {
    const ROUNDS: usize = 25;
    let site = Site::serving();
    let talk = site.talk();
    let [gw1, gw2] = LINKS.map(|link| (link, 7_401));
    let mut recorded = Vec::new();
    site.changes_nothing(|| {
        for (victim, at, from) in [
            ("gw1", gw1, "gw2"),
            ("gw2", gw2, "gw1"),
            ("manager", (MANAGER, 7_401), "gw1"),
        ] {
            let real = capture(&site, victim, at, 100);
            let [copies, new, accepted] = what_came(&site, victim);
            for _ in 0..ROUNDS {
                send_again(&site, from, &real);
            }
            let count = f64::from(u32::try_from(real.len() * ROUNDS).unwrap());
            // Some may be lost on the way, not many.
            wait_counted(&site, victim, "copy", copies + count * 0.9);
            let [_, new_now, accepted_now] = what_came(&site, victim);
            let (taken, in_earnest) = (accepted_now - accepted, new_now - new);
            assert!(
                taken <= in_earnest + count * 0.1,
                "{victim} took {taken} of {count} again, {in_earnest} came in earnest"
            );
            talk.goes_on();
            recorded.push((from, real));
        }
    });

    // Of an earlier life and an earlier epoch: when the other one serves, and has new keys.
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    site.element(Gateway::Gw1).kill();
    site.start_element(Gateway::Gw1);
    site.wait_armed();
    site.changes_nothing(|| {
        for (from, real) in &recorded {
            send_again(&site, from, real);
        }
        talk.goes_on();
    });
    works(&site);
}

/// Copies and replays; datagrams of which each is new; datagrams that were accepted. An element
/// gets each heartbeat once over the management LAN, where nothing is replayed, and the manager's
/// answers over a path of their own.
fn what_came(site: &Site, host: &str) -> [f64; 3] {
    let of_path = |path: &str| {
        let label = format!("path=\"{path}\",what=\"received\"");
        site.metric(host, "vnfpool_path_datagrams_total", &label)
    };
    let copies = datagrams(site, host, "copy");
    let accepted = datagrams(site, host, "accepted");
    // After the others: what comes meanwhile is on the safe side.
    let new = match host {
        "manager" => accepted,
        _ => of_path("management") + of_path("manager"),
    };
    [copies, new, accepted]
}
