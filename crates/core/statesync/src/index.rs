//! What was told of a table: hashes of keys and values, and their sum over buckets.

use std::fmt;
use std::hash::Hasher as _;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use rustc_hash::FxBuildHasher;
use siphasher::sip::SipHasher13;
use vnfpool_model::Time;

/// Buckets of an index; a key's bucket is the upper bits of its hash.
pub const BUCKETS: u16 = 1 << BUCKET_BITS;

const BUCKET_BITS: u32 = 10;

/// The secret of a stream's hashes: whoever chooses keys (a client chooses its ports) must not be
/// able to choose two with one hash.
pub(crate) type HashKey = [u8; 16];

/// Hashes of a stream.
#[derive(Clone, Copy)]
pub(crate) struct Hashes(SipHasher13);

impl fmt::Debug for Hashes {
    /// The secret is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hashes")
    }
}

impl Hashes {
    pub(crate) fn new(key: &HashKey) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The hash that stands for a key.
    pub(crate) fn of(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(bytes);
        hasher.finish()
    }

    /// The hash that stands for a value: a difference escapes once in 2^32.
    #[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    pub(crate) fn of_value(&self, bytes: &[u8]) -> u32 {
        self.of(bytes) as u32
    }
}

/// What is known of one entry: small, since there are a great many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) value: u32,
    /// When the copy expires by what was told, in whole seconds of this machine's clock.
    pub(crate) expires_s: u32,
    /// The last scan of the sender that told of it, and the last sweep of the receiver that saw it.
    pub(crate) told_in: u16,
    pub(crate) seen_in: u8,
    /// The copy does not hold it as it was told, and it was not told since: see [`Index::want`].
    is_wanted: bool,
    /// Of the receiver: the hash of what its table was found to hold the last time that this was not
    /// `value`; else `value`.
    pub(crate) held: u32,
}

impl Row {
    pub(crate) const fn told(value: u32, expires_s: u32, told_in: u16) -> Self {
        Self {
            value,
            expires_s,
            told_in,
            seen_in: 0,
            is_wanted: false,
            held: value,
        }
    }

    pub(crate) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }
}

/// The rows, by the hash of the key, and the sum of each bucket.
pub(crate) struct Index {
    // The key is a keyed hash already.
    rows: HashMap<u64, Row, FxBuildHasher>,
    sums: Box<[u64]>,
    wanted: usize,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index of {} entries", self.rows.len())
    }
}

impl Default for Index {
    fn default() -> Self {
        Self {
            rows: HashMap::default(),
            sums: vec![0; usize::from(BUCKETS)].into(),
            wanted: 0,
        }
    }
}

