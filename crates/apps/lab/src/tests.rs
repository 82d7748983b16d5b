//! The instruments themselves, in a real laboratory (these tests need root): before they judge
//! a system they have to see what is put before them by hand.

use std::net::UdpSocket;
use std::time::Duration;

use crate::clock;
use crate::command;
use crate::measure::{Figures, Window, figures};
use crate::namespaces::{Gateway, Wire};
use crate::signals;
use crate::system::Scene;
use crate::traffic::Traffic;

const LIMIT: Duration = Duration::from_secs(20);

/// Adds the virtual addresses to a gateway's own interfaces, or removes them.
fn set_addresses(scene: &Scene, gateway: Gateway, verb: &str) {
    let nodad = if verb == "add" { "nodad" } else { "" };
    let batch = format!(
        "addr {verb} 10.1.0.254/24 dev in\naddr {verb} 10.2.0.254/24 dev out\n\
         addr {verb} fd00:1::fe/64 dev in {nodad}\naddr {verb} fd00:2::fe/64 dev out {nodad}\n"
    );
    let namespace = scene.lab.namespace(gateway.name()).unwrap().name();
    command::run("ip", &["-n", namespace, "-batch", "-"], &batch).unwrap();
}

/// What a takeover's announcements do: the hosts forget which gateway has the addresses.
fn forget_neighbours(scene: &Scene) {
    for host in ["client", "server"] {
        let namespace = scene.lab.namespace(host).unwrap().name();
        command::run("ip", &["-n", namespace, "neigh", "flush", "all"], "").unwrap();
    }
}

/// Runs `during` inside a window and judges it.
fn judge(scene: &Scene, traffic: &Traffic, during: impl FnOnce()) -> Figures {
    let from = clock::now();
    during();
    let to = clock::now();
    traffic.wait_all_moved(to, Duration::from_secs(1)).unwrap();
    let window = Window {
        from,
        fault: from,
        to,
    };
    figures(
        window,
        Gateway::Gw1,
        &traffic.log(),
        &scene.observer.sightings(),
    )
}

fn wait_owners(scene: &Scene, owners: &[Gateway]) {
    signals::wait_for("those owners", LIMIT, || {
        Ok((scene.observer.owners_now() == owners).then_some(()))
    })
    .unwrap();
}

fn pause(milliseconds: u64) {
    signals::sleep(Duration::from_millis(milliseconds)).unwrap();
}

#[test]
fn the_instruments_see_health_death_and_two_owners() {
    let scene = Scene::build().unwrap();
    set_addresses(&scene, Gateway::Gw1, "add");
    scene.wait_owner(Gateway::Gw1, LIMIT).unwrap();
    let traffic = Traffic::start(&scene.lab).unwrap();
    traffic.wait_all_moved(clock::now(), LIMIT).unwrap();

    let healthy = judge(&scene, &traffic, || pause(400));
    assert_eq!((healthy.ipv4.tcp_alive, healthy.ipv4.tcp_total), (20, 20));
    assert_eq!((healthy.ipv6.tcp_alive, healthy.ipv6.tcp_total), (4, 4));
    assert!(healthy.ipv4.probes_sent > 0 && healthy.ipv6.probes_sent > 0);
    assert!(
        healthy.ipv4.probes_lost * 10 < healthy.ipv4.probes_sent,
        "{healthy:?}"
    );
    assert_eq!(
        (
            healthy.two_owners_ms,
            healthy.takeover_ms,
            healthy.stale_frames
        ),
        (0, None, 0)
    );
    assert_eq!(healthy.tap_missed, 0);

    // Dead ports: nobody answers, everything is lost, and after the end all connections live.
    let silent = judge(&scene, &traffic, || {
        scene.lab.set_cut(Gateway::Gw1, true).unwrap();
        wait_owners(&scene, &[]);
        pause(100);
        scene.lab.set_cut(Gateway::Gw1, false).unwrap();
        wait_owners(&scene, &[Gateway::Gw1]);
        traffic.wait_all_moved(clock::now(), LIMIT).unwrap();
    });
    assert!(
        silent.no_owner_ms > 0 && silent.two_owners_ms == 0,
        "{silent:?}"
    );
    assert!(
        silent.ipv4.outage_ms > 50.0 && silent.ipv6.outage_ms > 50.0,
        "{silent:?}"
    );
    assert_eq!((silent.ipv4.tcp_alive, silent.ipv6.tcp_alive), (20, 4));

    // A second owner is seen as such, whatever the client happens to follow.
    let both = judge(&scene, &traffic, || {
        set_addresses(&scene, Gateway::Gw2, "add");
        wait_owners(&scene, &Gateway::BOTH);
        pause(100);
    });
    assert!(
        both.two_owners_ms > 0 && both.takeover_ms.is_some(),
        "{both:?}"
    );
    assert!(both.stale_frames > 0 && both.overlap_ms > 0.0, "{both:?}");
}

