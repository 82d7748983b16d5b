//! What the values of a pool have to fulfil together, however they came in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use vnfpool_model::{
    LeaseBounds, NatMap, OnQuorumLoss, PoolHandle, PoolSpec, PortBlocks, SlotSpec, StateLevel,
    Timing, VirtualAddress,
};

use crate::PoolFile;

/// A contradiction in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The value, as the path of its key in a pool file: `slot.0.address.1.vrid`.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Finding {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            help: None,
        }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Everything that is contradictory in a pool; empty if it is sound.
#[must_use]
pub fn check_pool(spec: &PoolSpec) -> Vec<Finding> {
    let mut findings = check_timing(spec);
    if let Some(bounds) = spec.lease_bounds {
        check_bounds(bounds, &mut findings);
    }
    if let Err(error) = PoolHandle::new(spec.function.as_str()) {
        findings.push(Finding::new("pool.function", format!("function: {error}")));
    }
    if spec.slots.is_empty() {
        let finding = Finding::new("pool", "a pool needs at least one slot");
        findings.push(finding.help("add [[slot]] with at least one [[slot.address]]"));
    }
    if spec.slots.len() > SLOTS_MAX {
        findings.push(Finding::new(
            "slot",
            format!("a pool has at most {SLOTS_MAX} slots"),
        ));
        return findings;
    }
    check_size(spec, &mut findings);
    check_state(spec, &mut findings);
    for (index, slot) in spec.slots.iter().enumerate() {
        check_slot(&format!("slot.{index}"), slot, &mut findings);
    }
    check_uniqueness(spec, &mut findings);
    findings
}

/// What is allowed but probably not wanted, in one sentence each.
#[must_use]
pub fn advice(spec: &PoolSpec) -> Vec<String> {
    let mut advice = Vec::new();
    if spec.on_quorum_loss == OnQuorumLoss::Stop {
        return advice;
    }
    for slot in &spec.slots {
        let mut witnesses: BTreeMap<&str, usize> = BTreeMap::new();
        for address in &slot.addresses {
            *witnesses.entry(&address.lan).or_default() += address.witnesses.len();
        }
        for (lan, _) in witnesses.iter().filter(|(_, count)| **count == 0) {
            advice.push(format!(
                "slot '{}' has no witness on LAN '{lan}': with on_quorum_loss = \"serve\" the last \
                 member left cannot prove that this LAN is alive, so it will not serve alone",
                slot.name
            ));
        }
    }
    advice
}

fn check_bounds(bounds: LeaseBounds, findings: &mut Vec<Finding>) {
    let LeaseBounds { min_ms, max_ms } = bounds;
    if min_ms < AUTO_LEASE_MS_MIN {
        let message =
            format!("lease_min_ms: expected at least {AUTO_LEASE_MS_MIN} ms, found {min_ms}");
        let finding = Finding::new("pool.lease_min_ms", message);
        findings.push(finding.help("a lease is five heartbeats of at least 1 ms"));
    }
    if max_ms < min_ms {
        let message =
            format!("lease_max_ms: expected at least lease_min_ms ({min_ms} ms), found {max_ms}");
        findings.push(Finding::new("pool.lease_max_ms", message));
    }
    if max_ms > AUTO_LEASE_MS_MAX {
        let message =
            format!("lease_max_ms: expected at most {AUTO_LEASE_MS_MAX} ms, found {max_ms}");
        let finding = Finding::new("pool.lease_max_ms", message);
        findings.push(finding.help("a failover lasts as long as the lease"));
    }
}

fn check_timing(spec: &PoolSpec) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Timing {
        heartbeat_interval_ms: heartbeat,
        lease_ms: lease,
        manager_lease_ms: manager_lease,
    } = spec.timing;
    if !(1..=HEARTBEAT_MS_MAX).contains(&heartbeat) {
        findings.push(Finding::new(
            "pool.heartbeat_ms",
            format!("heartbeat_ms: expected 1 to {HEARTBEAT_MS_MAX} ms, found {heartbeat}"),
        ));
    }
    let lease_min = heartbeat.saturating_mul(LEASE_HEARTBEATS_MIN);
    if lease < lease_min && spec.lease_bounds.is_none() {
        let message = format!(
            "lease_ms: expected at least {LEASE_HEARTBEATS_MIN} heartbeats ({lease_min} ms), found {lease}"
        );
        let finding = Finding::new("pool.lease_ms", message);
        findings.push(finding.help("a shorter lease fails over when a single heartbeat is lost"));
    }
    let longest = spec.lease_ms_max();
    let manager_lease_min = longest.saturating_mul(MANAGER_LEASE_LEASES_MIN);
    if manager_lease < manager_lease_min {
        let message = format!(
            "manager_lease_ms: expected at least {MANAGER_LEASE_LEASES_MIN} leases \
             ({manager_lease_min} ms), found {manager_lease}"
        );
        let finding = Finding::new("pool.manager_lease_ms", message);
        findings.push(finding.help("the manager's grant must outlive every promise of an element"));
    }
    if manager_lease > MANAGER_LEASE_MS_MAX {
        let message = format!(
            "manager_lease_ms: expected at most {MANAGER_LEASE_MS_MAX} ms, found {manager_lease}"
        );
        let finding = Finding::new("pool.manager_lease_ms", message);
        findings.push(finding.help("a lone member's failure lasts this long"));
    }
    findings
}

