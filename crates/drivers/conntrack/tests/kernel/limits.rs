//! How fast the kernel's table is written and read, in figures for decision 0028. Not run with the
//! tests; alone on the machine, with `nf_conntrack_max` and `nf_conntrack_buckets` above 1,000,000:
//! `cargo test --release -p vnfpool-conntrack --test kernel -- --ignored --nocapture limits`

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bytes::BytesMut;
use vnfpool_conntrack::{
    Dump, DumpProgress, EVENT_BUFFER_BYTES, Entry, EventSource, Family, Injector, Key, Layer4,
    ProtocolState, Scope, Sink, Status, TcpInfo, Tuple, Zone, codec, enable_events, protocol,
    tcp_state,
};
use vnfpool_netns::Namespace;

const ENTRIES: u32 = 500_000;
const ROUNDS: usize = 3;

/// An established TCP connection whose source is translated.
fn entry(number: u32) -> Entry {
    let ports = |src, dst| Layer4::Ports { src, dst };
    let port = u16::try_from(1_024 + number % 50_000).unwrap();
    let server = IpAddr::V4(Ipv4Addr::from(0x0a02_0102 + number / 50_000));
    let original = Tuple {
        src: IpAddr::V4(Ipv4Addr::new(10, 1, 0, 9)),
        dst: server,
        protocol: protocol::TCP,
        layer4: ports(port, 80),
    };
    let zone = Zone::default();
    Entry {
        key: Key { original, zone },
        reply: Tuple {
            src: server,
            dst: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
            protocol: protocol::TCP,
            layer4: ports(80, port),
        },
        status: Status(Status::CONFIRMED | Status::ASSURED | Status::SEEN_REPLY | Status::SRC_NAT),
        timeout_s: 3_600,
        mark: 0,
        state: ProtocolState::Tcp(TcpInfo {
            state: tcp_state::ESTABLISHED,
            window_scale: [7, 7],
            flags: [0, 0],
        }),
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}

fn tell(what: &str, began: Instant) {
    let s = began.elapsed().as_secs_f64();
    println!(
        "{what:44} {:7.0} ms {:5.2} µs an entry",
        s * 1e3,
        s * 1e6 / f64::from(ENTRIES)
    );
}

#[test]
#[ignore = "a measurement"]
fn limits() {
    let entries: Vec<Entry> = (0..ENTRIES).map(entry).collect();
    for _ in 0..ROUNDS {
        insert(&entries, "insert, nobody listens");
    }
    let elsewhere = Namespace::new("l");
    let _listener = elsewhere.enter(|| EventSource::open(EVENT_BUFFER_BYTES).unwrap());
    for _ in 0..ROUNDS {
        insert(&entries, "insert, a listener in another namespace");
    }
    codecs(&entries);
}

fn insert(entries: &[Entry], what: &str) {
    let namespace = Namespace::new("i");
    namespace.enter(|| {
        enable_events().unwrap();
        let mut injector = Injector::open().unwrap();
        let began = Instant::now();
        for one in entries {
            injector.upsert(one.clone(), true).unwrap();
        }
        assert!(injector.flush().unwrap().is_empty());
        tell(what, began);
        let mut out = Vec::new();
        let mut read = 0;
        let began = Instant::now();
        let mut dump = Dump::start(Family::All).unwrap();
        while dump.next_chunk(&mut out).unwrap() == DumpProgress::More {
            read += out.len();
            out.clear();
        }
        assert_eq!(read + out.len(), entries.len());
        tell("dump", began);
    });
}

fn codecs(entries: &[Entry]) {
    let mut buffer = BytesMut::new();
    let began = Instant::now();
    let items: Vec<_> = entries
        .iter()
        .map(|entry| codec::item(entry, &mut buffer))
        .collect();
    tell("encode", began);
    let began = Instant::now();
    for item in &items {
        std::hint::black_box(codec::entry(item).unwrap());
    }
    tell("decode", began);
    let namespace = Namespace::new("i");
    namespace.enter(|| {
        enable_events().unwrap();
        let mut sink = Sink::open(Scope::default()).unwrap();
        let began = Instant::now();
        for item in &items {
            sink.put(item, true).unwrap();
        }
        sink.flush().unwrap();
        tell("decode and insert, with that listener", began);
    });
}
