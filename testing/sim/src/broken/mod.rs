//! Worlds that are broken on purpose: the proof that the simulator would notice.
//!
//! Each shortcut of `docs/succession.md`, sections 5 to 7, and some that a driver could take, has a
//! name and a row in [`CATALOGUE`]. The machines stay those of production: what is broken is what
//! the driver gives them and does for them (`elements`, `managers`, `driver`). Where that cannot express
//! it, the machines have a mutation at one marked point (`vnfpool_succession::Mutation`, feature
//! `broken`).

mod catalogue;
mod driver;
mod elements;
mod managers;

use vnfpool_model::{Time, Timing};
use vnfpool_wire::datagram::Record;

pub use catalogue::{Broken, CATALOGUE, Row, Shown};

use crate::network::MACHINES_MAX;
use crate::world::Shape;

/// Something that a broken world does later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    /// Closes a gate.
    CloseGate,
    /// Opens a gate, whatever has happened meanwhile.
    OpenGate(Time),
    /// Writes a record to the disk, whatever is there.
    Overwrite(Record),
}

/// What is wrong with a world.
#[derive(Debug)]
pub struct Breakage {
    what: Option<Broken>,
    timing: Timing,
    elements: Vec<[elements::Seen; MACHINES_MAX]>,
    managers: Vec<managers::Seen>,
    /// What to do later: when, whose gate, which slot.
    pub(crate) later: Vec<(u64, usize, usize, Later)>,
}

impl Breakage {
    /// A world with that wrong, or nothing.
    #[must_use]
    pub fn new(what: Option<Broken>, shape: &Shape) -> Self {
        let slots = shape.slots;
        Self {
            what,
            timing: shape.timing,
            elements: (0..slots).map(|_| Default::default()).collect(),
            managers: (0..slots).map(|_| managers::Seen::default()).collect(),
            later: Vec::new(),
        }
    }

    #[inline]
    pub(crate) const fn is_none(&self) -> bool {
        self.what.is_none()
    }

    #[inline]
    fn is(&self, what: Broken) -> bool {
        self.what == Some(what)
    }
}
