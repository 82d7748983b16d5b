//! A virtual MAC on a LAN: the macvlan device, its settings and its addresses.

use std::net::IpAddr;

use vnfpool_model::VirtualRouterId;

use crate::addresses::{self, AddressError, GroupMembership};
use crate::links::{self, Interface, LinkError};
use crate::sysctl::{self, Changes, Family, SysctlError, interface_path};

/// Why a virtual device could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VirtualDeviceError {
    /// The device.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Its addresses.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

/// The settings of a LAN's parent interface that keep its own MAC away from virtual addresses.
#[derive(Debug)]
pub struct ParentSettings {
    changes: Changes,
}

impl ParentSettings {
    /// Answers ARP for addresses of this interface only, and asks with its own address only.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn apply(parent: &Interface) -> Result<Self, SysctlError> {
        let mut changes = Changes::default();
        for (key, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
            changes.set(interface_path(Family::V4, &parent.name, key), value)?;
        }
        Ok(Self { changes })
    }

    /// Puts the settings back as they were.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn restore(mut self) -> Result<(), SysctlError> {
        self.changes.restore()
    }
}

/// The macvlan device that carries the virtual addresses of one virtual router, family and LAN.
///
/// The order is: [`VirtualDevice::prepare`], tell the gate its index and addresses, and only then
/// [`VirtualDevice::configure`]. Nothing is removed when this is dropped: an agent that dies
/// leaves its addresses behind the gate, and the next one finds them.
#[derive(Debug)]
pub struct VirtualDevice {
    interface: Interface,
    parent: Interface,
    memberships: Vec<GroupMembership>,
}

impl VirtualDevice {
    /// Finds or makes the device, without addresses if it is new, and sets its settings.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn prepare(
        parent: &Interface,
        vrid: VirtualRouterId,
        address: IpAddr,
    ) -> Result<Self, VirtualDeviceError> {
        let device = Self {
            interface: links::ensure_macvlan(parent, vrid, address)?,
            parent: parent.clone(),
            memberships: Vec::new(),
        };
        if let Err(error) = set_device_settings(&device.interface.name) {
            // Nobody would know of it. If that fails too, what went wrong first says more.
            let _ = device.remove();
            return Err(error.into());
        }
        Ok(device)
    }

    /// Writes down whose device it is, for [`VirtualDevice::close_left_behind`]. To be done before
    /// it has addresses.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn mark(&self, owner: &str) -> Result<(), LinkError> {
        links::set_alias(&self.interface, owner)
    }

    /// Turns off every device of `owner` and removes its addresses: what a killed agent has left
    /// and no gate holds back. Returns how many were on.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn close_left_behind(owner: &str) -> Result<usize, VirtualDeviceError> {
        let devices = links::with_alias(owner)?;
        for device in &devices {
            links::set_up(device, false)?;
            for found in addresses::list(device)? {
                addresses::remove(device, found.addr())?;
            }
        }
        Ok(devices.iter().filter(|device| device.is_up).count())
    }

    /// The device; the gate needs its index.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Turns the device on with exactly these addresses, which the gate has to know already; or
    /// off if there are none. (A device that is on takes frames for its MAC even without an
    /// address, and they would be forwarded.)
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn configure(&mut self, addresses: &[IpAddr]) -> Result<(), VirtualDeviceError> {
        if addresses.is_empty() {
            links::set_up(&self.interface, false)?;
        }
        for found in addresses::list(&self.interface)? {
            if !addresses.contains(&found.addr()) {
                addresses::remove(&self.interface, found.addr())?;
            }
        }
        if !addresses.is_empty() {
            links::set_up(&self.interface, true)?;
        }
        let mut memberships = Vec::new();
        for &address in addresses {
            addresses::ensure(&self.interface, address)?;
            if let IpAddr::V6(address) = address {
                memberships.push(GroupMembership::join(&self.parent, address)?);
            }
        }
        self.memberships = memberships;
        Ok(())
    }

    /// Removes the device and its addresses, if it is still there. The gate may forget them
    /// afterwards.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn remove(&self) -> Result<(), LinkError> {
        links::remove(&self.interface)
    }
}

fn set_device_settings(device: &str) -> Result<(), SysctlError> {
    // The stricter of the device's and the common value counts, and "loose" is the largest.
    let all = sysctl::read(&interface_path(Family::V4, "all", "rp_filter"))?;
    let rp_filter = if all == "0" { "0" } else { "2" };
    for (key, value) in [
        // Packets come in here, but the way back to their senders is the parent.
        ("rp_filter", rp_filter),
        // Only the virtual address may be asked for here, not those of other interfaces.
        ("arp_ignore", "1"),
        ("send_redirects", "0"),
        ("accept_redirects", "0"),
    ] {
        sysctl::write(&interface_path(Family::V4, device, key), value)?;
    }
    // A machine without IPv6 has none of these.
    if !interface_path(Family::V6, device, "").exists() {
        return Ok(());
    }
    for (key, value) in [
        // No address of its own, made up or announced by a router; no duplicate detection.
        ("addr_gen_mode", "1"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("accept_redirects", "0"),
    ] {
        sysctl::write(&interface_path(Family::V6, device, key), value)?;
    }
    Ok(())
}
