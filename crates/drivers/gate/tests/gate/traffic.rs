//! What passes and what does not.

use std::net::{IpAddr, Ipv4Addr};

use vnfpool_gate::{AttachMode, Fence, Gate, GateError, GatedAddress, LeaseCell};
use vnfpool_model::VirtualRouterId;

use crate::netns::{self, Lab, Prober, capture, echo};
use crate::{Pins, both, configured, gated, in_seconds};

/// Goal: traffic to the virtual addresses and through the gateway, both ways and in both
/// families, passes while the lease runs and at no other time. Method: echoes from all sides.
#[test]
fn traffic_follows_the_lease() {
    follows_the_lease(AttachMode::Tcx);
}

/// Goal: the same with a tc filter, as kernels before 6.6 need it.
#[test]
fn traffic_follows_the_lease_with_clsact() {
    follows_the_lease(AttachMode::Clsact);
}

fn follows_the_lease(mode: AttachMode) {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    let addresses = both(&lab, "gw1");
    let gate = lab.within("gw1", || {
        let mut gate = Gate::load_with(pins.path(), mode).unwrap();
        gate.attach("in").unwrap();
        gate.attach("out").unwrap();
        gate.set_slot(0, &addresses).unwrap();
        gate
    });
    let mut lease = gate.lease_cell(0).unwrap();
    let _echoes = ["client", "gw1", "server"].map(|node| echo(&lab, node));
    let mut probers = [
        ("client", netns::INSIDE_V4),
        ("client", netns::INSIDE_V6),
        ("client", netns::SERVER_V4),
        ("client", netns::SERVER_V6),
        ("server", netns::CLIENT_V4),
        ("server", netns::CLIENT_V6),
    ]
    .map(|(from, to)| (format!("{from} to {to}"), Prober::new(&lab, from, to)));

    for (path, prober) in &mut probers {
        assert!(prober.is_silent(), "{path} through a gate never opened");
    }
    for round in 0..2 {
        lease.open_until(in_seconds(600));
        for (path, prober) in &mut probers {
            assert!(prober.works(), "{path} through an open gate, round {round}");
        }
        let before = gate.counters(0).unwrap().ingress_dropped;
        lease.close();
        for (path, prober) in &mut probers {
            assert!(prober.is_silent(), "{path} through a closed gate");
        }
        assert!(gate.counters(0).unwrap().ingress_dropped > before);
    }
    assert_eq!(gate.counters(0).unwrap().ingress_foreign, 0);

    // The gateway's own addresses are none of the gate's business.
    assert!(Prober::new(&lab, "client", "10.1.0.1").works());
    drop(lease);
    lab.within("gw1", || gate.remove().unwrap());
    std::mem::forget(pins);
    for (path, prober) in &mut probers {
        assert!(prober.works(), "{path} without a gate");
    }
}

/// Goal: forwarded packets are stopped on their way out too, by the device that they came in by.
/// Method: gate the inside only and let the server talk, whose packets come in ungated; close
/// the gate in the middle of a working conversation.
#[test]
fn forwarded_packets_are_stopped_on_their_way_out() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    let addresses = both(&lab, "gw1");
    let gate = lab.within("gw1", || {
        let mut gate = Gate::load(pins.path()).unwrap();
        gate.attach("in").unwrap();
        gate.set_slot(0, &addresses).unwrap();
        gate
    });
    let mut lease = gate.lease_cell(0).unwrap();
    let _echo = echo(&lab, "client");
    for target in [netns::CLIENT_V4, netns::CLIENT_V6] {
        let mut prober = Prober::new(&lab, "server", target);
        lease.open_until(in_seconds(600));
        assert!(prober.works(), "{target}");
        lease.close();
        let before = gate.counters(0).unwrap().egress_dropped;
        let frames = capture(&lab, "client");
        assert!(prober.is_silent(), "{target}");
        let after = gate.counters(0).unwrap().egress_dropped;
        assert!(after >= before + 3, "{target}: {before} {after}");
        let port = netns::ECHO_PORT.to_be_bytes();
        let leaked = |frame: &&Vec<u8>| frame.windows(2).any(|two| two == port);
        let frames = frames.finish();
        assert_eq!(frames.iter().find(leaked), None, "{target}");
    }
}

