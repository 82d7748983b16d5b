//! Loading, attaching and configuring the program.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};
use vnfpool_model::{MacAddr, Time};

use crate::attach::{self, AttachMode, LINK_PREFIX};
use crate::bpffs::PinDir;
use crate::deadlines::{Before, Deadlines, LeaseCell};
use crate::error::GateError;
use crate::keys::{Key, KeyMaps, is_virtual, keys_of};
use crate::support::support;

/// The names of the pinned maps.
const MAPS: [&str; 6] = [
    "deadlines",
    "counters",
    "macs",
    "addresses",
    "devices",
    "places",
];
const INGRESS: &str = "gate_ingress";
const EGRESS: &str = "gate_egress";

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/gate.bpf.o"));

/// A virtual address as the gate has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatedAddress {
    /// The address.
    pub address: IpAddr,
    /// The one MAC that may announce it.
    pub mac: MacAddr,
    /// The interface of the LAN, to which the gate is attached.
    pub parent_ifindex: u32,
    /// The macvlan device that holds the address.
    pub device_ifindex: u32,
}

/// What a gate has counted since its maps were made, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateCounters {
    /// Dropped on their way in because the gate was closed.
    pub ingress_dropped: u64,
    /// Dropped on their way out because the gate was closed.
    pub egress_dropped: u64,
    /// Announcements of the slot's address by somebody else while the gate was open: a second
    /// owner.
    pub ingress_foreign: u64,
    /// Dropped on their way out because another MAC than the virtual one announced the address.
    pub egress_foreign: u64,
}

/// The gate of this machine: one program, up to [`crate::GATES_MAX`] independent slots.
///
/// Dropping it leaves program and maps pinned, and the gates closed as soon as the last
/// [`LeaseCell`] is gone too; [`Gate::remove`] takes everything away.
pub struct Gate {
    ebpf: Ebpf,
    mode: AttachMode,
    keys: KeyMaps,
    counters: PerCpuArray<MapData, [u64; 4]>,
    deadlines: Arc<Deadlines>,
    slots: BTreeMap<u8, BTreeSet<Key>>,
    /// Interfaces attached to by this process, with their index.
    interfaces: BTreeMap<String, u32>,
}

impl Gate {
    /// Loads the program with the maps pinned in `pin_dir`, or with new ones that are pinned
    /// there, and closes every gate. Links that an earlier process left go on working, closed,
    /// until [`Gate::attach`] and [`Gate::retire_inherited`] replace them.
    ///
    /// Call it in the network namespace that the gate is for, like everything else here.
    ///
    /// # Errors
    /// [`crate::PinDirError::Busy`] if another process has this gate; [`crate::Missing`] if the machine lacks
    /// something; else what the kernel refused.
    pub fn load(pin_dir: &Path) -> Result<Self, GateError> {
        Self::load_with(pin_dir, AttachMode::best())
    }

    /// Like [`Gate::load`], with the given way of attaching.
    ///
    /// # Errors
    /// As [`Gate::load`].
    pub fn load_with(pin_dir: &Path, mode: AttachMode) -> Result<Self, GateError> {
        support()?;
        let pins = PinDir::prepare(pin_dir)?;
        let mut ebpf = load_program(&pins)?;
        let Some(Map::Array(array)) = ebpf.take_map("deadlines") else {
            return Err(GateError::Layout { name: "deadlines" });
        };
        let deadlines = Deadlines::map(array.fd().as_fd(), pins, Before::Close);
        Self::complete(ebpf, mode, deadlines.map_err(GateError::Mmap)?)
    }

    /// Loads the program of a gate whose leases were taken up from an earlier process.
    ///
    /// # Errors
    /// As [`Gate::load`].
    pub fn resume(leases: Leases) -> Result<Self, GateError> {
        let mut ebpf = load_program(&leases.deadlines.pins)?;
        // The same map, which is mapped already; the program is bound to this descriptor of it.
        let _array = ebpf.take_map("deadlines");
        Self::complete(ebpf, AttachMode::best(), leases.deadlines)
    }

    fn complete(
        mut ebpf: Ebpf,
        mode: AttachMode,
        deadlines: Arc<Deadlines>,
    ) -> Result<Self, GateError> {
        for name in [INGRESS, EGRESS] {
            let loaded = program(&mut ebpf, name)?.load();
            loaded.map_err(|source| GateError::Load(Box::new(source.into())))?;
        }
        let keys = KeyMaps::take(
            take_map(&mut ebpf, "macs")?,
            take_map(&mut ebpf, "addresses")?,
            take_map(&mut ebpf, "devices")?,
            take_map(&mut ebpf, "places")?,
        );
        Ok(Self {
            keys: keys.map_err(|source| GateError::Map {
                action: "read the addresses in",
                source,
            })?,
            counters: take_map(&mut ebpf, "counters")?,
            ebpf,
            mode,
            deadlines,
            slots: BTreeMap::new(),
            interfaces: BTreeMap::new(),
        })
    }

