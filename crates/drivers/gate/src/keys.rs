//! What the program looks a packet up by. The layouts are those of `bpf/gate.bpf.c`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::{HashMap, MapData, MapError};
use vnfpool_model::MacAddr;

use crate::gate::GatedAddress;

pub(crate) type MacKey = [u8; 12];
pub(crate) type AddressKey = [u8; 16];
pub(crate) type DeviceKey = [u8; 4];
/// `struct claim`.
pub(crate) type Claim = [u8; 12];

/// One thing that makes a packet belong to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Mac(MacKey),
    Address(AddressKey),
    Device(DeviceKey),
}

/// The keys of a slot, each with the MAC that may announce it.
pub(crate) fn keys_of(addresses: &[GatedAddress]) -> BTreeMap<Key, MacAddr> {
    let keys = addresses.iter().flat_map(|gated| {
        [
            (
                Key::Mac(mac_key(gated.parent_ifindex, gated.mac)),
                gated.mac,
            ),
            (Key::Address(address_key(gated.address)), gated.mac),
            (Key::Device(gated.device_ifindex.to_ne_bytes()), gated.mac),
        ]
    });
    keys.collect()
}

/// The three hash maps of the program.
#[derive(Debug)]
pub(crate) struct KeyMaps {
    pub(crate) macs: HashMap<MapData, MacKey, u32>,
    pub(crate) addresses: HashMap<MapData, AddressKey, Claim>,
    pub(crate) devices: HashMap<MapData, DeviceKey, u32>,
}

impl KeyMaps {
    pub(crate) fn insert(&mut self, key: Key, index: u8, mac: MacAddr) -> Result<(), MapError> {
        let slot = u32::from(index);
        match key {
            Key::Mac(key) => self.macs.insert(key, slot, 0),
            Key::Address(key) => self.addresses.insert(key, claim(slot, mac), 0),
            Key::Device(key) => self.devices.insert(key, slot, 0),
        }
    }

    /// Removes a key; one that is not there is fine.
    pub(crate) fn remove(&mut self, key: Key) -> Result<(), MapError> {
        let removed = match key {
            Key::Mac(key) => self.macs.remove(&key),
            Key::Address(key) => self.addresses.remove(&key),
            Key::Device(key) => self.devices.remove(&key),
        };
        match removed {
            Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Every key in the kernel, those of an earlier process included.
    pub(crate) fn all(&self) -> Result<Vec<Key>, MapError> {
        let macs = self.macs.keys().map(|key| key.map(Key::Mac));
        let addresses = self.addresses.keys().map(|key| key.map(Key::Address));
        let devices = self.devices.keys().map(|key| key.map(Key::Device));
        macs.chain(addresses).chain(devices).collect()
    }
}

fn mac_key(ifindex: u32, mac: MacAddr) -> MacKey {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&ifindex.to_ne_bytes());
    key[4..10].copy_from_slice(&mac.0);
    key
}

fn claim(slot: u32, mac: MacAddr) -> Claim {
    mac_key(slot, mac)
}

fn address_key(address: IpAddr) -> AddressKey {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_the_program() {
        let mac = MacAddr([0, 0, 0x5e, 0, 1, 11]);
        let mut expected = 7_u32.to_ne_bytes().to_vec();
        expected.extend([0, 0, 0x5e, 0, 1, 11, 0, 0]);
        assert_eq!(mac_key(7, mac).as_slice(), expected);
        assert_eq!(
            address_key("10.1.0.254".parse().unwrap()),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 254]
        );
    }
}
