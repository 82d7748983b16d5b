//! The data plane of this element: virtual devices behind the gate, announcers, witnesses.
//!
//! Set up when a slot is configured, long before a takeover needs it: with the gate closed the
//! addresses are there and nobody sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow, bail};
use vnfpool_config::{ElementConfig, GateDriver};
use vnfpool_gate::{
    AddressesOnly, AttachMode, Fence, Gate, GateCounters, GatedAddress, Leases, Missing,
    SwitchError,
};
use vnfpool_inheritance::CellName;
use vnfpool_linux::announce::Announcer;
use vnfpool_linux::links::{self, Interface};
use vnfpool_linux::witness::{Sighting, Witness};
use vnfpool_linux::{ParentSettings, VirtualDevice};
use vnfpool_model::{SlotId, SlotSpec, VirtualAddress};

use super::inheritance::{Estate, MachineKeeper};
use super::pulse::{Ear, Furniture, Heard, Plane};
use crate::pulse::guard;

/// The data planes of all slots.
#[derive(Debug)]
pub(crate) struct DataPlane {
    /// The mark on the virtual devices, so that the next life finds them.
    owner: String,
    lans: BTreeMap<String, String>,
    gate: Option<Gate>,
    /// What the gate is called in `status`, with what it cannot promise.
    driver: String,
    parents: BTreeMap<String, ParentSettings>,
    slots: BTreeMap<SlotId, Slot>,
    /// Indexes of the interfaces that the gate is attached to.
    attached: BTreeSet<u32>,
    /// The leases of a gate that is gone on with and whose program is not loaded yet.
    leases: Option<Leases>,
    /// What is left to another process of this life.
    estate: Option<Estate>,
    /// Whether something of an earlier life may be left that no slot has taken over.
    inherits: bool,
}

#[derive(Debug)]
struct Slot {
    index: u8,
    devices: Arc<Mutex<Vec<Device>>>,
}

impl Slot {
    fn ifindexes(&self) -> Vec<u32> {
        let devices = lock(&self.devices);
        let indexes = devices.iter().map(|d| d.device.interface().ifindex);
        indexes.collect()
    }
}

/// A virtual device and what belongs on it.
#[derive(Debug)]
struct Device {
    device: VirtualDevice,
    addresses: Vec<IpAddr>,
}

impl DataPlane {
    /// Loads the gate, closed, before this agent says its first word (R1). The devices that a
    /// killed agent has left on are turned off as well, with or without a gate: a gate knows only
    /// whose turn it is, and some of them may belong to no slot of this life.
    pub(crate) fn open(config: &ElementConfig, estate: Option<Estate>) -> anyhow::Result<Self> {
        let instance = instance(config);
        let (gate, driver) = load_gate(config.gate, &instance)?;
        let closed = VirtualDevice::close_left_behind(&owner(config))
            .context("turn off what a killed agent has left on")?;
        if closed > 0 {
            tracing::warn!(
                devices = closed,
                "turned off what a killed agent had left on"
            );
        }
        if gate.is_none() {
            remove_former_gate(&instance);
        }
        // Addresses that come and go with the lease are not there for another process.
        let estate = estate.filter(|_| gate.is_some());
        Ok(Self {
            gate,
            driver,
            ..Self::new(config, estate)
        })
    }

    /// Takes the gate up as another process of this life has left it: open gates stay open until
    /// their leases end.
    pub(crate) fn resume(config: &ElementConfig, estate: Estate) -> anyhow::Result<Self> {
        if config.gate == GateDriver::Addresses {
            bail!("without the BPF gate a slot moves when its agent ends");
        }
        let leases = Leases::take_up(&vnfpool_gate::default_pin_dir(&instance(config)))?;
        Ok(Self {
            leases: Some(leases),
            ..Self::new(config, Some(estate))
        })
    }

    fn new(config: &ElementConfig, estate: Option<Estate>) -> Self {
        let lans = config
            .lans
            .iter()
            .map(|l| (l.name.clone(), l.interface.clone()))
            .collect();
        let (parents, slots) = (BTreeMap::new(), BTreeMap::new());
        Self {
            owner: owner(config),
            lans,
            gate: None,
            leases: None,
            driver: String::new(),
            parents,
            slots,
            attached: BTreeSet::new(),
            estate,
            inherits: true,
        }
    }

    /// What drops packets without a lease.
    pub(crate) fn driver(&self) -> &str {
        &self.driver
    }