/// Goal: a standby says nothing about its virtual addresses. Method: capture everything that the
/// client receives while it asks for them and while the standby's devices come up and talk; the
/// same capture with an open gate shows that it would be seen.
#[test]
fn a_standby_says_nothing() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    let gate = configured(&lab, "gw1", &pins).unwrap();
    let mut lease = gate.lease_cell(0).unwrap();
    let virtual_mac = |frame: &&Vec<u8>| frame[6..].starts_with(&[0, 0, 0x5e, 0]);
    let talk = || {
        let frames = capture(&lab, "client");
        for target in [netns::INSIDE_V4, netns::INSIDE_V6] {
            Prober::new(&lab, "client", target).is_silent();
        }
        for device in ["vp11v4", "vp11v6"] {
            // Coming up makes it join groups and, as asked here, announce itself.
            lab.write("gw1", &format!("ipv4/conf/{device}/arp_notify"), "1");
            lab.write("gw1", &format!("ipv6/conf/{device}/ndisc_notify"), "1");
            lab.ip("gw1", &format!("link set {device} down"));
            lab.ip("gw1", &format!("link set {device} up"));
        }
        lab.ip("gw1", "addr replace fd00:1::fe/128 dev vp11v6 nodad");
        for (from, to) in [
            (netns::INSIDE_V4, netns::CLIENT_V4),
            (netns::INSIDE_V6, netns::CLIENT_V6),
        ] {
            let socket = lab.within("gw1", || std::net::UdpSocket::bind((from, 0)).unwrap());
            // A gate's drop may be reported as an error.
            let _ = socket.send_to(b"virtual source", (to, 9));
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        frames.finish()
    };

    let frames = talk();
    assert!(!frames.is_empty(), "the client hears the LAN at all");
    assert_eq!(frames.iter().find(virtual_mac), None);
    let says = |frames: &[Vec<u8>]| {
        let said = |frame: &&Vec<u8>| frame.windows(14).any(|part| part == b"virtual source");
        frames.iter().filter(said).count()
    };
    assert_eq!(says(&frames), 0);
    let counters = gate.counters(0).unwrap();
    assert!(
        counters.ingress_dropped > 0 && counters.egress_dropped > 0,
        "{counters:?}"
    );

    lease.open_until(in_seconds(600));
    let frames = talk();
    assert!(frames.iter().filter(virtual_mac).count() > 0);
    // The client's own "port unreachable" quotes them too.
    assert!(says(&frames) >= 2);
}

/// Goal: only the virtual MAC may announce a virtual address, whatever the parent's settings.
/// Method: let the parent answer for all addresses of the machine, which is what Linux does
/// unless told otherwise.
#[test]
fn the_parent_cannot_announce_a_virtual_address() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    lab.write("gw1", "ipv4/conf/in/arp_ignore", "0");
    let pins = Pins::of(&lab);
    let gate = configured(&lab, "gw1", &pins).unwrap();
    let mut lease = gate.lease_cell(0).unwrap();
    lease.open_until(in_seconds(600));
    let _echo = echo(&lab, "gw1");
    let mut prober = Prober::new(&lab, "client", netns::INSIDE_V4);
    for _ in 0..5 {
        lab.ip("client", "neigh flush dev in");
        assert!(prober.works());
        let neighbor = lab.ip("client", "neigh show 10.1.0.254");
        assert!(neighbor.contains("00:00:5e:00:01:0b"), "{neighbor}");
    }
    assert!(gate.counters(0).unwrap().egress_foreign > 0);
}

/// Goal: a second owner of the address is noticed by the one who has the lease. Method: two
/// gateways, both open, and the second announces itself.
#[test]
fn a_second_owner_is_counted() {
    let lab = Lab::new(2);
    let pins = Pins::of(&lab);
    for node in ["gw1", "gw2"] {
        lab.add_virtual_addresses(node);
    }
    let gate = configured(&lab, "gw1", &pins).unwrap();
    let mut lease = gate.lease_cell(0).unwrap();
    lease.open_until(in_seconds(600));
    assert_eq!(gate.counters(0).unwrap().ingress_foreign, 0);
    lab.write("gw2", "ipv4/conf/vp11v4/arp_notify", "1");
    lab.ip("gw2", "link set vp11v4 down");
    lab.ip("gw2", "link set vp11v4 up");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(gate.counters(0).unwrap().ingress_foreign > 0);
}

