//! Whatever happens to the holder, packets go on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use vnfpool_hold::{HoldError, Holder, Options};

use crate::world::{World, read, receive, server};

/// Names the namespace to the process that is to be killed.
const NAMESPACE: &str = "VNFPOOL_HOLD_TEST_NAMESPACE";

#[test]
fn a_full_queue_lets_packets_pass_and_counts_them() {
    let world = World::new();
    let mut holder = world.hold(4);
    let server_socket = world.server_socket(0, 5000);
    let clients: Vec<_> = (0..10).map(|_| world.client_socket(0)).collect();
    for client in &clients {
        client.send_to(b"new", server(0, 5000)).unwrap();
    }
    let ports: Vec<u16> = (0..6).map(|_| receive(&server_socket).1.port()).collect();
    let held = read(&mut holder, 4);
    let statistics = holder.statistics().unwrap();
    assert_eq!((statistics.held, statistics.overflowed), (4, 6));
    for packet in &held {
        assert!(!ports.contains(&packet.connection.unwrap().reply.dst_port));
    }
    holder.release_all().unwrap();
    for _ in 0..4 {
        receive(&server_socket);
    }
    let statistics = holder.statistics().unwrap();
    assert_eq!((statistics.released, statistics.overflowed), (4, 6));
}

#[test]
fn a_holder_that_is_dropped_lets_go_and_leaves_nothing() {
    let world = World::new();
    let before = world.gateway.run("nft", "list ruleset", "");
    let mut holder = world.hold(64);
    let server_socket = world.server_socket(0, 5000);
    let client = world.client_socket(0);
    client.send_to(b"new", server(0, 5000)).unwrap();
    read(&mut holder, 1);
    // One that was not even read of.
    world
        .client_socket(0)
        .send_to(b"new", server(0, 5000))
        .unwrap();
    drop(holder);
    receive(&server_socket);
    receive(&server_socket);
    assert_eq!(world.gateway.run("nft", "list ruleset", ""), before);
}

#[test]
fn there_is_one_holder_in_a_network_namespace() {
    let world = World::new();
    let first = world.hold(64);
    let open = |queue| {
        world.gateway.enter(|| {
            Holder::open(&Options {
                queue,
                length: 64,
                interfaces: Vec::new(),
            })
        })
    };
    assert!(matches!(open(7), Err(HoldError::Refused { .. })));
    assert!(matches!(open(8), Err(HoldError::Taken { .. })));
    drop(first);
    open(7).unwrap();
}

#[test]
fn options_that_cannot_be_met_are_refused() {
    for (length, interface) in [
        (0, "a"),
        (63, "a"),
        (1 << 17, "a"),
        (64, ""),
        (64, "sixteen-bytes-16"),
    ] {
        let result = Holder::open(&Options {
            queue: 7,
            length,
            interfaces: vec![interface.to_owned()],
        });
        assert!(
            matches!(result, Err(HoldError::Options(_))),
            "{length} {interface}"
        );
    }
}

#[test]
fn packets_pass_when_the_holder_is_killed_and_the_next_one_holds_them_again() {
    let world = World::new();
    let server_socket = world.server_socket(0, 5000);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "ends::holds_until_it_is_killed",
        ])
        .env(NAMESPACE, world.gateway.name())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holds from now on")));
    // Lost with its holder.
    let client = world.client_socket(0);
    client.send_to(b"lost", server(0, 5000)).unwrap();
    assert!(lines.any(|line| line.unwrap().contains("holds one")));
    child.kill().unwrap();
    child.wait().unwrap();
    let client = world.client_socket(0);
    client.send_to(b"passes", server(0, 5000)).unwrap();
    assert_eq!(receive(&server_socket).0, b"passes");

    let mut holder = world.hold(64);
    let client = world.client_socket(0);
    client.send_to(b"waits", server(0, 5000)).unwrap();
    let held = read(&mut holder, 1);
    assert!(server_socket.recv_from(&mut [0; 8]).is_err());
    holder.release_through(held[0].id).unwrap();
    assert_eq!(receive(&server_socket).0, b"waits");
}

#[test]
#[ignore = "the process that another test kills"]
fn holds_until_it_is_killed() {
    let name = std::env::var(NAMESPACE).unwrap();
    let namespace = std::fs::File::open(format!("/run/netns/{name}")).unwrap();
    rustix::thread::move_into_link_name_space(
        std::os::fd::AsFd::as_fd(&namespace),
        Some(rustix::thread::LinkNameSpaceType::Network),
    )
    .unwrap();
    let mut holder = Holder::open(&Options {
        queue: 7,
        length: 64,
        interfaces: Vec::new(),
    })
    .unwrap();
    println!("holds from now on");
    read(&mut holder, 1);
    println!("holds one");
    std::thread::park();
}