    /// The gate of a slot that is gone on with, and where its machine is kept. The rest of its data
    /// plane is there, and follows by [`DataPlane::furnish`].
    pub(crate) fn take_up(
        &mut self,
        id: SlotId,
        index: u8,
    ) -> anyhow::Result<(Box<dyn Fence>, Option<MachineKeeper>)> {
        let leases = self
            .leases
            .as_ref()
            .context("there is no gate to go on with")?;
        let fence = Box::new(leases.lease_cell(index)?);
        let devices = Arc::default();
        self.slots.insert(id, Slot { index, devices });
        Ok((fence, self.keeper_of(index)))
    }

    /// Finds the devices of a slot that is gone on with, and opens its sockets.
    pub(crate) fn furnish(&mut self, id: SlotId, spec: &SlotSpec) -> anyhow::Result<Furniture> {
        if let Some(leases) = self.leases.take() {
            let gate = Gate::resume(leases).context("load the gate")?;
            name_of(&gate).clone_into(&mut self.driver);
            self.gate = Some(gate);
        }
        let slot = self.slots.get(&id).context("the slot was not taken up")?;
        let (index, devices) = (slot.index, Arc::clone(&slot.devices));
        let gated = self.prepare_devices(spec, &mut lock(&devices))?;
        self.guard(index, spec, &gated)?;
        configure(&devices, true)?;
        self.open_sockets(spec)
    }

    fn keeper_of(&self, index: u8) -> Option<MachineKeeper> {
        let cell = self.estate.as_ref()?.memory.cell(CellName::Slot(index));
        cell.map(MachineKeeper::new)
    }

    /// Configures everything for a slot behind a closed gate; if that fails, nothing of it stays.
    pub(crate) fn add_slot(&mut self, id: SlotId, spec: &SlotSpec) -> anyhow::Result<Plane> {
        // Of an earlier attempt that could not be taken back.
        self.remove_slot(id)?;
        let plane = self.set_up(id, spec);
        if plane.is_err()
            && let Err(error) = self.remove_slot(id)
        {
            tracing::error!(slot = %id, "half a slot is not removed, it stays closed: {error:#}");
        }
        plane
    }

    fn set_up(&mut self, id: SlotId, spec: &SlotSpec) -> anyhow::Result<Plane> {
        let index = (0..=u8::MAX)
            .find(|index| self.slots.values().all(|s| s.index != *index))
            .context("all gates are taken")?;
        let devices = Arc::new(Mutex::new(Vec::new()));
        let slot = Slot {
            index,
            devices: Arc::clone(&devices),
        };
        self.slots.insert(id, slot);
        let gated = self.prepare_devices(spec, &mut lock(&devices))?;
        self.guard(index, spec, &gated)?;
        let fence: Box<dyn Fence> = match &self.gate {
            Some(gate) => {
                configure(&devices, true)?;
                Box::new(gate.lease_cell(index)?)
            }
            None => Box::new(addresses_only(devices)?),
        };
        Ok(Plane {
            fence,
            kept: self.keeper_of(index),
            furniture: self.open_sockets(spec)?,
        })
    }

    /// Puts the addresses of a slot behind its gate.
    fn guard(&mut self, index: u8, spec: &SlotSpec, gated: &[GatedAddress]) -> anyhow::Result<()> {
        let Some(gate) = &mut self.gate else {
            return Ok(());
        };
        for address in &spec.addresses {
            let Some(interface) = self.lans.get(&address.lan) else {
                continue;
            };
            // An interface that was made anew has another index.
            let ifindex = links::find(interface)?.ifindex;
            if !self.attached.contains(&ifindex) {
                gate.attach(interface)?;
                self.attached.insert(ifindex);
            }
        }
        Ok(gate.set_slot(index, gated)?)
    }

    fn interface(&self, lan: &str) -> anyhow::Result<Interface> {
        let name = self.lans.get(lan).ok_or_else(|| {
            anyhow!("the pool has an address on the LAN '{lan}': add it as a [[lan]] here")
        })?;
        Ok(links::find(name)?)
    }

    /// Adds the devices of a slot to `devices` one by one, so that they are known if this fails.
    fn prepare_devices(
        &mut self,
        spec: &SlotSpec,
        devices: &mut Vec<Device>,
    ) -> anyhow::Result<Vec<GatedAddress>> {
        let mut gated = Vec::new();
        for address in &spec.addresses {
            let parent = self.interface(&address.lan)?;
            if !self.parents.contains_key(&parent.name) {
                self.parents
                    .insert(parent.name.clone(), ParentSettings::apply(&parent)?);
            }
            let ip = address.address.addr();
            let device = VirtualDevice::prepare(&parent, address.vrid, ip)
                .with_context(|| format!("prepare the virtual device for {ip}"))?;
            let ifindex = device.interface().ifindex;
            gated.push(GatedAddress {
                address: ip,
                mac: address.mac(),
                parent_ifindex: parent.ifindex,
                device_ifindex: ifindex,
            });
            let same = |d: &&mut Device| d.device.interface().ifindex == ifindex;
            if let Some(known) = devices.iter_mut().find(same) {
                known.addresses.push(ip);
                continue;
            }
            let device = devices.push_mut(Device {
                device,
                addresses: vec![ip],
            });
            device.device.mark(&self.owner)?;
        }
        Ok(gated)
    }

