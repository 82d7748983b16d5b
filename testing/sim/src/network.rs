//! The networks between the machines. A datagram goes over every path that both ends are on, and
//! the first copy counts. Each path loses, delays, doubles and cuts by itself.

use vnfpool_random::Random;

/// The most machines, the manager's among them.
pub const MACHINES_MAX: usize = 9;

/// A set of machines.
pub type Machines = u16;

/// The set of one machine.
#[must_use]
pub const fn only(machine: usize) -> Machines {
    1 << machine
}

/// How far a datagram travels without faults: from this on …
const TRAVEL_NS_MIN: u64 = 50_000;
/// … with so many random bits of nanoseconds more: about a millisecond.
const TRAVEL_BITS: u32 = 20;

/// One network.
#[derive(Clone, Debug)]
pub struct Path {
    /// Who has an interface on it.
    pub machines: Machines,
    /// `cut[from]`: whom `from` does not reach.
    pub cut: [Machines; MACHINES_MAX],
    /// Lost, of a thousand.
    pub lost_permille: u64,
    /// Late, of a thousand …
    pub late_permille: u64,
    /// … by up to so much.
    pub late_ns_max: u64,
    /// Arriving twice, of a thousand, the second time up to `late_ns_max` later.
    pub doubled_permille: u64,
    /// Held back behind the next ones, of a thousand.
    pub reordered_permille: u64,
}

impl Path {
    const fn new(machines: Machines) -> Self {
        Self {
            machines,
            cut: [0; MACHINES_MAX],
            lost_permille: 0,
            late_permille: 0,
            late_ns_max: 0,
            doubled_permille: 0,
            reordered_permille: 0,
        }
    }

    /// Whether `from` reaches `to` on this path.
    #[inline]
    #[must_use]
    pub const fn carries(&self, from: usize, to: usize) -> bool {
        let ends = only(from) | only(to);
        self.machines & ends == ends && self.cut[from] & only(to) == 0
    }

    /// Whether it loses, delays, doubles or reorders.
    #[inline]
    #[must_use]
    pub const fn is_noisy(&self) -> bool {
        self.lost_permille | self.late_permille | self.doubled_permille | self.reordered_permille
            != 0
    }

    /// Travel times of the copies that arrive.
    #[inline]
    fn travel(&self, random: &mut Random) -> (Option<u64>, Option<u64>) {
        let chance = random.next();
        let travel = TRAVEL_NS_MIN + (chance & ((1 << TRAVEL_BITS) - 1));
        if !self.is_noisy() {
            return (Some(travel), None);
        }
        if random.below(1_000) < self.lost_permille {
            return (None, None);
        }
        let mut travel = travel;
        if random.below(1_000) < self.late_permille {
            travel += random.below(self.late_ns_max);
        }
        if random.below(1_000) < self.reordered_permille {
            travel += random.below(40_000_000);
        }
        let doubled = random.below(1_000) < self.doubled_permille;
        let second = doubled.then(|| travel + random.below(self.late_ns_max.max(2_000_000)));
        (Some(travel), second)
    }
}

/// All paths: first the management LAN, which alone reaches the manager, then the link between the
/// gateways, then each LAN with virtual addresses.
#[derive(Clone, Debug)]
pub struct Network {
    /// The paths.
    pub paths: Vec<Path>,
    /// How many of the last ones are LANs with virtual addresses and a witness each.
    pub lans: usize,
}

/// The management LAN.
pub const MANAGEMENT: usize = 0;

impl Network {
    /// Paths between the manager (machine 0) and `elements`, the manager on the first one only.
    #[must_use]
    pub fn new(elements: usize, links: usize, lans: usize) -> Self {
        let all = only(elements + 1) - 1;
        let mut paths = vec![Path::new(all)];
        paths.resize(1 + links + lans, Path::new(all & !only(0)));
        Self { paths, lans }
    }

    /// When a datagram that is sent now arrives, and when a second copy of it does.
    #[inline]
    pub fn send(&self, from: usize, to: usize, random: &mut Random) -> (Option<u64>, Option<u64>) {
        let mut first = None;
        let mut copy = None;
        for path in self.paths.iter().filter(|path| path.carries(from, to)) {
            let (travel, second) = path.travel(random);
            if travel.is_some_and(|t| first.is_none_or(|f| t < f)) {
                first = travel;
            }
            copy = copy.or(second);
        }
        (first, copy)
    }

    /// What is said on the LANs with virtual addresses only: when it arrives.
    pub fn shout(&self, from: usize, to: usize, random: &mut Random) -> Option<u64> {
        let lans = self.lans().iter().filter(|path| path.carries(from, to));
        lans.filter_map(|path| path.travel(random).0).min()
    }

    /// The LANs with virtual addresses.
    #[must_use]
    pub fn lans(&self) -> &[Path] {
        &self.paths[self.paths.len() - self.lans..]
    }

    /// Whether a stream between the two carries in both directions.
    #[must_use]
    pub fn connects(&self, one: usize, other: usize) -> bool {
        let carries = |path: &&Path| path.carries(one, other) && path.carries(other, one);
        self.paths.iter().any(|path| carries(&path))
    }

    /// Whether the witness of LAN `lan`, which is no machine of the pool, answers `machine`. It is
    /// beyond what cuts off a machine from all others there.
    #[must_use]
    pub fn witness_answers(&self, lan: usize, machine: usize) -> bool {
        let path = &self.lans()[lan];
        path.machines & only(machine) != 0 && path.cut[machine] & only(machine) == 0
    }

    /// Cuts, or heals, `from` -> `to` on every path.
    pub fn cut_everywhere(&mut self, from: usize, to: usize) {
        for path in &mut self.paths {
            path.cut[from] |= only(to);
        }
    }

    /// `machine` is off this path: from and to everybody, its witness too.
    pub fn cut_off(&mut self, path: usize, machine: usize) {
        self.paths[path].cut[machine] = Machines::MAX;
        for from in &mut self.paths[path].cut {
            *from |= only(machine);
        }
    }

    /// No path cuts, loses, delays, doubles or reorders.
    pub fn heal(&mut self) {
        for path in &mut self.paths {
            *path = Path::new(path.machines);
        }
    }
}
