//! Where the program finds, without a call, which slot a packet belongs to. The layouts and the
//! arithmetic are those of `bpf/gate.bpf.c`.
//!
//! An array of places; a key belongs to the place that its tag is mixed to. A place is empty, or
//! holds the tag and the slot of its only key, or says that several keys share it: the program then
//! asks the hash maps.

use std::collections::BTreeMap;
use std::fmt;

use aya::maps::{Array, MapData, MapError};

use crate::keys::Key;

const PLACE_BITS: u32 = 12;
const SLOT_BITS: u32 = 16;
const PAYLOAD_BITS: u32 = 41;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
const EMPTY: u64 = 0;
const SHARED: u64 = u64::MAX;

/// The array in the kernel, and which keys belong where.
pub(crate) struct Places {
    array: Array<MapData, u64>,
    keys: BTreeMap<u32, BTreeMap<Key, u8>>,
}

impl Places {
    pub(crate) fn new(array: Array<MapData, u64>) -> Self {
        Self {
            array,
            keys: BTreeMap::new(),
        }
    }

    /// Makes the places those of exactly these keys, whatever was there.
    pub(crate) fn rebuild(&mut self, keys: Vec<(Key, u8)>) -> Result<(), MapError> {
        self.keys.clear();
        for (key, slot) in keys {
            if let Some(tag) = tag(key) {
                self.keys.entry(place(tag)).or_default().insert(key, slot);
            }
        }
        for place in 0..1 << PLACE_BITS {
            let wanted = self.entry(place);
            // What is right already may be in use just now: it is not touched.
            if self.array.get(&place, 0)? != wanted {
                self.array.set(place, wanted, 0)?;
            }
        }
        Ok(())
    }

    /// A key that has no tag is never asked for.
    pub(crate) fn insert(&mut self, key: Key, slot: u8) -> Result<(), MapError> {
        let Some(tag) = tag(key) else {
            return Ok(());
        };
        let place = place(tag);
        self.keys.entry(place).or_default().insert(key, slot);
        self.array.set(place, self.entry(place), 0)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Result<(), MapError> {
        let Some(place) = tag(key).map(place) else {
            return Ok(());
        };
        if let Some(keys) = self.keys.get_mut(&place) {
            keys.remove(&key);
        }
        self.array.set(place, self.entry(place), 0)
    }

    fn entry(&self, place: u32) -> u64 {
        let keys = self.keys.get(&place).into_iter().flatten();
        entry_of(keys.map(|(key, slot)| (*key, *slot)))
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

fn entry_of(keys: impl IntoIterator<Item = (Key, u8)>) -> u64 {
    let mut keys = keys.into_iter();
    match (keys.next(), keys.next()) {
        (None, _) => EMPTY,
        (Some((key, slot)), None) => {
            tag(key).map_or(SHARED, |tag| tag << SLOT_BITS | u64::from(slot))
        }
        (Some(_), Some(_)) => SHARED,
    }
}

fn place(tag: u64) -> u32 {
    let mixed = tag.wrapping_mul(MIX) >> (u64::BITS - PLACE_BITS);
    u32::try_from(mixed).unwrap_or(0)
}

/// The kind of a key and 41 bits that are all of it, but for IPv6 addresses. None for a MAC that is
/// no virtual one, which the program does not look for.
pub(crate) fn tag(key: Key) -> Option<u64> {
    let (kind, payload) = match key {
        Key::Mac([i, f, n, d, 0, 0, 0x5e, 0, family @ (1 | 2), vrid, ..]) => {
            let ifindex = u64::from(u32::from_ne_bytes([i, f, n, d]));
            (
                1,
                ifindex << 9 | u64::from(family - 1) << 8 | u64::from(vrid),
            )
        }
        Key::Mac(_) => return None,
        Key::Device(ifindex) => (2, u64::from(u32::from_ne_bytes(ifindex))),
        Key::Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]) => {
            (3, u64::from(u32::from_ne_bytes([a, b, c, d])))
        }
        Key::Address(address) => (4, hash_of_ipv6(address)),
    };
    Some(kind << PAYLOAD_BITS | payload)
}

/// 41 bits of a mixture of the four words.
fn hash_of_ipv6(address: [u8; 16]) -> u64 {
    let word = |at: usize| {
        let [a, b, c, d] = [at, at + 1, at + 2, at + 3].map(|index| address[index]);
        u64::from(u32::from_ne_bytes([a, b, c, d]))
    };
    let high = word(4) << 32 | word(0);
    let low = word(12) << 32 | word(8);
    (high.wrapping_mul(MIX) ^ low).wrapping_mul(MIX) >> (u64::BITS - PAYLOAD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(ifindex: u32) -> Key {
        Key::Device(ifindex.to_ne_bytes())
    }

    fn mac(ifindex: u32, mac: [u8; 6]) -> Key {
        let mut key = [0; 12];
        key[..4].copy_from_slice(&ifindex.to_ne_bytes());
        key[4..10].copy_from_slice(&mac);
        Key::Mac(key)
    }

    /// Goal: no packet is taken for another's. Method: keys that differ in one field each have tags
    /// that differ, no tag is empty, and none is what a shared place says.
    #[test]
    fn different_keys_have_different_tags() {
        let keys = [
            device(7),
            device(u32::MAX),
            mac(7, [0, 0, 0x5e, 0, 1, 7]),
            mac(7, [0, 0, 0x5e, 0, 2, 7]),
            mac(7, [0, 0, 0x5e, 0, 1, 255]),
            mac(u32::MAX, [0, 0, 0x5e, 0, 2, 255]),
            Key::Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 0, 254]),
            Key::Address([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 255, 255, 255, 255]),
            Key::Address([0xfd, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe]),
            Key::Address([0xfd, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe]),
        ];
        let mut tags: Vec<u64> = keys.map(|key| tag(key).unwrap()).into();
        for tag in &tags {
            assert!(*tag > 0 && *tag < SHARED >> SLOT_BITS, "{tag:x}");
        }
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), keys.len());
        assert_eq!(tag(mac(7, [2, 0, 0x5e, 0, 1, 7])), None);
        assert_eq!(tag(mac(7, [0, 0, 0x5e, 0, 3, 7])), None);
    }

    #[test]
    fn a_place_is_empty_of_one_key_or_shared() {
        assert_eq!(entry_of([]), 0);
        let entry = entry_of([(device(3), 255)]);
        assert_eq!((entry >> 16, entry & 0xff), ((2 << 41) | 3, 255));
        assert_eq!(entry_of([(device(3), 0), (device(4), 0)]), SHARED);
    }
}