/// What the gate of an element and one message to it can hold.
fn check_size(spec: &PoolSpec, findings: &mut Vec<Finding>) {
    let addresses: usize = spec.slots.iter().map(|slot| slot.addresses.len()).sum();
    if addresses > POOL_ADDRESSES_MAX {
        let message =
            format!("a pool has at most {POOL_ADDRESSES_MAX} addresses in all, found {addresses}");
        let finding = Finding::new("slot", message);
        findings.push(finding.help("divide it into several pools with elements of their own"));
        return;
    }
    let bytes = PoolFile::render(spec).len();
    if bytes > POOL_BYTES_MAX {
        let message = format!(
            "a pool is at most {POOL_BYTES_MAX} bytes long without comments, found {bytes}"
        );
        let finding = Finding::new("slot", message);
        findings.push(finding.help("it goes to each element in one message: name fewer witnesses"));
    }
}

/// A kernel has one table of connections for all slots: an element that serves one slot and stands
/// by for another would take what it serves for a wrong copy.
fn check_state(spec: &PoolSpec, findings: &mut Vec<Finding>) {
    if spec.slots.len() > 1 && spec.state.connections != StateLevel::None {
        let message = format!(
            "a pool that replicates connections has one slot, found {}: a kernel does not tell \
             whose slot a connection is",
            spec.slots.len()
        );
        let help = "divide it into several pools with elements of their own, or set \
                    connections = \"none\" in [state]";
        findings.push(Finding::new("slot.1", message).help(help));
    }
}

fn check_slot(path: &str, slot: &SlotSpec, findings: &mut Vec<Finding>) {
    if slot.addresses.is_empty() {
        let finding = Finding::new(path, format!("slot '{}' has no address", slot.name));
        findings.push(finding.help("add [[slot.address]] with address, lan and vrid"));
    }
    if slot.addresses.len() > SLOT_ADDRESSES_MAX {
        let message = format!("a slot has at most {SLOT_ADDRESSES_MAX} addresses");
        findings.push(Finding::new(format!("{path}.address"), message));
        return;
    }
    if let Some(blocks) = &slot.port_blocks {
        check_port_blocks(path, slot, blocks, findings);
    }
    for (index, address) in slot.addresses.iter().enumerate() {
        let path = format!("{path}.address.{index}");
        if let Some(reason) = unusable(address.address) {
            let message = format!("address: {} is {reason}", address.address);
            findings.push(Finding::new(format!("{path}.address"), message));
        }
        if let Err(error) = PoolHandle::new(address.lan.as_str()) {
            findings.push(Finding::new(format!("{path}.lan"), format!("lan: {error}")));
        }
        check_witnesses(&path, slot, address, findings);
    }
}

fn check_port_blocks(
    path: &str,
    slot: &SlotSpec,
    blocks: &PortBlocks,
    findings: &mut Vec<Finding>,
) {
    let path = format!("{path}.port_blocks");
    let elements = &blocks.elements;
    let twice = elements
        .iter()
        .enumerate()
        .find(|(i, e)| elements[..*i].contains(e));
    if let Some((_, element)) = twice {
        let message = format!("elements: '{element}' is there twice");
        findings.push(Finding::new(format!("{path}.elements"), message));
    }
    if elements.len() < 2 {
        let finding = Finding::new(
            format!("{path}.elements"),
            "elements: at least two, or nobody could take the slot over",
        );
        findings.push(finding.help("name every element of the pool: each has blocks of its own"));
    }
    if blocks.count() > BLOCKS_MAX {
        let message = format!(
            "a slot has at most {BLOCKS_MAX} port blocks, found {} elements with {} each",
            elements.len(),
            blocks.blocks_each
        );
        let finding = Finding::new(format!("{path}.blocks_each"), message);
        findings.push(finding.help("more blocks than that leave each too few ports"));
    }
    if let Some(preferred) = &slot.preferred
        && !elements.contains(preferred)
    {
        let message = format!("elements: the preferred element '{preferred}' is missing");
        let finding = Finding::new(format!("{path}.elements"), message);
        findings.push(finding.help("an element without blocks cannot serve"));
    }
}

