//! Worlds that are broken on purpose.

use vnfpool_model::{Time, Timing};
use vnfpool_succession::{element, manager};
use vnfpool_wire::datagram::Record;

use crate::world::{Host, Parcel, World};

/// Something that a broken world does later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Later {
    CloseGate,
}

/// A way to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {}

/// What is wrong with a world.
#[derive(Debug, Default)]
pub struct Breakage {
    what: Option<Broken>,
}

impl Breakage {
    pub(crate) const fn new(what: Option<Broken>) -> Self {
        Self { what }
    }
    #[inline]
    pub(crate) const fn is_none(&self) -> bool {
        self.what.is_none()
    }
    pub(crate) fn handle(
        &mut self,
        _node: usize,
        _slot: usize,
        now: Time,
        machine: &mut element::Element,
        input: element::Input,
        out: &mut element::Effects,
    ) {
        machine.handle(now, input, out);
    }
    pub(crate) fn manage(
        &mut self,
        _slot: usize,
        now: Time,
        machine: &mut manager::Slot,
        _hosts: &[Host],
        input: manager::Input,
        out: &mut manager::Effects,
    ) {
        machine.handle(now, input, out);
    }
    pub(crate) fn loses(&self, _: usize, _: usize, _: &[Host], _: &Parcel) -> bool {
        false
    }
    pub(crate) fn starts_with_open_gates(&self) -> bool {
        false
    }
    pub(crate) fn forgets_incarnation(&self) -> bool {
        false
    }
    pub(crate) fn timing_of(&self, _: usize, timing: Timing) -> Timing {
        timing
    }
    pub(crate) fn inside(&self, machine: element::Element) -> element::Element {
        machine
    }
    pub(crate) fn reborn(&mut self, _: usize) {}
    pub(crate) fn runs_timers_first(&self) -> bool {
        false
    }
    pub(crate) fn keeps_open(&mut self, _: usize, _: usize, _: Time) -> bool {
        false
    }
    pub(crate) fn witness(&self, _: usize, answers: bool) -> bool {
        answers
    }
    pub(crate) fn manager_starts_at(&self, now: Time, _: Option<Record>) -> Time {
        now
    }
    pub(crate) fn proves_without_stream(&self) -> bool {
        false
    }
}

impl World {
    pub(crate) fn broken_later(&mut self, node: usize, slot: usize, what: Later) {
        match what {
            Later::CloseGate => self.set_gate(node, slot, Time::ZERO),
        }
    }
}