    fn open_sockets(&self, spec: &SlotSpec) -> anyhow::Result<Furniture> {
        let mut announcers = Vec::new();
        let mut ears: Vec<Box<dyn Ear>> = Vec::new();
        let mut lans: BTreeMap<&str, Vec<&VirtualAddress>> = BTreeMap::new();
        for address in &spec.addresses {
            lans.entry(&address.lan).or_default().push(address);
        }
        let mut witnessed = true;
        for (lan, addresses) in lans {
            let parent = self.interface(lan)?;
            let owned: Vec<_> = addresses.iter().map(|a| (*a).clone()).collect();
            announcers.push((Announcer::new(parent.ifindex)?, owned));
            let own: Vec<_> = addresses.iter().map(|a| a.address.addr()).collect();
            let targets: Vec<_> = addresses
                .iter()
                .flat_map(|a| a.witnesses.iter().copied())
                .collect();
            witnessed &= !targets.is_empty();
            ears.push(Box::new(LanEar {
                witness: Witness::open(&parent, &own)?,
                targets,
            }));
        }
        if let Some(estate) = &self.estate {
            let announcers = announcers.iter().map(|(announcer, _)| announcer.as_fd());
            let sockets: Vec<_> = announcers.chain(ears.iter().map(|ear| ear.fd())).collect();
            estate.hold_slow(&sockets);
        }
        let announce = Box::new(move || {
            for (announcer, addresses) in &announcers {
                for address in addresses {
                    // Dropped by a gate that has closed meanwhile, or the link is down: the next
                    // round says it again.
                    let _ = announcer.announce(address);
                }
            }
        });
        Ok(Furniture {
            announce,
            ears,
            witnessed,
        })
    }

    /// Lets go of what a killed agent has left and no slot has taken over. Only once all slots
    /// that this element shall have are set up: until then the gate knows whose the rest is.
    pub(crate) fn retire_inherited(&mut self) -> anyhow::Result<()> {
        if !self.inherits {
            return Ok(());
        }
        let in_use: BTreeSet<u32> = self.slots.values().flat_map(Slot::ifindexes).collect();
        for left in links::with_alias(&self.owner)? {
            if !in_use.contains(&left.ifindex) {
                links::remove(&left)?;
            }
        }
        if let Some(gate) = &mut self.gate {
            gate.retire_inherited()?;
        }
        self.inherits = false;
        Ok(())
    }

    /// Removes what belongs to a slot; its gate is closed and its addresses go first. What cannot
    /// be removed stays behind the closed gate, for the next attempt.
    pub(crate) fn remove_slot(&mut self, id: SlotId) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get(&id) else {
            return Ok(());
        };
        let mut removed = Ok(());
        lock(&slot.devices).retain(|device| match device.device.remove() {
            Ok(()) => false,
            Err(error) => {
                note(&mut removed, Err(error));
                true
            }
        });
        removed?;
        if let Some(gate) = &mut self.gate {
            gate.remove_slot(slot.index)?;
        }
        self.slots.remove(&id);
        Ok(())
    }

    /// Configures the addresses again: an interface that was down has lost some.
    pub(crate) fn refresh(&self) {
        if self.gate.is_none() {
            return;
        }
        for slot in self.slots.values() {
            if let Err(error) = configure(&slot.devices, true) {
                tracing::warn!("the virtual addresses are not configured: {error:#}");
            }
        }
    }

    /// What the gate of a slot has dropped.
    pub(crate) fn counters(&self, id: SlotId) -> Option<GateCounters> {
        let slot = self.slots.get(&id)?;
        self.gate.as_ref()?.counters(slot.index).ok()
    }

    /// Takes everything away: addresses, devices, gate, settings. A gate that still holds back
    /// something, of a killed agent or because it could not be removed, stays, closed, for the
    /// next one.
    pub(crate) fn remove(mut self) -> anyhow::Result<()> {
        let mut removed = Ok(());
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            note(&mut removed, self.remove_slot(id));
        }
        if let Some(gate) = self.gate.take()
            && removed.is_ok()
        {
            note(&mut removed, remove_gate(gate));
        }
        for settings in std::mem::take(&mut self.parents).into_values() {
            note(&mut removed, settings.restore());
        }
        removed
    }
}

