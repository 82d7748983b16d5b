//! Maglev hashing: which backend a flow gets, evenly, and with few changes when the set changes.
//!
//! Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016, section 3.4:
//! each backend has a permutation of the table's places of its own, and they take turns in choosing the next free
//! one of theirs.

use std::hash::Hasher as _;
use std::net::SocketAddrV4;

use siphasher::sip::SipHasher13;

/// Places of a table: a prime, a hundred times as many as there are backends (section 5.3).
pub const PLACES: usize = 65_537;

/// Most backends: more, and shares differ by more than a few per cent.
pub const BACKENDS_MAX: usize = 512;

/// Fixed, so that every instance makes the same table.
const KEYS: [(u64, u64); 3] = [
    (0x7661_6c75_6520_6f66, 1),
    (0x7661_6c75_6520_6f66, 2),
    (0x7661_6c75_6520_6f66, 3),
];

/// The table for one set of backends.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    backends: Vec<SocketAddrV4>,
    /// A backend for each place; empty without backends.
    places: Vec<u16>,
}

impl Maglev {
    /// The table of `backends`, of which the order does not matter and the first [`BACKENDS_MAX`]
    /// in order count.
    #[must_use]
    pub fn new(backends: &[SocketAddrV4]) -> Self {
        let mut backends = backends.to_vec();
        backends.sort_unstable();
        backends.dedup();
        backends.truncate(BACKENDS_MAX);
        let places = populate(&backends);
        Self { backends, places }
    }

    /// The backend of a flow; none without backends.
    #[must_use]
    pub fn pick(&self, flow: &[u8]) -> Option<SocketAddrV4> {
        let place = place_of(hash(KEYS[2], flow), self.places.len())?;
        Some(self.backends[usize::from(self.places[place])])
    }

    /// The backends, in order.
    #[must_use]
    pub fn backends(&self) -> &[SocketAddrV4] {
        &self.backends
    }
}

fn populate(backends: &[SocketAddrV4]) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    if backends.is_empty() {
        return Vec::new();
    }
    let mut walks: Vec<Walk> = backends.iter().map(Walk::of).collect();
    let mut places = vec![FREE; PLACES];
    let mut taken = 0;
    loop {
        for (backend, walk) in (0u16..).zip(&mut walks) {
            // A permutation reaches every place, and one is free: it ends.
            while places[walk.place] != FREE {
                walk.step();
            }
            places[walk.place] = backend;
            taken += 1;
            if taken == PLACES {
                return places;
            }
        }
    }
}

/// A backend's permutation of the places.
struct Walk {
    place: usize,
    skip: usize,
}

impl Walk {
    fn of(backend: &SocketAddrV4) -> Self {
        let name = name(*backend);
        let place = place_of(hash(KEYS[0], &name), PLACES).unwrap_or_default();
        let skip = place_of(hash(KEYS[1], &name), PLACES - 1).unwrap_or_default() + 1;
        Self { place, skip }
    }

    const fn step(&mut self) {
        self.place = (self.place + self.skip) % PLACES;
    }
}

fn name(backend: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = backend.ip().octets();
    let [high, low] = backend.port().to_be_bytes();
    [a, b, c, d, high, low]
}

fn hash((first, second): (u64, u64), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(first, second);
    hasher.write(bytes);
    hasher.finish()
}

fn place_of(hash: u64, places: usize) -> Option<usize> {
    let place = hash.checked_rem(places as u64)?;
    usize::try_from(place).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use super::*;

    fn backends(count: u8) -> Vec<SocketAddrV4> {
        let backend = |n| SocketAddrV4::new(Ipv4Addr::new(10, 2, 0, n), 80);
        (1..=count).map(backend).collect()
    }

    /// Goal: shares differ by less than a few per cent; the paper's figure for this size is below 1 %.
    #[test]
    fn shares_are_even() {
        for count in [1u8, 3, 10, 100] {
            let table = Maglev::new(&backends(count));
            let mut shares: BTreeMap<u16, usize> = BTreeMap::new();
            table
                .places
                .iter()
                .for_each(|b| *shares.entry(*b).or_default() += 1);
            let (least, most) = (
                shares.values().min().unwrap(),
                shares.values().max().unwrap(),
            );
            assert_eq!(shares.len(), usize::from(count));
            assert!(most - least <= 1, "{least} to {most}: they take turns");
        }
    }

    /// Goal: a backend that leaves takes its own flows with it, and few others'.
    #[test]
    fn few_flows_move_when_a_backend_leaves() {
        let all = Maglev::new(&backends(10));
        let fewer = Maglev::new(&backends(9));
        let gone = backends(10)[9];
        let flows = 0..20_000u32;
        let moved = flows.filter(|flow| {
            let flow = flow.to_be_bytes();
            let before = all.pick(&flow).unwrap();
            before != gone && fewer.pick(&flow) != Some(before)
        });
        // By chance 80 % of them would; the paper has about 2 % for this ratio.
        let moved = moved.count();
        assert!(moved < 20_000 / 20, "{moved} of 20000");
    }

    #[test]
    fn every_instance_has_the_same_table_in_whatever_order_it_learns() {
        let mut reversed = backends(7);
        reversed.reverse();
        reversed.push(backends(1)[0]);
        let (one, other) = (Maglev::new(&backends(7)), Maglev::new(&reversed));
        assert_eq!(one.places, other.places);
        assert_eq!(one.backends(), other.backends());
    }

    #[test]
    fn without_backends_nobody_is_picked() {
        assert_eq!(Maglev::new(&[]).pick(b"flow"), None);
    }
}
