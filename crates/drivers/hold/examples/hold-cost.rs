//! What holding costs by itself: new connections through a gateway of two network namespaces, with
//! and without a holder that releases each packet as soon as it has read of it. Needs root.
//!
//! `cargo run --release -p vnfpool-hold --example hold-cost [rounds]`
//!
//! Each round measures all ways in turn, so that they meet the same machine:
//! - latency: the time from a connection's first datagram to its echo, one after the other;
//! - new: connections per second that reach the server while the client sends as fast as it can;
//! - established: packets per second of one connection, for which nothing is held.

#![expect(clippy::print_stdout, reason = "it prints what it measures")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "an instrument ends where it fails"
)]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/kernel/world.rs"]
mod world;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vnfpool_hold::{Holder, Statistics};

use crate::world::World;
use vnfpool_netns::set;

const LATENCY_CONNECTIONS: u16 = 4000;
/// As an agent's replication keeps the machine busy in between.
const PAUSE: Duration = Duration::from_micros(200);
const RATE_PACKETS: u32 = 200_000;
/// Of each of the server's addresses.
const PORTS: u32 = 40_000;
const ECHO_PORT: u16 = 5000;
const QUEUE_LENGTH: u32 = 16_384;

/// What happens to first packets.
#[derive(Clone, Copy, Debug)]
enum Way {
    Pass,
    /// Held and released at once by a thread that goes on looking for packets for `linger` before
    /// it sleeps.
    Hold {
        linger: Duration,
    },
}

const WAYS: [Way; 3] = [
    Way::Pass,
    Way::Hold {
        linger: Duration::ZERO,
    },
    Way::Hold {
        linger: Duration::from_micros(50),
    },
];

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(3, |text| text.parse().unwrap());
    let world = World::new();
    world
        .gateway
        .enter(|| set("netfilter/nf_conntrack_udp_timeout", "300"));
    for host in 10..=10 + RATE_PACKETS / PORTS {
        world
            .server
            .ip(&format!("addr add 10.2.0.{host}/24 dev outside"));
    }
    // Nobody is there to answer, and an error for each would be work of another kind.
    let sink = "table ip sink {
        chain prerouting {
            type filter hook prerouting priority raw
            udp dport != 5000 drop
        }
    }";
    world.server.run("nft", "-f -", sink);
    for round in 0..rounds {
        for way in WAYS {
            let (mut times, _) = with_holder(&world, way, || latencies(&world));
            times.sort_unstable();
            let at = |per_mille: usize| times[times.len() * per_mille / 1000];
            println!(
                "round {round} {way:?}: latency us: min {} p50 {} p99 {} p99.9 {} max {}",
                times[0].as_micros(),
                at(500).as_micros(),
                at(990).as_micros(),
                at(999).as_micros(),
                times[times.len() - 1].as_micros(),
            );
        }
        for way in WAYS {
            let (rate, statistics) = with_holder(&world, way, || rate(&world, PORTS));
            println!("round {round} {way:?}: new {rate}{}", told(statistics));
        }
        for way in WAYS {
            let (rate, _) = with_holder(&world, way, || rate(&world, 1));
            println!("round {round} {way:?}: established {rate}");
        }
    }
}

fn told(statistics: Option<Statistics>) -> String {
    statistics.map_or_else(String::new, |statistics| format!("; {statistics:?}"))
}

/// Does `work`, while packets are held, or not.
fn with_holder<T>(world: &World, way: Way, work: impl FnOnce() -> T) -> (T, Option<Statistics>) {
    world.gateway.run("conntrack", "-F", "");
    let Way::Hold { linger } = way else {
        return (work(), None);
    };
    let mut holder = world.hold(QUEUE_LENGTH);
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        scope.spawn(|| release_at_once(&mut holder, linger, &is_over));
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        done
    });
    let statistics = holder.statistics().unwrap();
    (done, Some(statistics))
}

fn release_at_once(holder: &mut Holder, linger: Duration, is_over: &AtomicBool) {
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    let mut held = Vec::new();
    let mut last = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        holder.read(&mut held);
        if let Some(newest) = held.last() {
            holder.release_through(newest.id).unwrap();
            last = Instant::now();
            held.clear();
        } else if last.elapsed() >= linger && !holder.arm().unwrap() {
            let mut fds = [PollFd::from_borrowed_fd(holder.as_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&patience)).unwrap();
        }
    }
}

/// Times of first datagrams to their echo.
fn latencies(world: &World) -> Vec<Duration> {
    let server = world.server_socket(0, ECHO_PORT);
    server.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| echo(&server));
        world.client.enter(|| {
            let server = address(2, ECHO_PORT);
            let mut times = Vec::new();
            for number in 0..LATENCY_CONNECTIONS {
                let client = UdpSocket::bind(("10.1.0.2", 20_000 + number)).unwrap();
                std::thread::sleep(PAUSE);
                let begin = Instant::now();
                client.send_to(&[1], server).unwrap();
                client.recv_from(&mut [0; 8]).unwrap();
                times.push(begin.elapsed());
            }
            let client = UdpSocket::bind("10.1.0.2:0").unwrap();
            client.send_to(&[], server).unwrap();
            times
        })
    })
}

/// Answers until something empty comes.
fn echo(server: &UdpSocket) {
    while let Ok((1.., from)) = server.recv_from(&mut [0; 8]) {
        server.send_to(&[1], from).unwrap();
    }
}

/// Packets that reach the server, and how many of them in a second. They go to `ports` ports of each of
/// its addresses in turn.
fn rate(world: &World, ports: u32) -> String {
    let before = world.server.enter(received);
    let begin = Instant::now();
    world.client.enter(|| {
        let client = UdpSocket::bind("10.1.0.2:40000").unwrap();
        for number in 0..RATE_PACKETS {
            let host = 10 + u8::try_from(number / PORTS).unwrap();
            let port = 10_000 + u16::try_from(number % ports).unwrap();
            client.send_to(&[1], address(host, port)).unwrap();
        }
    });
    let sent = begin.elapsed();
    let (count, last) = world.server.enter(|| {
        let mut last = (received() - before, begin.elapsed());
        while begin.elapsed() - last.1 < Duration::from_millis(300) {
            std::thread::sleep(Duration::from_millis(2));
            let now = received() - before;
            if now > last.0 {
                last = (now, begin.elapsed());
            }
        }
        last
    });
    format!(
        "{:.0}/s; {count} of {RATE_PACKETS} arrived in {} ms, sent in {} ms",
        count as f64 / last.as_secs_f64(),
        last.as_millis(),
        sent.as_millis(),
    )
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, host], port))
}

/// Packets that this namespace's interface has received.
fn received() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let mut lines = devices.lines();
    let line = lines.find_map(|line| line.trim_start().strip_prefix("outside:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    packets.unwrap().parse().unwrap()
}