fn check_witnesses(
    path: &str,
    slot: &SlotSpec,
    address: &VirtualAddress,
    findings: &mut Vec<Finding>,
) {
    let path = format!("{path}.witnesses");
    if address.witnesses.len() > WITNESSES_MAX {
        let message = format!("witnesses: at most {WITNESSES_MAX} for an address");
        findings.push(Finding::new(path, message));
        return;
    }
    let on_lan = || {
        slot.addresses
            .iter()
            .filter(|other| other.lan == address.lan)
    };
    for witness in &address.witnesses {
        let is_link_local = matches!(witness, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let is_on_link = on_lan().any(|other| other.address.contains(witness));
        if !is_link_local && !is_on_link {
            let message = format!(
                "witnesses: {witness} is not on LAN '{}': no address of the slot there covers it",
                address.lan
            );
            let help =
                "a witness answers ARP or neighbour discovery, so it must be on the same LAN";
            findings.push(Finding::new(path.clone(), message).help(help));
        }
    }
}

fn check_uniqueness(spec: &PoolSpec, findings: &mut Vec<Finding>) {
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    let mut owners: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut routers: BTreeMap<(&str, u8), (usize, &str)> = BTreeMap::new();
    let mut maps: Vec<(&NatMap, &str)> = Vec::new();
    for (slot_index, slot) in spec.slots.iter().enumerate() {
        if names.insert(slot.name.as_str(), slot_index).is_some() {
            let message = format!("name: slot '{}' is there twice", slot.name);
            findings.push(Finding::new(format!("slot.{slot_index}.name"), message));
        }
        if let Some(PortBlocks { map, .. }) = &slot.port_blocks {
            if let Some((_, owner)) = maps.iter().find(|(known, _)| *known == map) {
                let message = format!("map: '{}' is already the map of slot '{owner}'", map.name);
                let finding = Finding::new(format!("slot.{slot_index}.port_blocks.map"), message);
                findings.push(finding.help("slots move apart, so each needs a map of its own"));
            }
            maps.push((map, slot.name.as_str()));
        }
        for (index, address) in slot.addresses.iter().enumerate() {
            let path = format!("slot.{slot_index}.address.{index}");
            let ip = address.address.addr();
            if let Some(owner) = owners.insert(ip, slot.name.as_str()) {
                let message = format!("address: {ip} is already an address of slot '{owner}'");
                findings.push(Finding::new(format!("{path}.address"), message));
            }
            let key = (address.lan.as_str(), address.vrid.0.get());
            let (first, owner) = *routers
                .entry(key)
                .or_insert((slot_index, slot.name.as_str()));
            if first != slot_index {
                let message = format!(
                    "vrid: {} on LAN '{}' already belongs to slot '{owner}'",
                    address.vrid, address.lan
                );
                let finding = Finding::new(format!("{path}.vrid"), message);
                findings.push(finding.help("two slots with one virtual MAC cannot move apart"));
            }
        }
    }
    for (slot_index, slot) in spec.slots.iter().enumerate() {
        for (index, address) in slot.addresses.iter().enumerate() {
            for witness in address
                .witnesses
                .iter()
                .filter(|ip| owners.contains_key(ip))
            {
                let path = format!("slot.{slot_index}.address.{index}.witnesses");
                let message = format!("witnesses: {witness} is a virtual address of this pool");
                let help = "a witness is a host outside the pool, such as a router or a server";
                findings.push(Finding::new(path, message).help(help));
            }
        }
    }
}

/// Why an address cannot be a virtual address.
fn unusable(net: IpNet) -> Option<&'static str> {
    let ip = net.addr();
    let prefix_min = if ip.is_ipv4() { 8 } else { 16 };
    if ip.is_unspecified() {
        return Some("the unspecified address");
    }
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    if ip.is_multicast() {
        return Some("a multicast address");
    }
    if net.prefix_len() < prefix_min {
        return Some("in a network larger than any LAN: check the prefix length");
    }
    match net {
        IpNet::V4(v4) if v4.prefix_len() < 31 && ip == v4.network() => {
            Some("the address of the network itself: the host part is zero")
        }
        IpNet::V4(v4) if v4.prefix_len() < 31 && ip == v4.broadcast() => {
            Some("the broadcast address of its network")
        }
        // The all-zeros host is the subnet-router anycast address (RFC 4291 §2.6.1).
        IpNet::V6(v6) if v6.prefix_len() < 127 && ip == v6.network() => {
            Some("the anycast address of the network: the host part is zero")
        }
        IpNet::V4(_) | IpNet::V6(_) => None,
    }
}

const HEARTBEAT_MS_MAX: u32 = 10_000;
const AUTO_LEASE_MS_MIN: u32 = 5;
const AUTO_LEASE_MS_MAX: u32 = 20_000;
/// One lost heartbeat must not end a lease, nor two that are late.
const LEASE_HEARTBEATS_MIN: u32 = 3;
const MANAGER_LEASE_LEASES_MIN: u32 = 2;
const MANAGER_LEASE_MS_MAX: u32 = 60_000;
/// As many gates as an element has (`GATES_MAX` of the gate).
const SLOTS_MAX: usize = 256;
/// As many as each map of the gate's program holds (`KEYS_MAX` in `gate.bpf.c`).
const POOL_ADDRESSES_MAX: usize = 1_024;
/// Half of a control message, which also carries the paths of all elements; as JSON, its form
/// there, a pool is about as long as its file.
const POOL_BYTES_MAX: usize = 128 * 1_024;
const SLOT_ADDRESSES_MAX: usize = 64;
const WITNESSES_MAX: usize = 8;
/// With as many, a block of all ports has 252.
const BLOCKS_MAX: usize = 256;
