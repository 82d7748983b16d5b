//! The gate of this program, as `vnfpool lab gate` measures it: set up in the way of the agent.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use vnfpool_gate::{AttachMode, Fence as _, Gate, GatedAddress, LeaseCell};
use vnfpool_lab::{GateLan, GateUnderTest, LeaseUnderTest};
use vnfpool_linux::{ParentSettings, VirtualDevice, links};
use vnfpool_model::VirtualRouterId;

use super::args::Attach;
use crate::pulse::now;

/// The only slot of the measured gateway.
const SLOT: u8 = 0;

/// The gate with the virtual addresses behind it.
pub(super) struct OwnGate {
    mode: AttachMode,
    gate: Option<Gate>,
    interfaces: Vec<&'static str>,
    devices: Vec<VirtualDevice>,
}

impl OwnGate {
    /// A gate that will be attached in this way, by default the best that the kernel knows.
    pub(super) fn new(attach: Option<Attach>) -> Self {
        Self {
            mode: match attach {
                None => AttachMode::best(),
                Some(Attach::Tcx) => AttachMode::Tcx,
                Some(Attach::Clsact) => AttachMode::Clsact,
            },
            gate: None,
            interfaces: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// The devices with their addresses, turned off; they go with the namespace.
    fn prepare_devices(&mut self, lan: &GateLan) -> anyhow::Result<Vec<GatedAddress>> {
        let parent = links::find(lan.interface)?;
        // Not restored: the interface goes with its namespace.
        let _settings = ParentSettings::apply(&parent)?;
        let vrid = VirtualRouterId(lan.vrid.try_into().context("a virtual router id of 0")?);
        let prepare = |address| {
            let device = VirtualDevice::prepare(&parent, vrid, address)?;
            let gated = GatedAddress {
                address,
                mac: vrid.mac(address),
                parent_ifindex: parent.ifindex,
                device_ifindex: device.interface().ifindex,
            };
            self.devices.push(device);
            anyhow::Ok(gated)
        };
        lan.addresses.into_iter().map(prepare).collect()
    }

    fn gate(&mut self) -> anyhow::Result<&mut Gate> {
        self.gate.as_mut().context("the gate is not loaded yet")
    }
}

impl GateUnderTest for OwnGate {
    fn name(&self) -> String {
        match self.mode {
            AttachMode::Clsact => "bpf (clsact)".to_owned(),
            _ => "bpf (tcx)".to_owned(),
        }
    }

    fn pins(&self) -> PathBuf {
        vnfpool_gate::default_pin_dir(&format!("lab-gate-{}", std::process::id()))
    }

    fn furnish(&mut self, lans: &[GateLan]) -> anyhow::Result<Box<dyn LeaseUnderTest>> {
        let mut gated = Vec::new();
        for lan in lans {
            gated.extend(self.prepare_devices(lan)?);
            self.interfaces.push(lan.interface);
        }
        let mut gate = Gate::load_with(&self.pins(), self.mode).context("load the gate")?;
        gate.set_slot(SLOT, &gated)?;
        let lease = Lease(gate.lease_cell(SLOT)?);
        self.gate = Some(gate);
        for (device, gated) in self.devices.iter_mut().zip(&gated) {
            device.configure(&[gated.address])?;
        }
        Ok(Box::new(lease))
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        for interface in self.interfaces.clone() {
            self.gate()?.attach(interface)?;
        }
        Ok(())
    }

    fn detach(&mut self) -> anyhow::Result<()> {
        for interface in self.interfaces.clone() {
            self.gate()?.detach(interface)?;
            if self.mode == AttachMode::Clsact {
                remove_clsact(interface)?;
            }
        }
        Ok(())
    }

    fn dropped(&self) -> anyhow::Result<u64> {
        let gate = self.gate.as_ref().context("the gate is not loaded yet")?;
        let counters = gate.counters(SLOT)?;
        Ok(counters.ingress_dropped + counters.egress_dropped)
    }

    fn remove(mut self: Box<Self>) -> anyhow::Result<()> {
        for device in &self.devices {
            device.remove()?;
        }
        if let Some(gate) = self.gate.take() {
            gate.remove()?;
        }
        Ok(())
    }
}

/// The gate leaves the queueing discipline in place, which may be somebody else's too. Without it is
/// what the gate is compared with.
fn remove_clsact(interface: &str) -> anyhow::Result<()> {
    let status = Command::new("tc")
        .args(["qdisc", "del", "dev", interface, "clsact"])
        .status()
        .context("starting `tc` (is iproute2 installed?)")?;
    ensure!(
        status.success(),
        "`tc` could not remove clsact from {interface}"
    );
    Ok(())
}

/// The lease of the only slot.
struct Lease(LeaseCell);

impl LeaseUnderTest for Lease {
    fn renew(&mut self, lasts: Duration) {
        self.0.raise(now().after(lasts));
    }

    fn close(&mut self) {
        self.0.close();
    }
}
