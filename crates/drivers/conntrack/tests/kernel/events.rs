//! The two ways in which events come: they say the same, and neither hides a loss.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use vnfpool_conntrack::{
    Entry, Event, EventSource, EventSourceKind, Injector, ReadOutcome, SeqAdjust, Zone,
    ZoneDirection, enable_events, protocol, tcp_state,
};

use crate::inject::{Nat, assert_same, entry, matrix, translate};
use vnfpool_netns::{Namespace, set};

const PATIENCE: Duration = Duration::from_secs(20);
/// A page for the ring, and as little as the kernel allows for a queue.
const TINY_BYTES: usize = 4 * 4096;

fn open(kind: EventSourceKind, buffer_bytes: usize) -> EventSource {
    let source = match kind {
        EventSourceKind::Ring => EventSource::open_ring(buffer_bytes).unwrap(),
        EventSourceKind::Netlink => EventSource::open_netlink(buffer_bytes).unwrap(),
    };
    assert_eq!(source.kind(), kind);
    source
}

/// Reads until nothing waits; returns how the reads ended that were no mere `More`.
fn drain(source: &mut EventSource, events: &mut Vec<Event>) -> Vec<ReadOutcome> {
    let mut outcomes = Vec::new();
    loop {
        match source.read(events).unwrap() {
            ReadOutcome::More => {}
            outcome => outcomes.push(outcome),
        }
        if outcomes.last() == Some(&ReadOutcome::Drained) {
            return outcomes;
        }
    }
}

/// Whether the descriptor is readable at once.
fn is_readable(source: &EventSource) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

/// Waits for the descriptor and reads, until `done`.
fn follow(source: &mut EventSource, events: &mut Vec<Event>, done: impl Fn(&[Event]) -> bool) {
    let begin = Instant::now();
    loop {
        assert_eq!(drain(source, events), [ReadOutcome::Drained]);
        if done(events) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "only {events:?}");
        let mut fds = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
        let timeout = Timespec::try_from(PATIENCE).unwrap();
        assert_eq!(poll(&mut fds, Some(&timeout)).unwrap(), 1, "never woken");
    }
}

/// Creates, changes and deletes every kind of connection that can be injected.
fn inject_everything() {
    let mut injector = Injector::open().unwrap();
    let mut entries: Vec<Entry> = matrix().into_iter().map(|(_, _, entry)| entry).collect();
    for (port, direction) in [
        (1, ZoneDirection::Both),
        (2, ZoneDirection::Original),
        (3, ZoneDirection::Reply),
    ] {
        let mut zoned = entry(false, protocol::TCP, port);
        zoned.key.zone = Zone { id: 7, direction };
        zoned.labels = Some([5; 16]);
        entries.push(zoned);
    }
    let mut adjusted = translate(entry(false, protocol::TCP, 4), Nat::Source);
    adjusted.seq_adjust[0] = Some(SeqAdjust {
        correction_position: 99,
        offset_before: 0,
        offset_after: 7,
    });
    entries.push(adjusted);
    for entry in &entries {
        injector.upsert(entry.clone(), true).unwrap();
    }
    assert!(injector.flush().unwrap().is_empty());
    for entry in &entries {
        let mark = entry.mark + 1;
        let changed = Entry {
            mark,
            ..entry.clone()
        };
        injector.upsert(changed, false).unwrap();
    }
    assert!(injector.flush().unwrap().is_empty());
    for entry in &entries {
        injector.delete(entry.key).unwrap();
    }
    assert!(injector.flush().unwrap().is_empty());
}

