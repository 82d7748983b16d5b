//! The driver in real network namespaces. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

#[path = "../netns/mod.rs"]
mod netns;

mod machine;
mod nat_map;
mod together;

use std::net::IpAddr;
use std::time::Duration;

use netns::{Lab, Prober, capture, echo, run};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vnfpool_linux::announce::Announcer;
use vnfpool_linux::health::{Forwarding, TableFamily, TableQuestion};
use vnfpool_linux::link_watch::{LinkChange, LinkWatch};
use vnfpool_linux::links::{self, LinkError};
use vnfpool_linux::sysctl::Family;
use vnfpool_linux::witness::{Sighting, Witness};
use vnfpool_linux::{ParentSettings, VirtualDevice, addresses};
use vnfpool_model::{MacAddr, VirtualAddress, VirtualRouterId};

const VRID: u8 = 11;

fn vrid() -> VirtualRouterId {
    VirtualRouterId(VRID.try_into().unwrap())
}

fn inside_addresses() -> [IpAddr; 2] {
    [netns::INSIDE_V4, netns::INSIDE_V6].map(|address| address.parse().unwrap())
}

fn virtual_address(address: IpAddr) -> VirtualAddress {
    VirtualAddress {
        address: address.into(),
        lan: "inside".into(),
        vrid: vrid(),
        witnesses: Vec::new(),
    }
}

/// Gives the calling thread's gateway the inside addresses.
fn configure_inside() -> [VirtualDevice; 2] {
    let parent = links::find("in").unwrap();
    ParentSettings::apply(&parent).unwrap();
    inside_addresses().map(|address| {
        let mut device = VirtualDevice::prepare(&parent, vrid(), address).unwrap();
        device.configure(&[address]).unwrap();
        device
    })
}

/// Waits until something can be read; a generous limit, so that a failure ends.
fn wait_readable(descriptor: &impl std::os::fd::AsFd) {
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let polled = &mut [PollFd::new(descriptor, PollFlags::IN)];
    assert_eq!(poll(polled, Some(&limit)).unwrap(), 1, "nothing came");
}

/// Goal: a virtual device carries its addresses under its MAC in both families, can be taken over
/// as it is, and leaves nothing behind. Method: configure, let the client talk to it, configure
/// again, remove.
#[test]
fn virtual_devices_come_and_go() {
    let lab = Lab::new(1);
    // As a distribution may have it: strict, which the device has to cope with.
    lab.write("gw1", "ipv4/conf/all/rp_filter", "1");
    let _echo = echo(&lab, "gw1");
    let mut probers =
        inside_addresses().map(|address| Prober::new(&lab, "client", &address.to_string()));
    let mut first = None;
    for round in 0..2 {
        let mut devices = lab.within("gw1", configure_inside);
        for prober in &mut probers {
            assert!(prober.works(), "round {round}");
        }
        let indexes = devices.each_ref().map(|device| device.interface().ifindex);
        assert_eq!(*first.get_or_insert(indexes), indexes, "taken over");
        for (device, address) in devices.iter().zip(inside_addresses()) {
            let found = lab.within("gw1", || addresses::list(device.interface()).unwrap());
            assert_eq!(found, [address.into()], "this address and no other");
            assert_eq!(device.interface().mac, vrid().mac(address));
        }
        for (address, mac) in [
            (netns::INSIDE_V4, "00:00:5e:00:01:0b"),
            (netns::INSIDE_V6, "00:00:5e:00:02:0b"),
        ] {
            let neighbor = lab.ip("client", &format!("neigh show {address}"));
            assert!(neighbor.contains(mac), "{neighbor}");
        }
        lab.within("gw1", || {
            for device in &mut devices {
                device.configure(&[]).unwrap();
            }
        });
        for prober in &mut probers {
            assert!(prober.is_silent(), "turned off");
        }
        if round == 1 {
            lab.within("gw1", || devices.map(|device| device.remove().unwrap()));
        }
    }
    assert!(!lab.ip("gw1", "link show").contains("vp11"));
    for prober in &mut probers {
        assert!(prober.is_silent());
    }
}

/// Goal: the parent's settings are put back as they were. Method: one of them has an unusual
/// value before.
#[test]
fn parent_settings_are_restored() {
    let lab = Lab::new(1);
    let keys = ["arp_ignore", "arp_announce"].map(|key| format!("ipv4/conf/in/{key}"));
    lab.write("gw1", &keys[1], "1");
    let values = || keys.each_ref().map(|key| lab.read("gw1", key));
    assert_eq!(values(), ["0", "1"]);
    lab.within("gw1", || {
        let parent = links::find("in").unwrap();
        let settings = ParentSettings::apply(&parent).unwrap();
        assert_eq!(values(), ["1", "2"]);
        settings.restore().unwrap();
    });
    assert_eq!(values(), ["0", "1"]);
}