    /// How the program is attached.
    #[must_use]
    pub fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Attaches the program to both directions of a LAN's parent interface, in place of the one
    /// that an earlier process attached. To be done before addresses are configured.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn attach(&mut self, interface: &str) -> Result<(), GateError> {
        let ifindex = ifindex(interface)?;
        let directions = [
            (INGRESS, TcAttachType::Ingress),
            (EGRESS, TcAttachType::Egress),
        ];
        let pins = &self.deadlines.pins;
        for ((name, direction), pin) in directions.into_iter().zip(attach::link_names(ifindex)) {
            let program = program(&mut self.ebpf, name)?;
            match self.mode {
                AttachMode::Tcx => attach::attach_tcx(program, interface, direction, pins, &pin)?,
                AttachMode::Clsact => attach::attach_clsact(program, interface, direction, pins)?,
            }
        }
        self.interfaces.insert(interface.to_owned(), ifindex);
        Ok(())
    }

    /// Detaches the program from an interface. Only after the addresses behind it are gone:
    /// nothing gates them any more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn detach(&mut self, interface: &str) -> Result<(), GateError> {
        let Some(ifindex) = self.interfaces.remove(interface) else {
            return Ok(());
        };
        let pins = &self.deadlines.pins;
        if self.mode == AttachMode::Clsact {
            attach::detach_clsact(interface, pins);
            return Ok(());
        }
        for pin in attach::link_names(ifindex) {
            pins.unpin(&pin)?;
        }
        Ok(())
    }

    /// Says what belongs to gate `index`, instead of what was said before. To be done before the
    /// addresses are configured; the deadline stays as it is, closed for a gate that was not
    /// opened.
    ///
    /// # Errors
    /// [`GateError::Taken`] if another gate has one of the keys, [`GateError::NotVirtual`] for a MAC
    /// that is not of a virtual router, else what the kernel refused.
    pub fn set_slot(&mut self, index: u8, addresses: &[GatedAddress]) -> Result<(), GateError> {
        if let Some(odd) = addresses.iter().find(|gated| !is_virtual(gated.mac)) {
            return Err(GateError::NotVirtual { mac: odd.mac });
        }
        let keys = keys_of(addresses);
        for (&owner, owned) in &self.slots {
            if owner != index && keys.keys().any(|key| owned.contains(key)) {
                return Err(GateError::Taken { index, owner });
            }
        }
        for (&key, &mac) in &keys {
            self.keys
                .insert(key, index, mac)
                .map_err(|source| GateError::Map {
                    action: "add an address to",
                    source,
                })?;
        }
        let keys: BTreeSet<Key> = keys.into_keys().collect();
        let before = self.slots.insert(index, keys.clone()).unwrap_or_default();
        self.forget(before.difference(&keys).copied())
    }

    /// Closes a gate and forgets what belonged to it. Only after its addresses are gone: nothing
    /// gates them any more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove_slot(&mut self, index: u8) -> Result<(), GateError> {
        self.deadlines.close(index);
        let keys = self.slots.remove(&index).unwrap_or_default();
        self.forget(keys.into_iter())
    }

    /// Lets go of what an earlier process left and this one has not taken over by
    /// [`Gate::attach`] and [`Gate::set_slot`]. Only after the addresses that are no longer
    /// wanted are gone.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn retire_inherited(&mut self) -> Result<(), GateError> {
        let pins = &self.deadlines.pins;
        let kept: BTreeSet<OsString> = match self.mode {
            AttachMode::Clsact => BTreeSet::new(),
            AttachMode::Tcx => {
                let names = self
                    .interfaces
                    .values()
                    .copied()
                    .flat_map(attach::link_names);
                names.map(OsString::from).collect()
            }
        };
        for name in pins.names()? {
            let name_text = name.to_string_lossy();
            if name_text.starts_with(LINK_PREFIX) && !kept.contains(&name) {
                pins.unpin(&name_text)?;
            }
        }
        let all = self.keys.all().map_err(|source| GateError::Map {
            action: "list the addresses in",
            source,
        })?;
        let is_ours = |key: &Key| self.slots.values().any(|keys| keys.contains(key));
        let stale: Vec<Key> = all.into_iter().filter(|key| !is_ours(key)).collect();
        self.forget(stale.into_iter())
    }

    /// Whether addresses are behind this gate that an earlier process left and this one has
    /// neither taken over nor let go of. They may still be configured: a gate with such addresses
    /// is dropped, not removed.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn guards_inherited(&self) -> Result<bool, GateError> {
        let all = self.keys.all().map_err(|source| GateError::Map {
            action: "list the addresses in",
            source,
        })?;
        let is_ours = |key: &Key| self.slots.values().any(|keys| keys.contains(key));
        Ok(!all.iter().all(is_ours))
    }

    /// The one writer of a gate's lease deadline.
    ///
    /// # Errors
    /// [`GateError::WriterTaken`] while an earlier one lives.
    pub fn lease_cell(&self, index: u8) -> Result<LeaseCell, GateError> {
        self.deadlines
            .take(index)
            .ok_or(GateError::WriterTaken { index })
    }

    /// Until when a gate is open; [`Time::ZERO`] when closed.
    #[must_use]
    pub fn deadline(&self, index: u8) -> Time {
        self.deadlines.deadline(index)
    }

    /// What a gate has counted, over all processors.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn counters(&self, index: u8) -> Result<GateCounters, GateError> {
        let per_processor = self.counters.get(&u32::from(index), 0);
        let per_processor = per_processor.map_err(|source| GateError::Map {
            action: "read the counters in",
            source,
        })?;
        let mut sum = GateCounters::default();
        for [
            ingress_dropped,
            egress_dropped,
            ingress_foreign,
            egress_foreign,
        ] in per_processor.iter()
        {
            sum.ingress_dropped += ingress_dropped;
            sum.egress_dropped += egress_dropped;
            sum.ingress_foreign += ingress_foreign;
            sum.egress_foreign += egress_foreign;
        }
        Ok(sum)
    }

    /// Closes every gate, detaches the program and removes its pins. Only after all addresses are
    /// gone: nothing gates them any more.
    ///
    /// # Errors
    /// What the kernel refused; what is left can be removed by [`purge`].
    pub fn remove(mut self) -> Result<(), GateError> {
        self.deadlines.close_all();
        let interfaces: Vec<String> = self.interfaces.keys().cloned().collect();
        for interface in interfaces {
            self.detach(&interface)?;
        }
        unpin_all(&self.deadlines.pins)
    }

    fn forget(&mut self, keys: impl Iterator<Item = Key>) -> Result<(), GateError> {
        for key in keys {
            self.keys.remove(key).map_err(|source| GateError::Map {
                action: "remove an address from",
                source,
            })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("mode", &self.mode)
            .field("deadlines", &self.deadlines)
            .field("slots", &self.slots)
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

/// Removes what a process that no longer runs left in `pin_dir`, the directory included. Its
/// addresses must be gone before. Filters of [`AttachMode::Clsact`] go with their interface, or
/// by `tc qdisc del dev … clsact`.
///
/// # Errors
/// [`crate::PinDirError::Busy`] if the process still runs, else what the kernel refused.
pub fn purge(pin_dir: &Path) -> Result<(), GateError> {
    unpin_all(&PinDir::prepare(pin_dir)?)
}

/// The leases of a gate that an earlier process of the same life left: what has to be renewed
/// before there is time for anything else.
#[derive(Debug)]
pub struct Leases {
    deadlines: Arc<Deadlines>,
}

impl Leases {
    /// Opens what is left in `pin_dir`, as it is: open gates stay open until their leases end.
    ///
    /// # Errors
    /// [`GateError::NothingLeft`] if there is no gate; [`crate::PinDirError::Busy`] if another
    /// process has it.
    pub fn take_up(pin_dir: &Path) -> Result<Self, GateError> {
        let pins = PinDir::prepare(pin_dir)?;
        let array = MapData::from_pin(pins.pin("deadlines"));
        let array = array.map_err(|_| GateError::NothingLeft)?;
        let deadlines = Deadlines::map(array.fd().as_fd(), pins, Before::Keep);
        Ok(Self {
            deadlines: deadlines.map_err(GateError::Mmap)?,
        })
    }

    /// As [`Gate::lease_cell`].
    ///
    /// # Errors
    /// [`GateError::WriterTaken`] while an earlier one lives.
    pub fn lease_cell(&self, index: u8) -> Result<LeaseCell, GateError> {
        let cell = self.deadlines.take(index);
        cell.ok_or(GateError::WriterTaken { index })
    }
}

fn load_program(pins: &PinDir) -> Result<Ebpf, GateError> {
    EbpfLoader::new()
        .btf(None)
        .default_map_pin_directory(pins.pin(""))
        .load(PROGRAM)
        .map_err(|source| GateError::Load(Box::new(source)))
}

fn unpin_all(pins: &PinDir) -> Result<(), GateError> {
    // Links first: without its maps' pins a link would still work, but nobody could open it.
    let mut names = pins.names()?;
    names.sort_by_key(|name| MAPS.iter().any(|map| name == *map));
    for name in names {
        pins.unpin(&name.to_string_lossy())?;
    }
    Ok(pins.remove()?)
}

fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, GateError> {
    let program = ebpf.program_mut(name).ok_or(GateError::Layout { name })?;
    program.try_into().map_err(|_| GateError::Layout { name })
}

fn take_map<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, GateError> {
    let map = ebpf.take_map(name).ok_or(GateError::Layout { name })?;
    T::try_from(map).map_err(|_| GateError::Layout { name })
}

fn ifindex(interface: &str) -> Result<u32, GateError> {
    let failed = |source| GateError::Interface {
        interface: interface.to_owned(),
        source,
    };
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    );
    let socket = socket.map_err(|errno| failed(errno.into()))?;
    rustix::net::netdevice::name_to_index(&socket, interface).map_err(|errno| failed(errno.into()))
}