/// Clients, a gateway that translates and helps FTP, servers.
fn routed() -> [Namespace; 3] {
    let [client, gateway, server] = ["c", "gw", "s"].map(Namespace::new);
    client.connect("cable", &gateway, "lan");
    gateway.connect("wan", &server, "cable");
    for (namespace, lines) in [
        (&client, ["10.1.0.9/24 dev cable", "fd00:1::9/64 dev cable"]),
        (&server, ["10.2.0.9/24 dev cable", "fd00:2::9/64 dev cable"]),
        (&gateway, ["10.1.0.1/24 dev lan", "fd00:1::1/64 dev lan"]),
        (&gateway, ["10.2.0.1/24 dev wan", "fd00:2::1/64 dev wan"]),
    ] {
        for line in lines {
            namespace.ip(&format!("addr add {line}"));
        }
    }
    client.ip("route add default via 10.1.0.1");
    client.ip("-6 route add default via fd00:1::1");
    server.ip("-6 route add default via fd00:2::1");
    gateway.enter(|| {
        set("ipv4/ip_forward", "1");
        set("ipv6/conf/all/forwarding", "1");
        enable_events().unwrap();
    });
    let rules = "table inet vct {
            ct helper ftp { type \"ftp\" protocol tcp; l3proto inet; }
            chain nat { type nat hook postrouting priority srcnat; oifname wan masquerade; }
            chain marks { type filter hook forward priority filter;
                ct mark set 0x2a; tcp dport 21 ct helper set \"ftp\"; }
        }";
    gateway.run("nft", "-f -", rules);
    [client, gateway, server]
}

/// From the first packet to the last of connections of every protocol that a host can speak here.
fn talk(client: &Namespace, server: &Namespace) {
    for (here, there) in [("10.1.0.9", "10.2.0.9"), ("fd00:1::9", "fd00:2::9")] {
        let (here, there): (std::net::IpAddr, std::net::IpAddr) =
            (here.parse().unwrap(), there.parse().unwrap());
        let listener = server.enter(|| TcpListener::bind((there, 21)).unwrap());
        let mut near = client.enter(|| TcpStream::connect((there, 21)).unwrap());
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"USER x\r\n").unwrap();
        far.read_exact(&mut [0; 8]).unwrap();
        near.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
        drop((far, near));

        let answering = server.enter(|| UdpSocket::bind((there, 53)).unwrap());
        let asking = client.enter(|| UdpSocket::bind((here, 5353)).unwrap());
        for socket in [&answering, &asking] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        for _ in 0..3 {
            asking.send_to(b"?", (there, 53)).unwrap();
            let (_, from) = answering.recv_from(&mut [0; 9]).unwrap();
            answering.send_to(b"!", from).unwrap();
            asking.recv_from(&mut [0; 9]).unwrap();
        }
        client.run("ping", &format!("-c 2 -i 0.2 {there}"), "");
    }
}

/// Goal: both ways tell the same changes in the same order with the same content. Method: open
/// both beside each other, inject and talk, and compare event by event; between the kernel's two
/// looks at the clock nothing lies, since it makes one message for both.
#[test]
fn ring_and_queue_tell_the_same() {
    let [client, gateway, server] = routed();
    let [mut ring, mut queue] = [EventSourceKind::Ring, EventSourceKind::Netlink]
        .map(|kind| gateway.enter(|| open(kind, 8 << 20)));
    gateway.enter(inject_everything);
    talk(&client, &server);
    // The last words of each TCP connection.
    let closed = |events: &[Event]| {
        let is_closed = |event: &&Event| match event {
            Event::Update(entry) => matches!(entry.state,
                vnfpool_conntrack::ProtocolState::Tcp(tcp) if tcp.state == tcp_state::TIME_WAIT),
            _ => false,
        };
        events.iter().filter(is_closed).count() >= 2
    };
    let [mut from_ring, mut from_queue] = [Vec::new(), Vec::new()];
    follow(&mut ring, &mut from_ring, closed);
    drain(&mut queue, &mut from_queue);
    drain(&mut ring, &mut from_ring);
    drain(&mut queue, &mut from_queue);
    let length = from_ring.len().min(from_queue.len());
    assert!(length > 150, "{length}");
    for (at, (one, other)) in from_ring.iter().zip(&from_queue).enumerate() {
        assert_eq!(one, other, "event {at}");
    }
    assert_eq!((ring.malformed(), queue.malformed()), (0, 0));
    let helped = |event: &Event| match event {
        Event::New(entry) | Event::Update(entry) => entry.helper.is_some() && entry.mark == 0x2a,
        Event::Destroy(_) => false,
    };
    assert!(from_ring.iter().any(helped), "the FTP helper and the mark");
}