/// Goal: names that are missing or taken give clear errors, and one virtual router id works on two
/// LANs.
#[test]
fn names_may_be_missing_or_taken() {
    let lab = Lab::new(1);
    lab.ip("gw1", "link add vp12v4 type bridge");
    let address = inside_addresses()[0];
    lab.within("gw1", || {
        for name in ["nothing", "a-name-that-no-interface-can-have", ""] {
            let found = links::find(name);
            assert!(
                matches!(found, Err(LinkError::NotFound { .. })),
                "{found:?}"
            );
        }
        let inside = links::find("in").unwrap();
        let outside = links::find("out").unwrap();
        let other = VirtualRouterId(12.try_into().unwrap());
        let taken = links::ensure_macvlan(&inside, other, address);
        assert!(matches!(taken, Err(LinkError::NotOurs { name }) if name == "vp12v4"));
        let first = links::ensure_macvlan(&inside, vrid(), address).unwrap();
        let second = links::ensure_macvlan(&outside, vrid(), address).unwrap();
        assert_eq!(first.name, "vp11v4");
        assert_eq!(second.name, format!("vp11v4p{}", outside.ifindex));
        assert_eq!(
            links::ensure_macvlan(&outside, vrid(), address).unwrap(),
            second
        );
        assert_eq!(second.parent_ifindex, Some(outside.ifindex));
        links::remove(&first).unwrap();
        links::remove(&first).unwrap();
    });
}

/// Goal: an announcement makes hosts send to the virtual MAC. Method: the client believes that
/// the address is elsewhere; both families.
#[test]
fn announcements_move_an_address() {
    let lab = Lab::new(1);
    lab.ip(
        "client",
        "neigh replace 10.1.0.254 lladdr 02:00:00:00:00:99 dev in nud stale",
    );
    lab.ip(
        "client",
        "neigh replace fd00:1::fe lladdr 02:00:00:00:00:99 dev in nud stale router",
    );
    let frames = capture(&lab, "client");
    lab.within("gw1", || {
        let announcer = Announcer::new(links::find("in").unwrap().ifindex).unwrap();
        for address in inside_addresses() {
            announcer.announce(&virtual_address(address)).unwrap();
        }
    });
    for (address, mac) in [
        (netns::INSIDE_V4, "00:00:5e:00:01:0b"),
        (netns::INSIDE_V6, "00:00:5e:00:02:0b"),
    ] {
        let moved = |_| {
            std::thread::sleep(Duration::from_millis(20));
            let neighbor = lab.ip("client", &format!("neigh show {address}"));
            neighbor.contains(mac)
        };
        assert!((0..100).any(moved), "{address}");
    }
    let is_ours = |frame: &&Vec<u8>| frame[6..].starts_with(&[0, 0, 0x5e, 0]);
    assert_eq!(frames.finish().iter().filter(is_ours).count(), 3);
}

/// Goal: witnesses are heard when they answer us, and foreign announcements always. Method: the
/// client is the witness; the second gateway announces a virtual address, or it does not.
#[test]
fn witnesses_and_announcements_are_heard() {
    let lab = Lab::new(2);
    let (witness, own_mac) = lab.within("gw1", || {
        let parent = links::find("in").unwrap();
        (
            Witness::open(&parent, &inside_addresses()).unwrap(),
            parent.mac,
        )
    });
    let next = || {
        loop {
            if let Some(sighting) = witness.poll().unwrap() {
                return sighting;
            }
            wait_readable(&witness);
        }
    };
    for target in [netns::CLIENT_V4, netns::CLIENT_V6] {
        let ip: IpAddr = target.parse().unwrap();
        // The first answer may be delayed by the client's own questions about us.
        witness.probe(ip).unwrap();
        assert_eq!(next(), Sighting::Answer { ip });
    }
    // Nobody has this address; questions about us by others are no answers.
    witness.probe("10.1.0.77".parse().unwrap()).unwrap();
    lab.ip("client", "neigh flush dev in");
    let echo = echo(&lab, "gw1");
    assert!(Prober::new(&lab, "client", "10.1.0.1").works());
    drop(echo);
    assert_eq!(witness.poll().unwrap(), None);

    for vip in inside_addresses() {
        lab.within("gw2", || {
            let announcer = Announcer::new(links::find("in").unwrap().ifindex).unwrap();
            announcer.announce(&virtual_address(vip)).unwrap();
        });
        let mac = vrid().mac(vip);
        assert_ne!(mac, own_mac);
        assert_eq!(next(), Sighting::ForeignAnnouncement { vip, mac });
        if vip.is_ipv4() {
            assert_eq!(
                next(),
                Sighting::ForeignAnnouncement { vip, mac },
                "both forms"
            );
        }
    }
    // What we send ourselves is not foreign.
    lab.within("gw1", || {
        let announcer = Announcer::new(links::find("in").unwrap().ifindex).unwrap();
        announcer
            .announce(&virtual_address(inside_addresses()[0]))
            .unwrap();
    });
    assert_eq!(witness.poll().unwrap(), None);
}

