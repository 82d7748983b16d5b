//! What the program looks a packet up by. The layouts are those of `bpf/gate.bpf.c`.
//!
//! Every key is in a hash map, and has a place in an array ([`crate::places`]) that spares the
//! program most of the look-ups there. A key is in its place before it is in its hash map, and in
//! its hash map for no longer than in its place: what the program finds is never less than all keys.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::{Array, HashMap, MapData, MapError};
use vnfpool_model::MacAddr;

use crate::gate::GatedAddress;
use crate::places::Places;

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

/// The hash maps of the program, and the places of all keys.
#[derive(Debug)]
pub(crate) struct KeyMaps {
    macs: HashMap<MapData, MacKey, u32>,
    addresses: HashMap<MapData, AddressKey, Claim>,
    devices: HashMap<MapData, DeviceKey, u32>,
    places: Places,
}

impl KeyMaps {
    /// Takes the maps as an earlier process has left them; what it has left in `places` is put
    /// right, since it may have ended between the two steps of a change, or know no places.
    pub(crate) fn take(
        macs: HashMap<MapData, MacKey, u32>,
        addresses: HashMap<MapData, AddressKey, Claim>,
        devices: HashMap<MapData, DeviceKey, u32>,
        places: Array<MapData, u64>,
    ) -> Result<Self, MapError> {
        let mut maps = Self {
            macs,
            addresses,
            devices,
            places: Places::new(places),
        };
        let keys = maps.with_slots()?;
        maps.places.rebuild(keys)?;
        Ok(maps)
    }

    pub(crate) fn insert(&mut self, key: Key, index: u8, mac: MacAddr) -> Result<(), MapError> {
        self.places.insert(key, index)?;
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
            Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound => {}
            other => other?,
        }
        self.places.remove(key)
    }

    /// Every key in the kernel, those of an earlier process included.
    pub(crate) fn all(&self) -> Result<Vec<Key>, MapError> {
        let macs = self.macs.keys().map(|key| key.map(Key::Mac));
        let addresses = self.addresses.keys().map(|key| key.map(Key::Address));
        let devices = self.devices.keys().map(|key| key.map(Key::Device));
        macs.chain(addresses).chain(devices).collect()
    }

    fn with_slots(&self) -> Result<Vec<(Key, u8)>, MapError> {
        let of = |key, slot: u32| (key, slot.to_le_bytes()[0]);
        let macs = self.macs.iter();
        let macs = macs.map(|entry| entry.map(|(key, slot)| of(Key::Mac(key), slot)));
        let addresses = self.addresses.iter().map(|entry| {
            let (key, [a, b, c, d, ..]) = entry?;
            Ok(of(Key::Address(key), u32::from_ne_bytes([a, b, c, d])))
        });
        let devices = self.devices.iter();
        let devices = devices.map(|entry| entry.map(|(key, slot)| of(Key::Device(key), slot)));
        macs.chain(addresses).chain(devices).collect()
    }
}

/// Whether a MAC is one of RFC 9568 §7.3; the program looks for no others.
pub(crate) fn is_virtual(mac: MacAddr) -> bool {
    matches!(mac.0, [0, 0, 0x5e, 0, 1 | 2, _])
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
