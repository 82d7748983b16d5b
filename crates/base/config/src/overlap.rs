//! What two pools must not share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use vnfpool_model::{LanName, PoolHandle, PoolSpec, SlotName, VirtualRouterId};

/// Something of a new pool that another pool has already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// A virtual address.
    Address {
        /// The address.
        address: IpAddr,
        /// The pool that has it.
        pool: PoolHandle,
        /// Its slot there.
        slot: SlotName,
    },
    /// A virtual router identifier on a LAN, and so a virtual MAC.
    Router {
        /// The identifier.
        vrid: VirtualRouterId,
        /// The LAN.
        lan: LanName,
        /// The pool that has it.
        pool: PoolHandle,
        /// Its slot there.
        slot: SlotName,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                address,
                pool,
                slot,
            } => write!(
                f,
                "address {address} is already used by pool '{pool}', slot '{slot}'"
            ),
            Self::Router {
                vrid,
                lan,
                pool,
                slot,
            } => write!(
                f,
                "vrid {vrid} on LAN '{lan}' is already used by pool '{pool}', slot '{slot}'"
            ),
        }
    }
}

/// The addresses and virtual routers of `new` that one of the `others` uses. A pool among the
/// others with the handle of the new one is its earlier version and does not count.
#[must_use]
pub fn overlaps(others: &[PoolSpec], new: &PoolSpec) -> Vec<Conflict> {
    let mut addresses = BTreeMap::new();
    let mut routers = BTreeMap::new();
    for pool in others.iter().filter(|pool| pool.handle != new.handle) {
        for slot in &pool.slots {
            for address in &slot.addresses {
                let owner = (&pool.handle, &slot.name);
                addresses.insert(address.address.addr(), owner);
                routers.insert((&address.lan, address.vrid), owner);
            }
        }
    }
    let mut conflicts = Vec::new();
    let mut push = |conflict| {
        if !conflicts.contains(&conflict) {
            conflicts.push(conflict);
        }
    };
    for used in new.slots.iter().flat_map(|slot| &slot.addresses) {
        if let Some((pool, slot)) = addresses.get(&used.address.addr()) {
            push(Conflict::Address {
                address: used.address.addr(),
                pool: (*pool).clone(),
                slot: (*slot).clone(),
            });
        }
        if let Some((pool, slot)) = routers.get(&(&used.lan, used.vrid)) {
            push(Conflict::Router {
                vrid: used.vrid,
                lan: used.lan.clone(),
                pool: (*pool).clone(),
                slot: (*slot).clone(),
            });
        }
    }
    conflicts
}
