//! What is held, what is not, and what is known of it.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use vnfpool_hold::{Connection, Holder};

use crate::world::{CLIENT, OUTSIDE, World, bound, read, receive, server, until};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: [u8; 2] = [1, 58];
/// `IPS_SRC_NAT`, and `IPS_CONFIRMED`, which a held connection is not.
const SRC_NAT: u32 = 1 << 4;
const CONFIRMED: u32 = 1 << 3;
/// `TCP_CONNTRACK_SYN_SENT`.
const SYN_SENT: u8 = 1;

/// Nothing more is held.
fn assert_nothing_held(holder: &mut Holder) {
    let mut more = Vec::new();
    holder.read(&mut more);
    assert_eq!(more, []);
}

fn assert_nothing_received(socket: &UdpSocket) {
    let error = socket.recv_from(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

fn assert_translated(connection: &Connection, family: usize) {
    assert_eq!(connection.original.src.to_string(), CLIENT[family]);
    assert_eq!(connection.reply.dst.to_string(), OUTSIDE[family]);
    assert_eq!(connection.original.dst, connection.reply.src);
    assert_eq!(connection.status & (SRC_NAT | CONFIRMED), SRC_NAT);
    assert_eq!(connection.mark, 77);
    assert_eq!((connection.zone, connection.zone_directions), (0, 3));
}

#[test]
fn a_first_datagram_leaves_when_it_is_released_and_its_translation_is_known_before() {
    let world = World::new();
    let mut holder = world.hold(64);
    for family in [0, 1] {
        let server_socket = world.server_socket(family, 5000);
        let client = world.client_socket(family);
        client.send_to(b"first", server(family, 5000)).unwrap();
        let held = read(&mut holder, 1);
        let connection = held[0].connection.unwrap();
        assert_translated(&connection, family);
        let client_port = client.local_addr().unwrap().port();
        assert_eq!(connection.original.src_port, client_port);
        assert_eq!(connection.original.dst_port, 5000);
        assert_eq!(connection.original.protocol, UDP);
        let seconds = connection.timeout_ticks / holder.ticks_per_second();
        assert_eq!(seconds, 30, "nf_conntrack_udp_timeout");
        assert_nothing_received(&server_socket);

        holder.release_through(held[0].id).unwrap();
        let (bytes, from) = receive(&server_socket);
        assert_eq!(bytes, b"first");
        assert_eq!(from.ip(), connection.reply.dst);
        assert_eq!(from.port(), connection.reply.dst_port);

        // The connection is in the table now: nothing of it is held, in either direction.
        client.send_to(b"second", server(family, 5000)).unwrap();
        assert_eq!(receive(&server_socket).0, b"second");
        server_socket.send_to(b"answer", from).unwrap();
        assert_eq!(receive(&client).0, b"answer");
        assert_nothing_held(&mut holder);
    }
    let statistics = holder.statistics().unwrap();
    assert_eq!((statistics.held, statistics.released), (2, 2));
    assert_eq!((statistics.unmatched, statistics.overflowed), (0, 0));
}

#[test]
fn of_a_tcp_connection_the_first_packet_is_held_and_no_other() {
    let world = World::new();
    let mut holder = world.hold(64);
    for family in [0, 1] {
        let listener = world
            .server
            .enter(|| TcpListener::bind(server(family, 80)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let domain = [Domain::IPV4, Domain::IPV6][family];
        let client = world.client.enter(|| {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.set_nonblocking(true).unwrap();
            // In progress.
            let _ = socket.connect(&SockAddr::from(server(family, 80)));
            socket
        });
        let held = read(&mut holder, 1);
        let connection = held[0].connection.unwrap();
        assert_translated(&connection, family);
        assert_eq!(connection.original.protocol, TCP);
        assert_eq!(connection.state, SYN_SENT);
        assert_ne!(connection.window_scale[0], 0, "it is in the first packet");
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        // It may have been repeated in between, if the machine was busy.
        holder.release_through(held[0].id).unwrap();
        until(|| listener.accept().is_ok());
        until(|| client.peer_addr().is_ok());
        client.send(b"data").unwrap();
        assert_nothing_held(&mut holder);
    }
    assert_eq!(holder.statistics().unwrap().unmatched, 0);
}

#[test]
fn an_echo_request_is_held() {
    let world = World::new();
    let mut holder = world.hold(64);
    for family in [0, 1] {
        let target = server(family, 0).ip();
        std::thread::scope(|scope| {
            let arguments = format!("-c 1 -w 30 {target}");
            let client = &world.client;
            let ping = scope.spawn(move || client.run("ping", &arguments, ""));
            let held = read(&mut holder, 1);
            let connection = held[0].connection.unwrap();
            assert_translated(&connection, family);
            assert_eq!(connection.original.protocol, ICMP[family]);
            let echo_request = [8, 128][family];
            assert_eq!(connection.original.dst_port, echo_request << 8);
            holder.release_through(held[0].id).unwrap();
            let answered = ping.join().unwrap();
            assert!(answered.contains(" 1 received"), "{answered}");
        });
    }
}

#[test]
fn packets_of_one_connection_wait_for_each_other_and_leave_in_order() {
    let world = World::new();
    let mut holder = world.hold(64);
    let server_socket = world.server_socket(0, 5000);
    let client = world.client_socket(0);
    for byte in 0..3 {
        client.send_to(&[byte], server(0, 5000)).unwrap();
    }
    let held = read(&mut holder, 3);
    assert!(held.windows(2).all(|pair| pair[1].id == pair[0].id + 1));
    let tuples = |at: usize| {
        held[at]
            .connection
            .map(|known| (known.original, known.reply))
    };
    assert_eq!((tuples(1), tuples(2)), (tuples(0), tuples(0)));
    // One by one, and the number of an earlier one changes nothing.
    for at in [0, 1, 0, 2] {
        holder.release_through(held[at].id).unwrap();
    }
    for byte in 0..3 {
        assert_eq!(receive(&server_socket).0, [byte]);
    }
    assert_eq!(holder.statistics().unwrap().released, 3);
}

#[test]
fn the_first_packet_after_it_was_asked_for_wakes_and_no_other() {
    let world = World::new();
    let mut holder = world.hold(64);
    let send = || {
        world
            .client_socket(0)
            .send_to(b"new", server(0, 5000))
            .unwrap()
    };
    let is_awake = |holder: &Holder| {
        let mut fds = [PollFd::from_borrowed_fd(holder.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    send();
    read(&mut holder, 1);
    assert!(!is_awake(&holder), "nobody asked");
    assert!(!holder.arm().unwrap());
    send();
    until(|| is_awake(&holder));
    assert!(holder.arm().unwrap(), "there is something to read");
    assert!(!is_awake(&holder));
    read(&mut holder, 1);
}

#[test]
fn packets_whose_records_found_no_room_are_told_by_their_numbers() {
    let world = World::new();
    let mut holder = world.hold(4);
    let server_socket = world.server_socket(0, 5000);
    // All at a time, or the port of a closed one is had again and its connection is no new one.
    let clients: Vec<_> = (0..100).map(|_| world.client_socket(0)).collect();
    // Released without having been read: the ring has a page, which is less than a hundred records.
    for (id, client) in (1..).zip(&clients) {
        client.send_to(b"new", server(0, 5000)).unwrap();
        until(|| world.gateway.enter(|| queue_has(id)));
        holder.release_through(id).unwrap();
        receive(&server_socket);
    }
    assert!(holder.arm().unwrap());
    let held = read(&mut holder, 100);
    assert!(held.iter().map(|packet| packet.id).eq(1..=100));
    let unmatched = held
        .iter()
        .filter(|packet| packet.connection.is_none())
        .count();
    assert!(unmatched > 0 && unmatched < 100, "{unmatched}");
    assert_eq!(holder.statistics().unwrap().unmatched, unmatched as u64);
}

/// Whether the queue has given out number `id` and holds a packet.
fn queue_has(id: u32) -> bool {
    let queues =
        std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue").unwrap();
    let fields: Vec<&str> = queues.split_whitespace().collect();
    fields[2] == "1" && fields[7] == id.to_string()
}

#[test]
fn packets_of_this_machine_and_by_other_interfaces_are_not_held() {
    let world = World::new();
    let mut holder = world.hold(64);
    for family in [0, 1] {
        // The gateway itself, through the interface that is watched.
        let server_socket = world.server_socket(family, 5000);
        let gateway = world.gateway.enter(|| bound(OUTSIDE[family], 0));
        gateway.send_to(b"own", server(family, 5000)).unwrap();
        assert_eq!(receive(&server_socket).0, b"own");
        // Forwarded, through the other one.
        let client = world.client_socket(family);
        let route = [
            "route add 10.1.0.0/24 via 10.2.0.1",
            "-6 route add fd00:1::/64 via fd00:2::1",
        ];
        world.server.ip(route[family]);
        server_socket
            .send_to(b"in", client.local_addr().unwrap())
            .unwrap();
        assert_eq!(receive(&client).0, b"in");
    }
    assert_nothing_held(&mut holder);
}

#[test]
fn nearly_all_ports_in_use_and_what_waits_is_told_with_the_port_that_it_gets() {
    let world = World::new();
    let server_socket = world.server_socket(0, 6000);
    // 38 of 40 ports are taken: 95 in a hundred.
    let old: Vec<_> = (0..38).map(|_| world.client_socket(0)).collect();
    for client in &old {
        client.send_to(b"old", server(0, 6000)).unwrap();
        receive(&server_socket);
    }
    let mut holder = world.hold(64);
    let clients = [world.client_socket(0), world.client_socket(0)];
    for client in &clients {
        client.send_to(b"new", server(0, 6000)).unwrap();
        let held = read(&mut holder, 1);
        let connection = held[0].connection.unwrap();
        holder.release_through(held[0].id).unwrap();
        let (_, from) = receive(&server_socket);
        assert_eq!(from.port(), connection.reply.dst_port);
        assert!((20_000..20_040).contains(&from.port()));
    }
}