/// Goal: gates are independent, and nothing belongs to two of them. Method: one gate per LAN.
#[test]
fn gates_are_independent() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    let (inside, outside) = (gated(&lab, "gw1", "in"), gated(&lab, "gw1", "out"));
    let mut gate = lab.within("gw1", || {
        let mut gate = Gate::load(pins.path()).unwrap();
        gate.attach("in").unwrap();
        gate.attach("out").unwrap();
        gate
    });
    gate.set_slot(0, &inside).unwrap();
    gate.set_slot(255, &outside).unwrap();
    let taken = gate.set_slot(1, &outside[1..]);
    let (index, owner) = (1, 255);
    assert!(
        matches!(taken, Err(GateError::Taken { index: i, owner: o }) if (i, o) == (index, owner))
    );

    let _echo = echo(&lab, "gw1");
    let mut lease = gate.lease_cell(0).unwrap();
    assert!(matches!(
        gate.lease_cell(0),
        Err(GateError::WriterTaken { index: 0 })
    ));
    lease.open_until(in_seconds(600));
    lease.raise(in_seconds(1));
    assert!(gate.deadline(0) > in_seconds(500), "a raise never shortens");
    let mut inside_prober = Prober::new(&lab, "client", netns::INSIDE_V4);
    let mut outside_prober = Prober::new(&lab, "server", netns::OUTSIDE_V6);
    assert!(inside_prober.works());
    assert!(outside_prober.is_silent());

    // A slot that is removed is ungated: that is why its addresses have to go first.
    gate.remove_slot(255).unwrap();
    assert!(outside_prober.works());
    drop(lease);
    assert!(inside_prober.is_silent(), "a dropped writer closes");
}

/// Goal: keys that share a place in the program's index are told apart, in both directions, before
/// and after one of them goes. Method: a second slot whose MAC, device and address are chosen so that
/// each shares the place of one of the first slot's; one slot is open, then the other.
#[test]
fn slots_that_share_places_are_told_apart() {
    let lab = Lab::new(1);
    lab.add_virtual_addresses("gw1");
    let pins = Pins::of(&lab);
    let addresses = both(&lab, "gw1");
    let mut gate = configured(&lab, "gw1", &pins).unwrap();
    let twins: Vec<GatedAddress> = addresses.iter().filter_map(twin).collect();
    assert_eq!(twins.len(), 2, "the IPv4 addresses of both LANs");
    gate.set_slot(1, &twins).unwrap();
    let (mut lease, mut twin_lease) = (gate.lease_cell(0).unwrap(), gate.lease_cell(1).unwrap());
    let _echoes = ["client", "gw1", "server"].map(|node| echo(&lab, node));
    let mut probers = [
        ("client", netns::INSIDE_V4),
        ("client", netns::SERVER_V4),
        ("server", netns::CLIENT_V4),
    ]
    .map(|(from, to)| (format!("{from} to {to}"), Prober::new(&lab, from, to)));

    let mut judge = |lease: &mut LeaseCell| {
        lease.open_until(in_seconds(600));
        for (path, prober) in &mut probers {
            assert!(prober.works(), "{path} through an open gate");
        }
        lease.close();
        for (path, prober) in &mut probers {
            assert!(prober.is_silent(), "{path} through a closed gate");
        }
    };
    judge(&mut lease);
    twin_lease.open_until(in_seconds(600));
    judge(&mut lease);
    drop(twin_lease);
    gate.remove_slot(1).unwrap();
    judge(&mut lease);
}

/// Another slot's address whose keys share the places of all of `gated`'s; none for IPv6.
fn twin(gated: &GatedAddress) -> Option<GatedAddress> {
    let IpAddr::V4(address) = gated.address else {
        return None;
    };
    let word = |address: Ipv4Addr| u64::from(u32::from_ne_bytes(address.octets()));
    let vrid = gated.mac.0[5];
    let mac = |ifindex: u32, vrid: u8| u64::from(ifindex) << 9 | u64::from(vrid);
    let other = VirtualRouterId(99.try_into().unwrap());
    // 198.18.0.0/15 is for benchmarks, and no interface has such an index.
    let shares = |number: &u32| {
        let address_there = Ipv4Addr::from(0xc612_0000 + number);
        place(3, word(address_there)) == place(3, word(address))
    };
    let address = Ipv4Addr::from(0xc612_0000 + (0..0x2_0000).find(shares)?);
    let mut indexes = 1_000_000..2_000_000;
    let shares =
        |index: &u32| place(1, mac(*index, 99)) == place(1, mac(gated.parent_ifindex, vrid));
    let parent_ifindex = indexes.find(shares)?;
    let shares =
        |index: &u32| place(2, u64::from(*index)) == place(2, u64::from(gated.device_ifindex));
    Some(GatedAddress {
        address: address.into(),
        mac: other.mac(address.into()),
        parent_ifindex,
        device_ifindex: (2_000_000..3_000_000).find(shares)?,
    })
}

/// The arithmetic of `bpf/gate.bpf.c`.
fn place(kind: u64, payload: u64) -> u64 {
    (kind << 41 | payload).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52
}