/// Goal: a standby hears announcements although they are dropped on their way in. Method: drop
/// everything in the ingress hook, which like traffic control comes after the taps and before
/// sockets for one protocol.
#[test]
fn announcements_are_heard_before_anything_drops_them() {
    let lab = Lab::new(2);
    let nft = format!("ip netns exec {} nft", lab.namespace("gw1"));
    run(&format!("{nft} add table netdev t"));
    run(&format!(
        "{nft} add chain netdev t c {{ type filter hook ingress device in priority 0; policy drop; }}"
    ));
    let witness = lab.within("gw1", || {
        Witness::open(&links::find("in").unwrap(), &inside_addresses()).unwrap()
    });
    lab.within("gw2", || {
        let announcer = Announcer::new(links::find("in").unwrap().ifindex).unwrap();
        announcer
            .announce(&virtual_address(inside_addresses()[0]))
            .unwrap();
    });
    wait_readable(&witness);
    let expected = Sighting::ForeignAnnouncement {
        vip: inside_addresses()[0],
        mac: MacAddr([0, 0, 0x5e, 0, 1, VRID]),
    };
    assert_eq!(witness.poll().unwrap(), Some(expected));
}

/// Goal: loss and return of carrier, and of the interface itself, are reported once each. Method:
/// the switch's port goes down and up, then the interface goes.
#[test]
fn carrier_changes_are_reported() {
    let lab = Lab::new(1);
    let (ifindex, other) = (lab.ifindex("gw1", "in"), lab.ifindex("gw1", "lo"));
    let mut watch = lab.within("gw1", || LinkWatch::open(&[ifindex, other, 9999]).unwrap());
    let change = |ifindex, is_usable| LinkChange { ifindex, is_usable };
    for expected in [
        change(ifindex, true),
        change(other, true),
        change(9999, false),
    ] {
        assert_eq!(watch.poll().unwrap(), Some(expected));
    }
    let mut next = |expected| {
        loop {
            if let Some(found) = watch.poll().unwrap() {
                assert_eq!(found, expected);
                assert_eq!(watch.is_usable(ifindex), expected.is_usable);
                break;
            }
            wait_readable(&watch);
        }
    };
    lab.ip("switch", "link set gw1-in down");
    next(change(ifindex, false));
    lab.ip("switch", "link set gw1-in up");
    next(change(ifindex, true));
    lab.ip("gw1", "link set in down");
    next(change(ifindex, false));
    lab.ip("gw1", "link set in up");
    next(change(ifindex, true));
    // Of no interest.
    lab.ip("gw1", "link set out down");
    lab.ip("gw1", "link del in");
    next(change(ifindex, false));
}

/// Goal: the function's health is what the kernel says. Method: turn things off.
#[test]
fn health_is_what_the_kernel_says() {
    let lab = Lab::new(1);
    let mut forwarding = [Family::V4, Family::V6].map(Forwarding::of);
    let mut forwards = || {
        lab.within("gw1", || {
            forwarding.each_mut().map(|family| family.is_on().unwrap())
        })
    };
    assert_eq!(forwards(), [true, true]);
    lab.write("gw1", "ipv4/ip_forward", "0");
    assert_eq!(forwards(), [false, true]);
    lab.write("gw1", "ipv6/conf/all/forwarding", "0");
    assert_eq!(forwards(), [false, false]);

    let families = [
        (TableFamily::Inet, "inet"),
        (TableFamily::Ip, "ip"),
        (TableFamily::Ip6, "ip6"),
        (TableFamily::Arp, "arp"),
        (TableFamily::Bridge, "bridge"),
        (TableFamily::Netdev, "netdev"),
    ];
    for (family, word) in families {
        let mut edge = TableQuestion::new(family, "edge");
        let exists = |one: &mut TableQuestion| lab.within("gw1", || one.exists().unwrap());
        assert!(!exists(&mut edge), "{word}");
        let namespace = lab.namespace("gw1");
        run(&format!(
            "ip netns exec {namespace} nft add table {word} edge"
        ));
        assert!(exists(&mut edge) && exists(&mut edge), "{word}");
        assert!(!exists(&mut TableQuestion::new(family, "edg")), "{word}");
        run(&format!(
            "ip netns exec {namespace} nft delete table {word} edge"
        ));
        assert!(!exists(&mut edge), "{word}");
    }
}

/// Goal: this machine, where the tests run, lacks nothing.
#[test]
fn nothing_is_missing_here() {
    let lab = Lab::new(0);
    let missing = lab.within("client", vnfpool_linux::preflight::missing);
    assert_eq!(missing, []);
    assert!(!lab.ip("client", "link show").contains("vnfpool-probe"));
}
