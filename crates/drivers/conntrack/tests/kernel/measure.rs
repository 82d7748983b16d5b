//! What events cost, in figures for decision 0021. Not run with the tests; alone on the machine:
//! `cargo test --release -p vnfpool-conntrack --test kernel -- --ignored --nocapture measure`

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vnfpool_conntrack::{
    EVENT_BUFFER_BYTES, Event, EventSource, EventSourceKind, ReadOutcome, enable_events,
};

use vnfpool_netns::{Namespace, set};

const FLOWS: u32 = 100_000;
const ROUNDS: u32 = 7;
const SINGLE_FLOWS: u32 = 2000;
/// How long a busy reader rests.
const REST: Duration = Duration::from_micros(100);
const TICK: Duration = Duration::from_millis(100);
const WAYS: [Option<EventSourceKind>; 3] = [
    None,
    Some(EventSourceKind::Netlink),
    Some(EventSourceKind::Ring),
];

/// A client, and a gateway that translates to its own address; behind it is a host that the
/// packets are not for, so that they vanish.
fn gateway() -> [Namespace; 3] {
    let [client, gateway, beyond] = ["c", "gw", "s"].map(Namespace::new);
    gateway.connect("wan", &beyond, "cable");
    client.connect("cable", &gateway, "lan");
    client.ip("addr add 10.1.0.9/24 dev cable");
    client.ip("route add default via 10.1.0.1");
    gateway.ip("addr add 10.1.0.1/24 dev lan");
    gateway.ip("addr add 10.2.0.1/16 dev wan");
    for destination in ["10.2.1.2", "10.2.1.3"] {
        gateway.ip(&format!(
            "neigh add {destination} lladdr 02:00:00:00:00:99 dev wan nud permanent"
        ));
    }
    gateway.enter(|| {
        set("ipv4/ip_forward", "1");
        enable_events().unwrap();
    });
    let rules = "table ip vct {
        chain nat { type nat hook postrouting priority srcnat; oifname wan masquerade; }
    }";
    gateway.run("nft", "-f -", rules);
    client.run("ping", "-c 1 10.1.0.1", "");
    [client, gateway, beyond]
}

/// The only packet of connection `number`, a UDP datagram without data or checksum.
fn packet(number: u32) -> ([u8; 28], SocketAddr) {
    let destination = Ipv4Addr::from(0x0a02_0102 + number / 50_000);
    let port = u16::try_from(1024 + number % 50_000).unwrap();
    let mut packet = [0; 28];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17]);
    packet[12..16].copy_from_slice(&[10, 1, 0, 9]);
    packet[16..20].copy_from_slice(&destination.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    packet[22..26].copy_from_slice(&[0, 9, 0, 8]);
    (packet, SocketAddr::from((destination, 0)))
}

fn send(raw: &Socket, number: u32) {
    let (packet, to) = packet(number);
    raw.send_to(&packet, &SockAddr::from(to)).unwrap();
}

fn raw() -> Socket {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap()
}

struct Reading {
    new: u64,
    lost: u64,
    overruns: u64,
    cpu: Duration,
}

/// Reads until `stop` and nothing is left, with a rest where `rests`; `told` is called when a read gave something new.
fn read(
    source: &mut EventSource,
    stop: &AtomicBool,
    rests: bool,
    mut told: impl FnMut(&[Event]),
) -> Reading {
    let cpu = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let begin = cpu();
    let mut reading = Reading {
        new: 0,
        lost: 0,
        overruns: 0,
        cpu: Duration::ZERO,
    };
    let mut events = Vec::new();
    let mut woken: Option<Instant> = None;
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let outcome = source.read(&mut events).unwrap();
        if !events.is_empty() {
            told(&events);
        }
        for event in events.drain(..) {
            reading.new += u64::from(matches!(event, Event::New(_)));
        }
        match outcome {
            ReadOutcome::More => {}
            ReadOutcome::Overrun { lost } => {
                reading.overruns += 1;
                reading.lost += lost.unwrap_or(0);
            }
            ReadOutcome::Drained if stopping => break,
            ReadOutcome::Drained => {
                let mut fds = [PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)];
                let timeout = Timespec::try_from(TICK).unwrap();
                poll(&mut fds, Some(&timeout)).unwrap();
                // As the sender's thread does when changes are many: who is woken again soon waits
                // for more, and nobody wakes him meanwhile.
                if rests && woken.is_some_and(|woken| woken.elapsed() < REST) {
                    sleep(REST);
                }
                woken = Some(Instant::now());
            }
        }
    }
    reading.cpu = cpu() - begin;
    reading
}

