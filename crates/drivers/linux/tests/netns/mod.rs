//! Network namespaces for tests: a client and a server with gateways between them, on two
//! bridged LANs. Everything is removed when the lab is dropped.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

pub const ECHO_PORT: u16 = 7777;
pub const INSIDE_V4: &str = "10.1.0.254";
pub const INSIDE_V6: &str = "fd00:1::fe";
pub const OUTSIDE_V4: &str = "10.2.0.254";
pub const OUTSIDE_V6: &str = "fd00:2::fe";
pub const SERVER_V4: &str = "10.2.0.100";
pub const SERVER_V6: &str = "fd00:2::100";
pub const CLIENT_V4: &str = "10.1.0.100";
pub const CLIENT_V6: &str = "fd00:1::100";

/// Runs a command, which must succeed, and returns what it printed.
pub fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// `client` and `server`, and gateways `gw1`, `gw2`, … with the interfaces `in` and `out`.
pub struct Lab {
    prefix: String,
    nodes: Vec<String>,
}

impl Lab {
    /// Gateway n has the addresses .n and ::n; client and server route through the virtual ones.
    pub fn new(gateways: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            prefix: format!("vpt{}x{number}", std::process::id()),
            nodes: Vec::new(),
        };
        lab.add("switch");
        for bridge in ["in", "out"] {
            let settings = "type bridge mcast_snooping 0";
            lab.ip("switch", &format!("link add {bridge} {settings}"));
            lab.ip("switch", &format!("link set {bridge} up"));
        }
        for (node, lan, subnet) in [("client", "in", 1), ("server", "out", 2)] {
            lab.add(node);
            lab.connect(node, lan, subnet, 100);
            let far = 3 - subnet;
            lab.ip(
                node,
                &format!("route add 10.{far}.0.0/24 via 10.{subnet}.0.254"),
            );
            lab.ip(
                node,
                &format!("route add fd00:{far}::/64 via fd00:{subnet}::fe"),
            );
        }
        for number in 1..=gateways {
            let node = format!("gw{number}");
            lab.add(&node);
            lab.write(&node, "ipv4/ip_forward", "1");
            lab.write(&node, "ipv6/conf/all/forwarding", "1");
            lab.connect(&node, "in", 1, number);
            lab.connect(&node, "out", 2, number);
        }
        lab
    }

    /// The name of a node's namespace.
    pub fn namespace(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    /// Runs `ip` in a node.
    pub fn ip(&self, node: &str, arguments: &str) -> String {
        run(&format!("ip -n {} {arguments}", self.namespace(node)))
    }

    /// Runs something in a node, on a thread of its own, and waits for it.
    pub fn within<T: Send>(&self, node: &str, body: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace(node);
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&namespace);
                body()
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Writes a sysctl below `net` in a node.
    pub fn write(&self, node: &str, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.within(node, || std::fs::write(path, value).unwrap());
    }

    /// Reads a sysctl below `net` in a node.
    pub fn read(&self, node: &str, key: &str) -> String {
        let path = format!("/proc/sys/net/{key}");
        self.within(node, || {
            std::fs::read_to_string(path).unwrap().trim().into()
        })
    }

    pub fn ifindex(&self, node: &str, interface: &str) -> u32 {
        let path = self.ip(node, &format!("-o link show dev {interface}"));
        path.split(':').next().unwrap().parse().unwrap()
    }

    pub fn mac(&self, node: &str, interface: &str) -> String {
        let link = self.ip(node, &format!("-o link show dev {interface}"));
        let mut words = link.split_whitespace().skip_while(|w| *w != "link/ether");
        words.nth(1).unwrap().into()
    }

    /// Adds what a gateway has for each virtual address: macvlans and addresses.
    pub fn add_virtual_addresses(&self, node: &str) {
        for (lan, vrid, v4, v6) in [
            ("in", 11, INSIDE_V4, INSIDE_V6),
            ("out", 12, OUTSIDE_V4, OUTSIDE_V6),
        ] {
            self.write(node, &format!("ipv4/conf/{lan}/arp_ignore"), "1");
            self.write(node, &format!("ipv4/conf/{lan}/arp_announce"), "2");
            for (family, address) in [(4, format!("{v4}/32")), (6, format!("{v6}/128"))] {
                let device = format!("vp{vrid}v{family}");
                let octet = if family == 4 { 1 } else { 2 };
                let mac = format!("00:00:5e:00:0{octet}:{vrid:02x}");
                let kind = "type macvlan mode private";
                self.ip(
                    node,
                    &format!("link add {device} link {lan} address {mac} {kind}"),
                );
                self.ip(node, &format!("link set {device} addrgenmode none"));
                self.write(node, &format!("ipv4/conf/{device}/rp_filter"), "0");
                self.write(node, &format!("ipv4/conf/{device}/arp_ignore"), "1");
                let nodad = if family == 6 { "nodad" } else { "" };
                self.ip(node, &format!("link set {device} up"));
                self.ip(node, &format!("addr add {address} dev {device} {nodad}"));
            }
        }
    }

    fn add(&mut self, node: &str) {
        let namespace = self.namespace(node);
        run(&format!("ip netns add {namespace}"));
        self.nodes.push(namespace);
        self.write(node, "ipv4/conf/all/rp_filter", "0");
        self.write(node, "ipv4/conf/default/rp_filter", "0");
        self.write(node, "ipv6/conf/default/accept_dad", "0");
        self.ip(node, "link set lo up");
    }

    fn connect(&self, node: &str, lan: &str, subnet: usize, host: usize) {
        let switch = self.namespace("switch");
        let port = format!("{node}-{lan}");
        self.ip(
            node,
            &format!("link add {lan} type veth peer name {port} netns {switch}"),
        );
        self.ip("switch", &format!("link set {port} master {lan} up"));
        self.ip(node, &format!("addr add 10.{subnet}.0.{host}/24 dev {lan}"));
        self.ip(
            node,
            &format!("addr add fd00:{subnet}::{host}/64 dev {lan} nodad"),
        );
        self.ip(node, &format!("link set {lan} up"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.nodes {
            // Not `run`: a panic while panicking would leave the rest behind.
            let removed = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
            if !removed.is_ok_and(|status| status.success()) {
                eprintln!("cannot remove the namespace {namespace}");
            }
        }
    }
}

/// Moves this thread into a namespace.
pub fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Stops its thread when dropped.
pub struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Background<T> {
    fn spawn(body: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || body(&stop)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    pub fn finish(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Answers every datagram to the echo port of a node.
pub fn echo(lab: &Lab, node: &str) -> Background<()> {
    let socket = lab.within(node, || UdpSocket::bind(("::", ECHO_PORT)).unwrap());
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    Background::spawn(move |stop| {
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // Refused by a closed gate, for example.
                let _ = socket.send_to(&buffer[..length], from);
            }
        }
    })
}

/// Asks for echoes from a node.
pub struct Prober {
    socket: UdpSocket,
    target: SocketAddr,
    number: u64,
}

impl Prober {
    pub fn new(lab: &Lab, node: &str, target: &str) -> Self {
        let address: IpAddr = target.parse().unwrap();
        let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = lab.within(node, || UdpSocket::bind((any, 0)).unwrap());
        Self {
            socket,
            target: SocketAddr::new(address, ECHO_PORT),
            number: 0,
        }
    }

    /// Sends one probe and waits for its answer.
    pub fn answers_within(&mut self, patience: Duration) -> bool {
        self.number += 1;
        let probe = self.number.to_ne_bytes();
        if self.socket.send_to(&probe, self.target).is_err() {
            thread::sleep(patience);
            return false;
        }
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 64];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.recv_from(&mut buffer) {
                Ok((length, _)) if buffer[..length] == probe => return true,
                Ok(_) => {}
                Err(error) => assert!(
                    // The last is what an ICMP error leaves behind.
                    matches!(
                        error.kind(),
                        ErrorKind::WouldBlock
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::HostUnreachable
                            | ErrorKind::Interrupted
                    ),
                    "{error}"
                ),
            }
        }
    }

    /// Whether one of several probes is answered: for "it works".
    pub fn works(&mut self) -> bool {
        (0..50).any(|_| self.answers_within(Duration::from_millis(100)))
    }

    /// Whether none of several probes is answered: for "it is stopped".
    pub fn is_silent(&mut self) -> bool {
        (0..3).all(|_| !self.answers_within(Duration::from_millis(100)))
    }
}

/// Collects every frame that a node receives.
pub fn capture(lab: &Lab, node: &str) -> Background<Vec<Vec<u8>>> {
    let everything = Protocol::from(i32::from(0x0003_u16.to_be()));
    let socket = lab.within(node, || {
        Socket::new(Domain::PACKET, Type::RAW, Some(everything)).unwrap()
    });
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    Background::spawn(move |stop| {
        let mut frames = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match std::io::Read::read(&mut &socket, &mut buffer) {
                Ok(length) => frames.push(buffer[..length].to_vec()),
                // Only when nothing is left to be read.
                Err(_) if stop.load(Ordering::Relaxed) => return frames,
                Err(_) => {}
            }
        }
    })
}
