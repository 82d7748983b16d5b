//! The gate in real network namespaces. Needs root.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "helpers of tests")]

#[path = "../../../linux/tests/netns/mod.rs"]
mod netns;

mod crash;
mod traffic;

use std::path::{Path, PathBuf};
use std::time::Duration;

use netns::Lab;
use rustix::time::{ClockId, clock_gettime};
use vnfpool_gate::{Gate, GateError, GatedAddress, purge};
use vnfpool_model::{Time, VirtualRouterId};

/// A pin directory of its own for each lab, removed with everything in it.
struct Pins(PathBuf);

impl Pins {
    fn of(lab: &Lab) -> Self {
        Self(vnfpool_gate::default_pin_dir(&lab.namespace("test")))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = purge(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    Time(u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap())
}

fn in_seconds(seconds: u64) -> Time {
    now().after(Duration::from_secs(seconds))
}

/// The virtual addresses of one LAN of a gateway.
fn gated(lab: &Lab, node: &str, lan: &str) -> Vec<GatedAddress> {
    let (vrid, addresses) = match lan {
        "in" => (11, [netns::INSIDE_V4, netns::INSIDE_V6]),
        _ => (12, [netns::OUTSIDE_V4, netns::OUTSIDE_V6]),
    };
    let family = |index| if index == 0 { 4 } else { 6 };
    let addresses = addresses.iter().enumerate();
    addresses
        .map(|(index, address)| {
            let address = address.parse().unwrap();
            let device = format!("vp{vrid}v{}", family(index));
            GatedAddress {
                address,
                mac: VirtualRouterId(vrid.try_into().unwrap()).mac(address),
                parent_ifindex: lab.ifindex(node, lan),
                device_ifindex: lab.ifindex(node, &device),
            }
        })
        .collect()
}

/// Both LANs of a gateway as gate 0.
fn both(lab: &Lab, node: &str) -> Vec<GatedAddress> {
    [gated(lab, node, "in"), gated(lab, node, "out")].concat()
}

/// The gate of a gateway with both LANs as gate 0.
fn configured(lab: &Lab, node: &str, pins: &Pins) -> Result<Gate, GateError> {
    let addresses = both(lab, node);
    lab.within(node, || {
        let mut gate = Gate::load(pins.path())?;
        gate.attach("in")?;
        gate.attach("out")?;
        gate.set_slot(0, &addresses)?;
        Ok(gate)
    })
}
