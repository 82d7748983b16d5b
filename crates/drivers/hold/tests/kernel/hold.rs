//! What is held, what is not, and what is known of it.

use std::net::SocketAddr;

use crate::world::{CLIENT, OUTSIDE, SERVER, World, read, receive};

const UDP: u8 = 17;

#[test]
fn a_first_packet_leaves_when_it_is_released_and_its_translation_is_known_before() {
    let world = World::new();
    let mut holder = world.hold(64);
    for family in [0, 1] {
        let server = world.server_socket(family, 5000);
        let client = world.client_socket(family);
        let client_port = client.local_addr().unwrap().port();
        let server_address: SocketAddr =
            (SERVER[family].parse::<std::net::IpAddr>().unwrap(), 5000).into();
        client.send_to(b"first", server_address).unwrap();
        let held = read(&mut holder, 1);
        let connection = held[0].connection.unwrap();
        assert_eq!(connection.original.src.to_string(), CLIENT[family]);
        assert_eq!(connection.original.src_port, client_port);
        assert_eq!(connection.original.protocol, UDP);
        assert_eq!(connection.reply.dst.to_string(), OUTSIDE[family]);
        assert!(
            server.recv_from(&mut [0; 8]).is_err(),
            "left before it was released"
        );

        holder.release_through(held[0].id).unwrap();
        let (bytes, from) = receive(&server);
        assert_eq!(bytes, b"first");
        assert_eq!(from.ip(), connection.reply.dst);
        assert_eq!(from.port(), connection.reply.dst_port);

        // The connection is known now: nothing of it is held any more, in either direction.
        client.send_to(b"second", server_address).unwrap();
        assert_eq!(receive(&server).0, b"second");
        server.send_to(b"answer", from).unwrap();
        assert_eq!(receive(&client).0, b"answer");
        let mut more = Vec::new();
        holder.read(&mut more).unwrap();
        assert_eq!(more, []);
    }
    let statistics = holder.statistics().unwrap();
    assert_eq!((statistics.held, statistics.released), (2, 2));
    assert_eq!((statistics.unmatched, statistics.overflowed), (0, 0));
}