/// Goal: what was injected is told as it was injected, by both.
#[test]
fn events_tell_of_injections() {
    for kind in [EventSourceKind::Ring, EventSourceKind::Netlink] {
        Namespace::new("gw").enter(|| {
            enable_events().unwrap();
            let mut source = open(kind, 1 << 20);
            let mut injector = Injector::open().unwrap();
            let one = translate(entry(false, protocol::TCP, 1), Nat::SourcePort);
            injector.upsert(one.clone(), true).unwrap();
            injector.flush().unwrap();
            assert!(is_readable(&source), "{kind:?}");
            injector.upsert(Entry { mark: 3, ..one }, false).unwrap();
            injector.flush().unwrap();
            injector.delete(one.key).unwrap();
            injector.flush().unwrap();
            let mut events = Vec::new();
            assert_eq!(drain(&mut source, &mut events), [ReadOutcome::Drained]);
            assert!(!is_readable(&source), "{kind:?}");
            let [Event::New(new), Event::Update(update), Event::Destroy(key)] = &events[..] else {
                panic!("unexpected {events:?}");
            };
            assert_same(new, &one, "new");
            assert_eq!(update.mark, 3);
            assert_eq!(*key, one.key);
        });
    }
}

/// Goal: a loss is told once, also to a reader that waits, and the subscription goes on. A ring
/// says how many were lost and where: what it kept and what it lost adds up.
#[test]
fn a_loss_is_told_once_and_the_subscription_goes_on() {
    const CONNECTIONS: u16 = 999;
    for kind in [EventSourceKind::Ring, EventSourceKind::Netlink] {
        Namespace::new("gw").enter(|| {
            enable_events().unwrap();
            let mut source = open(kind, TINY_BYTES);
            let mut injector = Injector::open().unwrap();
            for port in 1..=CONNECTIONS {
                let new = entry(true, protocol::UDP, port);
                injector.upsert(new, true).unwrap();
            }
            injector.flush().unwrap();
            assert!(is_readable(&source), "{kind:?}");
            let mut events = Vec::new();
            let outcomes = drain(&mut source, &mut events);
            let [ReadOutcome::Overrun { lost }, ReadOutcome::Drained] = outcomes[..] else {
                panic!("{kind:?}: {outcomes:?}");
            };
            assert!(!events.is_empty() && events.len() < usize::from(CONNECTIONS));
            if kind == EventSourceKind::Ring {
                let kept = u64::try_from(events.len()).unwrap();
                assert_eq!(lost, Some(u64::from(CONNECTIONS) - kept));
            }
            assert!(!is_readable(&source), "{kind:?}");

            injector
                .upsert(entry(false, protocol::UDP, 1), true)
                .unwrap();
            injector.flush().unwrap();
            let mut events = Vec::new();
            assert_eq!(drain(&mut source, &mut events), [ReadOutcome::Drained]);
            assert_eq!(events.len(), 1);
            assert_eq!(source.malformed(), 0);
        });
    }
}

/// Goal: a ring tells of a loss between what is older and what is newer. Method: overrun it, make
/// room by one read, and go on.
#[test]
fn a_ring_tells_of_a_loss_where_it_is() {
    Namespace::new("gw").enter(|| {
        enable_events().unwrap();
        let mut source = open(EventSourceKind::Ring, TINY_BYTES);
        let mut injector = Injector::open().unwrap();
        for port in 1..=200 {
            let new = entry(false, protocol::UDP, port);
            injector.upsert(new, true).unwrap();
        }
        injector.flush().unwrap();
        let mut events = Vec::new();
        // Everything that the ring had room for, in front of the gap; and what was read is given
        // back by the next read.
        assert_eq!(source.read(&mut events).unwrap(), ReadOutcome::More);
        let before = events.len();
        injector
            .upsert(entry(false, protocol::UDP, 201), true)
            .unwrap();
        injector.flush().unwrap();
        let lost = Some(201 - u64::try_from(before).unwrap());
        assert_eq!(
            source.read(&mut events).unwrap(),
            ReadOutcome::Overrun { lost }
        );
        assert_eq!(events.len(), before, "nothing newer was handed out");
        let newer = entry(false, protocol::UDP, 202);
        injector.upsert(newer.clone(), true).unwrap();
        injector.flush().unwrap();
        assert_eq!(drain(&mut source, &mut events), [ReadOutcome::Drained]);
        assert_eq!(events.len(), before + 1);
        assert_eq!(events[before].key(), &newer.key);
    });
}

