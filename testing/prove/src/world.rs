//! The bounds of a world: who is in it, what may happen, and how often.

use vnfpool_model::{OnQuorumLoss, Timing};

use crate::clock::{Clocks, NODES_MAX, TICK};
use crate::mutation::Mutation;

/// What disturbs a world. Each use costs one of the world's disturbances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Kind {
    /// A letter is lost.
    Lose,
    /// A letter is held, to arrive late, anywhere in the order, or never.
    Hold,
    /// A letter arrives twice: now, and late.
    Double,
    /// An agent dies; its kernel's gate lives on. It may begin a new life at any time.
    Crash,
    /// The manager dies; its disk stays. It may begin a new life at any time.
    ManagerCrash,
    /// Links are cut; they may heal at any time.
    Cut,
    /// A machine stands still. It may go on at any time, with what waited in its sockets or without.
    Freeze,
    /// A network function fails. It may be repaired at any time.
    Fail,
    /// The operator's switchover.
    HandOver,
    /// No copy of the state is proved any more (I5). It may be at any time.
    Stream,
    /// An element is switched off, and the operator says so.
    Fence,
    /// A virtual machine is put back to a snapshot.
    Restore,
    /// An agent is killed in the middle of its effects; another process may go on in its life.
    Kill,
    /// The manager finds another pace better (R17).
    Pace,
}

/// As often as it likes, beside the other disturbances.
pub const UNBOUNDED: u8 = u8::MAX;

/// How many kinds of disturbance there are.
pub const KINDS: usize = 14;

/// Where the histories begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Everything is off, the disk is empty, all begin at once.
    Cold,
    /// A serves alone on its manager lease.
    Alone,
    /// A serves, B is armed, long since.
    Armed,
}

/// A world and its bounds.
#[derive(Clone, Debug)]
pub struct World {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about, in one line.
    pub about: &'static str,
    /// How many elements: A and B, and C as a spare.
    pub elements: usize,
    /// L in ticks; a tick is a heartbeat interval.
    pub lease: u32,
    /// The other L that the manager may prefer, if it is told to; not longer than [`World::lease`].
    pub other_lease: u32,
    /// L_M in ticks.
    pub manager_lease: u32,
    /// What the last of three does.
    pub on_quorum_loss: OnQuorumLoss,
    /// Where the histories begin.
    pub start: Start,
    /// How often each kind of disturbance may happen.
    pub caps: [u8; KINDS],
    /// How many disturbances there may be in all.
    pub disturbances: u8,
    /// How many ticks a held letter may be on its way.
    pub late_ticks: u8,
    /// How many letters may be held at once.
    pub late_max: usize,
    /// Timers of one tick fire in any order, not in that of the nodes.
    pub any_order: bool,
    /// Elements gossip. Without `serve` it decides nothing but who may be armed.
    pub gossip: bool,
    /// A pair is armed as soon as the copy is proved: nobody rests, everybody is heard.
    pub eager_arming: bool,
    /// How much faster than the world's each node's clock runs, in parts per million.
    pub drift_ppm: [i32; NODES_MAX],
    /// The links that a cut may take at once, as sets of [`link`].
    pub cuts: &'static [Cut],
    /// A virtual machine that is put back goes on with the clock of its snapshot.
    pub image_clock_stands: bool,
    /// What comes after this term is not followed; bounds a world of unbounded disturbances.
    pub term_max: u64,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
}

/// Links that are cut together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// For the story.
    pub name: &'static str,
    /// A set of [`link`].
    pub links: u16,
    /// The element that reaches nothing at all any more, witnesses included.
    pub isolates: Option<usize>,
}

/// The directed link between two nodes, as a set of one.
#[must_use]
pub const fn link(from: usize, to: usize) -> u16 {
    1 << (from * NODES_MAX + to)
}

/// Both directions.
#[must_use]
pub const fn both(one: usize, other: usize) -> u16 {
    link(one, other) | link(other, one)
}

impl World {
    /// The elements' numbers.
    pub const fn hosts(&self) -> std::ops::RangeInclusive<usize> {
        1..=self.elements
    }

    /// The pool's time constants; those with the longest lease.
    #[must_use]
    pub fn timing(&self) -> Timing {
        let tick = u32::try_from(TICK.as_millis()).unwrap_or(u32::MAX);
        Timing {
            heartbeat_interval_ms: tick,
            lease_ms: self.lease * tick,
            manager_lease_ms: self.manager_lease * tick,
        }
    }

    /// The world's clocks.
    #[must_use]
    pub fn clocks(&self) -> Clocks {
        let tick = |ppm: i32| {
            let nanos = i64::try_from(TICK.as_nanos()).unwrap_or(i64::MAX);
            let drifted = nanos + nanos / 1_000_000 * i64::from(ppm);
            std::time::Duration::from_nanos(drifted.unsigned_abs())
        };
        Clocks {
            ticks: self.drift_ppm.map(tick),
            late: TICK * u32::from(self.late_ticks),
            letters: TICK * (self.manager_lease + self.lease),
            exact: false,
        }
    }

    /// How often `kind` may happen.
    #[must_use]
    pub const fn cap(&self, kind: Kind) -> u8 {
        self.caps[kind as usize]
    }

    /// The same world, in which `kind` may happen `times` times.
    #[must_use]
    pub const fn with(mut self, kind: Kind, times: u8) -> Self {
        self.caps[kind as usize] = times;
        self
    }
}