impl Index {
    pub(crate) fn get(&self, key: u64) -> Option<&Row> {
        self.rows.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Row> {
        self.rows.get_mut(&key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Takes in what was told.
    pub(crate) fn put(&mut self, key: u64, row: Row) {
        let sum = sum_of(&mut self.sums, key);
        *sum ^= mixed(key, row.value);
        match self.rows.entry(key) {
            Entry::Occupied(mut old) => {
                let old = old.insert(row);
                self.wanted -= usize::from(old.is_wanted);
                *sum ^= mixed(key, old.value);
            }
            Entry::Vacant(place) => {
                place.insert(row);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> bool {
        let Some(old) = self.rows.remove(&key) else {
            return false;
        };
        self.wanted -= usize::from(old.is_wanted);
        *sum_of(&mut self.sums, key) ^= mixed(key, old.value);
        true
    }

    /// Removes the rows that `goes` says, and gives their keys.
    pub(crate) fn extract(&mut self, mut goes: impl FnMut(u64, &Row) -> bool) -> Vec<u64> {
        let (sums, wanted) = (&mut self.sums, &mut self.wanted);
        let gone = self.rows.extract_if(|key, row| goes(*key, row));
        gone.map(|(key, row)| {
            *wanted -= usize::from(row.is_wanted);
            *sum_of(sums, key) ^= mixed(key, row.value);
            key
        })
        .collect()
    }

    /// Notes that the entry is to be told anew: until it is, or ends. True if that is news.
    pub(crate) fn want(&mut self, key: u64) -> bool {
        let row = self.rows.get_mut(&key).filter(|row| !row.is_wanted);
        let is_news = row.map(|row| row.is_wanted = true).is_some();
        self.wanted += usize::from(is_news);
        is_news
    }

    /// Wants every row that `is_lost` says and that is not wanted yet, and gives the keys.
    pub(crate) fn want_where(&mut self, mut is_lost: impl FnMut(&mut Row) -> bool) -> Vec<u64> {
        let mut news = Vec::new();
        for (key, row) in &mut self.rows {
            if is_lost(row) && !std::mem::replace(&mut row.is_wanted, true) {
                news.push(*key);
            }
        }
        self.wanted += news.len();
        news
    }

    /// Entries that are to be told anew.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    pub(crate) fn sum(&self, bucket: u16) -> u64 {
        self.sums
            .get(usize::from(bucket))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The bucket of a key's hash.
pub(crate) const fn bucket_of(key: u64) -> u16 {
    let [high, low, ..] = key.to_be_bytes();
    u16::from_be_bytes([high, low]) >> (u16::BITS - BUCKET_BITS)
}

fn sum_of(sums: &mut [u64], key: u64) -> &mut u64 {
    &mut sums[usize::from(bucket_of(key))]
}

/// When something that lives on for `ttl_s` seconds (0: for ever) expires, in seconds of the clock.
pub(crate) fn expiry(now: Time, ttl_s: u32) -> u32 {
    let now_s = u32::try_from(now.0 / 1_000_000_000).unwrap_or(u32::MAX);
    match ttl_s {
        0 => u32::MAX,
        _ => now_s.saturating_add(ttl_s),
    }
}

/// The part of a generation that rows keep: two scans that differ by 65 536 never meet in one.
#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(crate) const fn short(generation: u32) -> u16 {
    generation as u16
}

/// Key and value as one number that no other pair is likely to have (the finalizer of SplitMix64).
const fn mixed(key: u64, value: u32) -> u64 {
    let mut x = key ^ (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u32) -> Row {
        Row::told(value, 0, 0)
    }

    /// Goal: equal content gives equal sums, whatever the way there; any difference shows.
    #[test]
    fn sums_depend_on_content_alone() {
        let hashes = Hashes::new(&[7; 16]);
        let key = |n: u32| hashes.of(&n.to_be_bytes());
        let (mut one, mut other) = (Index::default(), Index::default());
        for n in 0..5_000 {
            one.put(key(n), row(n));
        }
        for n in (0..6_000).rev() {
            other.put(key(n), row(n + 1));
            other.put(key(n), row(n));
        }
        let extra = other.extract(|_, row| row.value >= 5_001);
        assert_eq!(extra.len(), 999);
        let differing = |one: &Index, other: &Index| -> Vec<u16> {
            let differs = |bucket: &u16| one.sum(*bucket) != other.sum(*bucket);
            (0..BUCKETS).filter(differs).collect()
        };
        assert_eq!(differing(&one, &other), [bucket_of(key(5_000))]);
        assert!(other.remove(key(5_000)) && !other.remove(key(5_000)));
        assert!(differing(&one, &other).is_empty());
        assert_eq!((one.len(), other.len()), (5_000, 5_000));
        one.put(key(17), row(18));
        assert_eq!(differing(&one, &other), [bucket_of(key(17))]);
    }

    /// Goal: what is wanted is counted once, and until it is told or gone, whichever way.
    #[test]
    fn what_is_wanted_is_counted() {
        let mut index = Index::default();
        (0..10).for_each(|key| index.put(key, row(1)));
        assert!(index.want(3) && !index.want(3) && !index.want(99));
        let even = |row: &mut Row| std::mem::replace(&mut row.value, 2) == 1;
        assert_eq!(index.want_where(even).len(), 9);
        assert_eq!(index.wanted(), 10);
        assert!(index.get(3).unwrap().is_wanted());
        index.put(3, row(1));
        index.remove(4);
        index.extract(|key, _| key > 7);
        assert_eq!(index.wanted(), 6);
        assert!(!index.get(3).unwrap().is_wanted());
        index.clear();
        assert_eq!((index.wanted(), index.len()), (0, 0));
    }
}