/// Goal: what waits can be dropped without a loss being told, and later events come.
#[test]
fn what_waits_can_be_dropped() {
    for kind in [EventSourceKind::Ring, EventSourceKind::Netlink] {
        Namespace::new("gw").enter(|| {
            enable_events().unwrap();
            let mut source = open(kind, TINY_BYTES);
            let mut injector = Injector::open().unwrap();
            for port in 1..=500 {
                let new = entry(false, protocol::UDP, port);
                injector.upsert(new, true).unwrap();
            }
            injector.flush().unwrap();
            source.discard_waiting().unwrap();
            assert!(!is_readable(&source), "{kind:?}");
            injector.delete(entry(false, protocol::UDP, 5).key).unwrap();
            injector.flush().unwrap();
            let mut events = Vec::new();
            assert_eq!(drain(&mut source, &mut events), [ReadOutcome::Drained]);
            assert!(matches!(events[..], [Event::Destroy(_)]), "{events:?}");
        });
    }
}

/// Goal: a source hears nothing of other network namespaces.
#[test]
fn other_namespaces_are_not_heard() {
    let [ours, other] = ["a", "b"].map(Namespace::new);
    for kind in [EventSourceKind::Ring, EventSourceKind::Netlink] {
        let mut source = ours.enter(|| {
            enable_events().unwrap();
            open(kind, 1 << 20)
        });
        for namespace in [&other, &ours] {
            namespace.enter(|| {
                enable_events().unwrap();
                let mut injector = Injector::open().unwrap();
                let mut one = entry(false, protocol::UDP, 1);
                one.mark = if std::ptr::eq(namespace, &ours) { 1 } else { 2 };
                injector.upsert(one.clone(), true).unwrap();
                injector.delete(one.key).unwrap();
                injector.flush().unwrap();
                injector.upsert(one.clone(), true).unwrap();
                injector.flush().unwrap();
                injector.delete(one.key).unwrap();
                injector.flush().unwrap();
            });
        }
        let mut events = Vec::new();
        drain(&mut source, &mut events);
        assert!(!events.is_empty(), "{kind:?}");
        for event in &events {
            if let Event::New(entry) | Event::Update(entry) = event {
                assert_eq!(entry.mark, 1, "{kind:?}");
            }
        }
    }
}

/// Goal: no change is left behind by a reader that falls asleep. Method: the next change is made
/// as soon as the one before was read, which is when the reader goes to sleep, many times over.
#[test]
fn a_reader_that_falls_asleep_is_woken() {
    const CHANGES: u16 = 5000;
    for kind in [EventSourceKind::Ring, EventSourceKind::Netlink] {
        let gateway = Namespace::new("gw");
        let mut source = gateway.enter(|| {
            enable_events().unwrap();
            open(kind, 1 << 20)
        });
        let (to, read) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 1..=usize::from(CHANGES) {
                    let mut events = Vec::new();
                    follow(&mut source, &mut events, |events| !events.is_empty());
                    assert_eq!(events.len(), 1, "change {number}");
                    to.send(()).unwrap();
                }
            });
            gateway.enter(move || {
                let mut injector = Injector::open().unwrap();
                for port in 1..=CHANGES {
                    let new = entry(false, protocol::UDP, port);
                    injector.upsert(new, true).unwrap();
                    injector.flush().unwrap();
                    read.recv().unwrap();
                }
            });
        });
    }
}

/// Goal: where no program may be loaded events come all the same, and the source says why not
/// through a ring. Method: a thread without the capabilities for it.
#[test]
fn without_the_privilege_for_a_ring_a_queue_serves() {
    Namespace::new("gw").enter(|| {
        enable_events().unwrap();
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        set_capabilities(None, sets).unwrap();
        let mut source = EventSource::open(1 << 20).unwrap();
        assert_eq!(source.kind(), EventSourceKind::Netlink);
        let reason = source.fallback_reason().unwrap().to_string();
        assert!(reason.contains("CAP_BPF"), "{reason}");
        let mut injector = Injector::open().unwrap();
        injector
            .upsert(entry(false, protocol::UDP, 1), true)
            .unwrap();
        injector.flush().unwrap();
        let mut events = Vec::new();
        assert_eq!(drain(&mut source, &mut events), [ReadOutcome::Drained]);
        assert_eq!(events.len(), 1);
    });
}