/// Goes on after a failure, and keeps the first one.
fn note<E: Into<anyhow::Error>>(so_far: &mut anyhow::Result<()>, outcome: Result<(), E>) {
    if let Err(error) = outcome
        && so_far.is_ok()
    {
        *so_far = Err(error.into());
    }
}

fn remove_gate(gate: Gate) -> anyhow::Result<()> {
    if !gate.guards_inherited()? {
        gate.remove()?;
    }
    Ok(())
}

fn configure(devices: &Mutex<Vec<Device>>, present: bool) -> anyhow::Result<()> {
    for Device { device, addresses } in lock(devices).iter_mut() {
        device.configure(if present { addresses } else { &[] })?;
    }
    Ok(())
}

/// The driver without BPF: the addresses come and go with the lease.
fn addresses_only(devices: Arc<Mutex<Vec<Device>>>) -> anyhow::Result<AddressesOnly> {
    let switch = move |present: bool| {
        let mut switched = Ok(());
        // Without its thread the addresses would outlive every lease; the next life removes them.
        guard::or_abort("addresses", || switched = configure(&devices, present));
        switched.map_err(|error| SwitchError::from(format!("{error:#}")))
    };
    let report = |error: SwitchError| tracing::error!(%error, "the addresses were not switched");
    Ok(AddressesOnly::spawn(switch, report)?)
}

/// The gate if it can be had, and what it is called.
fn load_gate(wanted: GateDriver, instance: &str) -> anyhow::Result<(Option<Gate>, String)> {
    if wanted == GateDriver::Addresses {
        tracing::warn!(
            "no BPF gate, by configuration: {}",
            AddressesOnly::SHORTCOMINGS
        );
        return Ok((None, "addresses (configured)".to_owned()));
    }
    match vnfpool_gate::support() {
        Ok(()) => {}
        Err(missing @ Missing::Kernel { .. }) => {
            tracing::warn!(%missing, "no BPF gate: {}", AddressesOnly::SHORTCOMINGS);
            return Ok((None, format!("addresses ({missing})")));
        }
        Err(missing) => bail!("{missing}"),
    }
    let gate = Gate::load(&vnfpool_gate::default_pin_dir(instance)).context("load the gate")?;
    let driver = name_of(&gate).to_owned();
    Ok((Some(gate), driver))
}

fn name_of(gate: &Gate) -> &'static str {
    match gate.mode() {
        AttachMode::Tcx => "bpf (tcx)",
        AttachMode::Clsact => "bpf (clsact)",
        _ => "bpf (other)",
    }
}

/// The BPF gate of an earlier life would hold the addresses back for ever. They are gone by now.
fn remove_former_gate(instance: &str) {
    let pin_dir = vnfpool_gate::default_pin_dir(instance);
    if !pin_dir.exists() {
        return;
    }
    match vnfpool_gate::purge(&pin_dir) {
        Ok(()) => tracing::info!("removed the BPF gate of an earlier life of this element"),
        Err(error) => tracing::error!(
            "a BPF gate of an earlier life cannot be removed from {}; it may hold the addresses \
             back: {error}",
            pin_dir.display()
        ),
    }
}

/// The mark on the devices of this element.
pub(super) fn owner(config: &ElementConfig) -> String {
    format!("vnfpool {}", instance(config))
}

/// Unique for this element on this machine, the same for each of its lives.
fn instance(config: &ElementConfig) -> String {
    let dir = config
        .dir
        .canonicalize()
        .unwrap_or_else(|_| config.dir.clone());
    vnfpool_gate::instance_name(&format!("{}-{}", config.pool, config.element), &dir)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A LAN with its witnesses.
struct LanEar {
    witness: Witness,
    targets: Vec<IpAddr>,
}

impl Ear for LanEar {
    fn fd(&self) -> BorrowedFd<'_> {
        self.witness.as_fd()
    }

    fn ask(&mut self) {
        for target in &self.targets {
            // A link that is down has no witness.
            let _ = self.witness.probe(*target);
        }
    }

    fn hear(&mut self) -> Option<Heard> {
        Some(match self.witness.poll().ok()?? {
            Sighting::Answer { ip } if self.targets.contains(&ip) => Heard::Witness,
            Sighting::ForeignAnnouncement { .. } => Heard::Foreign,
            _ => Heard::Other,
        })
    }
}