#[test]
fn the_rules_let_no_connection_survive_without_its_state() {
    let scene = Scene::build().unwrap();
    set_addresses(&scene, Gateway::Gw1, "add");
    scene.wait_owner(Gateway::Gw1, LIMIT).unwrap();
    let traffic = Traffic::start(&scene.lab).unwrap();
    traffic.wait_all_moved(clock::now(), LIMIT).unwrap();

    let moved = judge(&scene, &traffic, || {
        set_addresses(&scene, Gateway::Gw1, "del");
        set_addresses(&scene, Gateway::Gw2, "add");
        forget_neighbours(&scene);
        scene.wait_owner(Gateway::Gw2, LIMIT).unwrap();
        // Datagrams open a new entry at gw2: the path itself works.
        let since = clock::now();
        signals::wait_for("an answered probe", LIMIT, || {
            let log = traffic.log();
            let back = |probe: &&crate::traffic::Probe| probe.sent > since && probe.back > 0;
            Ok(log
                .probes_v4
                .iter()
                .find(back)
                .and_then(|_| log.probes_v6.iter().find(back))
                .map(drop))
        })
        .unwrap();
        pause(600);
    });
    assert_eq!(
        (moved.ipv4.tcp_alive, moved.ipv6.tcp_alive),
        (0, 0),
        "{moved:?}"
    );
    assert!(moved.takeover_ms.is_some());
}

/// Whether one host gets an answer from an address, asking four times: a kernel that has just
/// failed to resolve an address reports that failure once more.
fn reaches(scene: &Scene, from: &str, to: &str) -> bool {
    let namespace = scene.lab.namespace(from).unwrap();
    let ping = || Ok(command::run("ping", &["-c", "1", "-w", "1", to], "").is_ok());
    (0..4).any(|_| namespace.run(ping).unwrap())
}

/// The pairs that cannot reach each other, all tried at the same time.
fn unreachable<'a>(scene: &Scene, pairs: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    std::thread::scope(|scope| {
        let tries: Vec<_> = pairs
            .iter()
            .map(|pair| scope.spawn(|| (*pair, reaches(scene, pair.0, pair.1))))
            .collect();
        let results = tries.into_iter().map(|thread| thread.join().unwrap());
        results
            .filter(|(_, is_reached)| !is_reached)
            .map(|(pair, _)| pair)
            .collect()
    })
}

#[test]
fn a_partition_separates_the_gateways_only() {
    let scene = Scene::build().unwrap();
    let between = [
        "10.1.0.2",
        "10.2.0.2",
        "10.3.0.2",
        "10.9.0.12",
        "fd00:1::2",
        "fd00:2::2",
    ]
    .map(|peer| ("gw1", peer));
    let beside = [
        ("manager", "10.9.0.11"),
        ("manager", "10.9.0.12"),
        ("client", "10.1.0.1"),
        ("client", "fd00:1::2"),
        ("server", "10.2.0.1"),
        ("server", "10.2.0.2"),
    ];
    scene.lab.set_partition(true).unwrap();
    assert_eq!(unreachable(&scene, &between), between);
    assert_eq!(unreachable(&scene, &beside), []);
    scene.lab.mend().unwrap();
    assert_eq!(unreachable(&scene, &between), []);
}

/// Whether a datagram gets from one host to an address of another one, tried four times. The hosts
/// know each other's hardware address, so nothing has to come back.
fn arrives(scene: &Scene, (from, to): (&str, &str), address: &str) -> bool {
    let bind = || Ok(UdpSocket::bind((address, 0)).unwrap());
    let receiver = scene.lab.namespace(to).unwrap().run(bind).unwrap();
    let patience = Some(Duration::from_millis(100));
    receiver.set_read_timeout(patience).unwrap();
    let target = receiver.local_addr().unwrap();
    let bind = || Ok(UdpSocket::bind("0.0.0.0:0").unwrap());
    let sender = scene.lab.namespace(from).unwrap().run(bind).unwrap();
    (0..4).any(|_| {
        sender.send_to(b"heard?", target).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    })
}

