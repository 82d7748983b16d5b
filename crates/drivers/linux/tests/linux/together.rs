//! Gate and addresses put together in the order that an agent uses.

use std::path::PathBuf;
use std::time::Duration;

use vnfpool_gate::{Fence, Gate, GatedAddress, default_pin_dir, purge};
use vnfpool_linux::announce::{AnnounceError, Announcer};
use vnfpool_linux::realtime::now;
use vnfpool_linux::witness::{Sighting, Witness};
use vnfpool_linux::{ParentSettings, VirtualDevice, links};

use crate::netns::{self, Lab, Prober, capture, echo};
use crate::{inside_addresses, virtual_address, vrid, wait_readable};

/// Removes its pins when dropped.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = purge(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// The inside addresses of the calling thread's gateway as gate 7, closed.
fn configure(pins: &Pins) -> (Gate, Vec<VirtualDevice>) {
    let parent = links::find("in").unwrap();
    ParentSettings::apply(&parent).unwrap();
    let mut gate = Gate::load(&pins.0).unwrap();
    gate.attach("in").unwrap();
    let mut devices = Vec::new();
    let mut gated = Vec::new();
    for address in inside_addresses() {
        let device = VirtualDevice::prepare(&parent, vrid(), address).unwrap();
        gated.push(GatedAddress {
            address,
            mac: device.interface().mac,
            parent_ifindex: parent.ifindex,
            device_ifindex: device.interface().ifindex,
        });
        devices.push(device);
    }
    gate.set_slot(7, &gated).unwrap();
    for (device, address) in devices.iter_mut().zip(inside_addresses()) {
        device.configure(&[address]).unwrap();
    }
    (gate, devices)
}

/// Goal: two elements are configured alike and only the one with the lease is seen, from the first
/// packet on; the other hears it through its own closed gate and takes the address over by
/// deadline and announcement alone. Method: the client captures everything; then the lease moves.
#[test]
fn only_the_holder_of_the_lease_is_seen() {
    let lab = Lab::new(2);
    let pins = ["gw1", "gw2"].map(|node| Pins(default_pin_dir(&lab.namespace(node))));
    let frames = capture(&lab, "client");
    let [(gate1, _devices1), (gate2, devices2)] = [("gw1", &pins[0]), ("gw2", &pins[1])]
        .map(|(node, pins)| lab.within(node, || configure(pins)));
    let (mut lease1, mut lease2) = (gate1.lease_cell(7).unwrap(), gate2.lease_cell(7).unwrap());
    let announcer = |node| {
        lab.within(node, || {
            Announcer::new(links::find("in").unwrap().ifindex).unwrap()
        })
    };
    let (announcer1, announcer2) = (announcer("gw1"), announcer("gw2"));
    let witness2 = lab.within("gw2", || {
        Witness::open(&links::find("in").unwrap(), &inside_addresses()).unwrap()
    });
    for address in inside_addresses() {
        let dropped = announcer1.announce(&virtual_address(address));
        assert!(
            matches!(dropped, Err(AnnounceError::Dropped { .. })),
            "{dropped:?}"
        );
    }
    let _echoes = ["gw1", "gw2"].map(|node| echo(&lab, node));
    let mut probers =
        [netns::INSIDE_V4, netns::INSIDE_V6].map(|target| Prober::new(&lab, "client", target));
    for prober in &mut probers {
        assert!(prober.is_silent());
    }
    let is_virtual = |frame: &&Vec<u8>| frame[6..].starts_with(&[0, 0, 0x5e, 0]);
    assert_eq!(frames.finish().iter().find(is_virtual), None);

    let long = Duration::from_secs(600);
    lease1.open_until(now().after(long));
    for vip in inside_addresses() {
        announcer1.announce(&virtual_address(vip)).unwrap();
        let mac = vrid().mac(vip);
        let heard = Some(Sighting::ForeignAnnouncement { vip, mac });
        // ARP has two forms, so one of the address before may still come.
        while witness2.poll().unwrap() != heard {
            wait_readable(&witness2);
        }
    }
    for prober in &mut probers {
        assert!(prober.works());
    }
    assert_eq!(gate2.counters(7).unwrap().ingress_foreign, 0);

    lease1.close();
    lease2.open_until(now().after(long));
    for vip in inside_addresses() {
        announcer2.announce(&virtual_address(vip)).unwrap();
    }
    for prober in &mut probers {
        assert!(prober.works(), "taken over");
    }
    let counters = lab.within("gw2", || {
        for device in devices2 {
            device.remove().unwrap();
        }
        gate2.counters(7).unwrap()
    });
    assert!(counters.ingress_dropped > 0, "{counters:?}");
}
