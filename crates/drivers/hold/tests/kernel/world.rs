//! A client, a gateway that translates its address, and a server.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use vnfpool_hold::{Held, Holder, Options};

use vnfpool_netns::{Namespace, set};

/// Long enough for whatever the machine is busy with.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const CLIENT: [&str; 2] = ["10.1.0.2", "fd00:1::2"];
pub(crate) const OUTSIDE: [&str; 2] = ["10.2.0.1", "fd00:2::1"];
pub(crate) const SERVER: [&str; 2] = ["10.2.0.2", "fd00:2::2"];

pub(crate) struct World {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self {
            client: Namespace::new("c"),
            gateway: Namespace::new("g"),
            server: Namespace::new("s"),
        };
        world.client.connect("inside", &world.gateway, "inside");
        world.gateway.connect("outside", &world.server, "outside");
        for (namespace, interface, addresses) in [
            (&world.client, "inside", ["10.1.0.2/24", "fd00:1::2/64"]),
            (&world.gateway, "inside", ["10.1.0.1/24", "fd00:1::1/64"]),
            (&world.gateway, "outside", ["10.2.0.1/24", "fd00:2::1/64"]),
            (&world.server, "outside", ["10.2.0.2/24", "fd00:2::2/64"]),
        ] {
            for address in addresses {
                namespace.ip(&format!("addr add {address} dev {interface} nodad"));
            }
        }
        world.client.ip("route add default via 10.1.0.1");
        world.client.ip("-6 route add default via fd00:1::1");
        world.gateway.enter(|| {
            set("ipv4/ip_forward", "1");
            set("ipv6/conf/all/forwarding", "1");
        });
        world.gateway.run(
            "nft",
            "-f -",
            "table inet nat {
                 chain postrouting {
                     type nat hook postrouting priority srcnat
                     oifname outside udp dport 6000 masquerade to :20000-20039 random
                     oifname outside masquerade
                 }
                 chain forward {
                     type filter hook forward priority filter
                     ct mark set 77
                 }
             }",
        );
        world
    }

    pub(crate) fn hold(&self, length: u32) -> Holder {
        self.gateway.enter(|| {
            Holder::open(&Options {
                queue: 7,
                length,
                interfaces: vec!["outside".to_owned()],
            })
            .unwrap()
        })
    }

    /// A socket of the client, bound to its address of this family.
    pub(crate) fn client_socket(&self, family: usize) -> UdpSocket {
        self.client.enter(|| bound(CLIENT[family], 0))
    }

    /// A socket of the server.
    pub(crate) fn server_socket(&self, family: usize, port: u16) -> UdpSocket {
        self.server.enter(|| bound(SERVER[family], port))
    }
}

/// The server's address of this family with `port`.
pub(crate) fn server(family: usize, port: u16) -> SocketAddr {
    (SERVER[family].parse::<IpAddr>().unwrap(), port).into()
}

pub(crate) fn bound(address: &str, port: u16) -> UdpSocket {
    let address: IpAddr = address.parse().unwrap();
    let socket = UdpSocket::bind((address, port)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Reads until `count` packets are held.
pub(crate) fn read(holder: &mut Holder, count: usize) -> Vec<Held> {
    let mut held = Vec::new();
    until(|| {
        holder.read(&mut held);
        held.len() >= count
    });
    held
}

/// Receives a datagram, or says who sent it.
pub(crate) fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut received = None;
    until(|| {
        let mut buffer = [0; 64];
        received = socket
            .recv_from(&mut buffer)
            .ok()
            .map(|(length, from)| (buffer[..length].to_vec(), from));
        received.is_some()
    });
    received.unwrap()
}

pub(crate) fn until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "does not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}