#[test]
fn loss_in_one_direction_is_loss_in_one_direction() {
    let scene = Scene::build().unwrap();
    let ways = [
        (("gw1", "gw2"), "10.3.0.2"),
        (("gw2", "gw1"), "10.3.0.1"),
        (("gw1", "gw2"), "10.1.0.2"),
        (("gw2", "gw1"), "10.1.0.1"),
        (("gw1", "manager"), "10.9.0.10"),
        (("manager", "gw1"), "10.9.0.11"),
        (("client", "gw1"), "10.1.0.1"),
        (("gw1", "client"), "10.1.0.10"),
    ];
    // Everybody learns everybody's hardware address, for longer than this test takes.
    let pairs = ways.map(|((from, _), address)| (from, address));
    assert_eq!(unreachable(&scene, &pairs), []);
    let heard = || ways.map(|(pair, address)| arrives(&scene, pair, address));
    assert_eq!(heard(), [true; 8]);

    scene.lab.lose_between(&[Wire::Link], Gateway::Gw1).unwrap();
    assert_eq!(heard(), [false, true, true, true, true, true, true, true]);
    scene.lab.mend().unwrap();
    scene.lab.lose_between(&Wire::ALL, Gateway::Gw2).unwrap();
    assert_eq!(heard(), [true, false, true, false, true, true, true, true]);
    scene.lab.mend().unwrap();
    scene.lab.lose_at_manager(Gateway::Gw1, true).unwrap();
    assert_eq!(heard(), [true, true, true, true, false, true, true, true]);
    scene.lab.mend().unwrap();
    scene.lab.lose_at_manager(Gateway::Gw1, false).unwrap();
    assert_eq!(heard(), [true, true, true, true, true, false, true, true]);
    scene.lab.mend().unwrap();
    scene.lab.make_mute(Gateway::Gw1).unwrap();
    assert_eq!(
        heard(),
        [false, true, false, true, false, true, true, false]
    );
    scene.lab.mend().unwrap();
    scene.lab.make_deaf(Gateway::Gw1).unwrap();
    assert_eq!(
        heard(),
        [true, false, true, false, true, false, false, true]
    );
    scene.lab.mend().unwrap();
    scene.lab.set_wire(Wire::Link, false).unwrap();
    assert_eq!(heard(), [false, false, true, true, true, true, true, true]);
    scene.lab.mend().unwrap();
    assert_eq!(heard(), [true; 8]);
}

/// Goal: what is said to a gateway that stands still waits, and all of it is let in at the end.
#[test]
fn what_is_held_before_a_gateway_comes_in_at_once() {
    let scene = Scene::build().unwrap();
    set_addresses(&scene, Gateway::Gw1, "add");
    scene.wait_owner(Gateway::Gw1, LIMIT).unwrap();
    let traffic = Traffic::start(&scene.lab).unwrap();
    traffic.wait_all_moved(clock::now(), LIMIT).unwrap();

    scene.lab.set_held(Gateway::Gw1, true).unwrap();
    wait_owners(&scene, &[]);
    let held_from = clock::now();
    pause(100);
    let held_to = clock::now();
    scene.lab.set_held(Gateway::Gw1, false).unwrap();
    scene.wait_owner(Gateway::Gw1, LIMIT).unwrap();
    let log = traffic.log();
    let held = log
        .probes_v4
        .iter()
        .filter(|probe| (held_from..held_to).contains(&probe.sent));
    let held: Vec<_> = held.collect();
    let late = held.iter().filter(|probe| probe.back >= held_to).count();
    let early = held.iter().filter(|probe| probe.back != 0).count() - late;
    // The server's socket may be too small for all of them at once.
    assert!(
        early == 0 && late * 2 > held.len(),
        "{early}, {late} of {}",
        held.len()
    );
    scene.lab.mend().unwrap();
    traffic.wait_all_moved(clock::now(), LIMIT).unwrap();
}