fn open(kind: EventSourceKind) -> EventSource {
    match kind {
        EventSourceKind::Ring => EventSource::open_ring(EVENT_BUFFER_BYTES).unwrap(),
        EventSourceKind::Netlink => EventSource::open_netlink(EVENT_BUFFER_BYTES).unwrap(),
    }
}

/// New connections a second, and what reading about them costs.
fn throughput(kind: Option<EventSourceKind>, rests: bool) {
    let [client, gateway, _beyond] = gateway();
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let mut source = kind.map(|kind| gateway.enter(|| open(kind)));
        let reader = scope.spawn(move || {
            source
                .as_mut()
                .map(|source| read(source, stop, rests, |_| {}))
        });
        let seconds = client.enter(|| {
            let raw = raw();
            let begin = Instant::now();
            (0..FLOWS).for_each(|number| send(&raw, number));
            begin.elapsed().as_secs_f64()
        });
        sleep(TICK);
        stop.store(true, Ordering::Release);
        let rate = f64::from(FLOWS) / seconds;
        match reader.join().unwrap() {
            None => eprintln!("nobody reads: {rate:.0} new/s"),
            Some(reading) => {
                if kind == Some(EventSourceKind::Ring) {
                    assert!(
                        reading.new + reading.lost >= u64::from(FLOWS),
                        "unsaid loss"
                    );
                }
                eprintln!(
                    "{:?}, rests {rests}: {rate:.0} new/s; reader {:.3} s of CPU, told {}, lost {}, overruns {}",
                    kind.unwrap(),
                    reading.cpu.as_secs_f64(),
                    reading.new,
                    reading.lost,
                    reading.overruns
                );
            }
        }
    });
}

/// Waits until the reader has told of something; returns when it had it.
fn told(times: &Receiver<Instant>) -> Instant {
    match times.recv_timeout(Duration::from_secs(5)) {
        Ok(time) => time,
        Err(error @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
            panic!("the reader was never woken: {error}")
        }
    }
}

/// From a packet's send to its event in the reader's hands, one at a time.
fn lag(kind: EventSourceKind, pause: Duration) {
    let [client, gateway, _beyond] = gateway();
    let stop = AtomicBool::new(false);
    let stop = &stop;
    std::thread::scope(|scope| {
        let mut source = gateway.enter(|| open(kind));
        let (to, times) = channel();
        let reader = scope.spawn(move || {
            read(&mut source, stop, true, |_| {
                to.send(Instant::now()).unwrap()
            })
        });
        let mut lags = client.enter(move || {
            let raw = raw();
            let mut lags = Vec::new();
            for number in 0..SINGLE_FLOWS {
                sleep(pause);
                let begin = Instant::now();
                send(&raw, number);
                lags.push(told(&times).duration_since(begin));
            }
            lags
        });
        stop.store(true, Ordering::Release);
        let reading = reader.join().unwrap();
        lags.sort();
        let [min, p50, p99, max] = [0, lags.len() / 2, lags.len() * 99 / 100, lags.len() - 1]
            .map(|at| lags[at].as_micros());
        eprintln!("{kind:?}, every {pause:?}: min {min} p50 {p50} p99 {p99} max {max} us");
        assert_eq!(reading.overruns, 0);
    });
}

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn measure() {
    for _ in 0..ROUNDS {
        for rests in [false, true] {
            WAYS.into_iter().for_each(|kind| throughput(kind, rests));
        }
    }
    for pause in [Duration::from_millis(2), Duration::from_micros(150)] {
        for kind in WAYS.into_iter().flatten() {
            lag(kind, pause);
        }
    }
}
