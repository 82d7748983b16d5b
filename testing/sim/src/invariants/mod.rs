//! What has to hold, one file for each property. The world tells them what happens; they look at
//! it from outside and know true time.

mod durable;
mod epochs;
mod flapping;
mod in_sync;
mod no_packet;
mod one_holder;
mod outage;
mod role_changes;

use std::fmt;

use vnfpool_model::{Epoch, Role, Time};
use vnfpool_succession::element::Cause;
use vnfpool_succession::manager::{Decision, Stored};
use vnfpool_wire::datagram::Record;

use crate::world::Shape;
pub use outage::Outage;

/// A property that has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invariant {
    /// I1: at most one lease holder per slot at any instant.
    OneHolder,
    /// I2: no packet without a lease.
    NoPacket,
    /// I3: what the manager has acknowledged survives its crash.
    Durable,
    /// I4: epochs never go back, and an epoch has one meaning.
    Epochs,
    /// I5: a successor is armed only while its copy is in sync.
    InSync,
    /// Votes and roles change no more often than faults explain.
    RoleChanges,
    /// A member that loses its place again and again is not armed again and again.
    Flapping,
    /// After all faults: one active in each slot and an armed successor, in time.
    Liveness,
    /// A single fault costs no longer an outage than stated.
    OutageBound,
    /// An assertion of a machine.
    Assertion,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneHolder => "I1, one lease holder at a time",
            Self::NoPacket => "I2, no packet without a lease",
            Self::Durable => "I3, what was acknowledged survives",
            Self::Epochs => "I4, epochs never go back",
            Self::InSync => "I5, a successor is in sync",
            Self::RoleChanges => "the number of votes and role changes is bounded",
            Self::Flapping => "who flaps is armed a bounded number of times",
            Self::Liveness => "a healed pool serves and is armed",
            Self::OutageBound => "a single fault costs a bounded outage",
            Self::Assertion => "an assertion of a machine",
        })
    }
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub text: String,
}

/// All checkers.
#[derive(Debug)]
pub struct Checks {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Only this one counts, when a broken world has to show a certain harm.
    pub only: Option<Invariant>,
    /// The world is outside of what is promised, and why; I1 to I5 are not promised any more.
    pub out_of_bounds: Option<&'static str>,
    /// A property that did not hold outside of the bounds.
    pub declared: Option<Violation>,
    /// How long nobody served.
    pub outage: Vec<Outage>,
    durable: durable::Durable,
    epochs: epochs::Epochs,
    flapping: flapping::Flapping,
    in_sync: in_sync::InSync,
    role_changes: role_changes::RoleChanges,
}

impl Checks {
    pub(crate) fn new(shape: &Shape) -> Self {
        let slots = shape.slots;
        Self {
            violation: None,
            only: None,
            out_of_bounds: None,
            declared: None,
            outage: vec![Outage::default(); slots],
            durable: durable::Durable::new(slots),
            epochs: epochs::Epochs::new(slots),
            flapping: flapping::Flapping::new(slots),
            in_sync: in_sync::InSync::new(slots),
            role_changes: role_changes::RoleChanges::new(shape),
        }
    }

    /// Notes a property that did not hold; the first one counts.
    pub fn fail(&mut self, invariant: Invariant, text: String) {
        if self.only.is_some_and(|only| only != invariant) {
            return;
        }
        let violation = Violation { invariant, text };
        let promised = matches!(
            invariant,
            Invariant::RoleChanges | Invariant::Flapping | Invariant::Assertion
        );
        if self.out_of_bounds.is_some() && !promised {
            self.declared.get_or_insert(violation);
        } else {
            self.violation.get_or_insert(violation);
        }
    }

    /// So many records came into force and roles changed, over all slots.
    #[must_use]
    pub const fn changes(&self) -> (u64, u64) {
        (self.role_changes.records, self.role_changes.roles)
    }

    /// Another fault begins or ends: it explains changes to come.
    pub fn fault(&mut self) {
        self.role_changes.fault();
    }

    fn judge(&mut self, invariant: Invariant, result: Result<(), String>) {
        if let Err(text) = result {
            self.fail(invariant, text);
        }
    }

    /// A gate has a deadline, true time `ends`; `other` is another machine whose gate is open.
    #[inline]
    pub(crate) fn gate(
        &mut self,
        now: u64,
        node: usize,
        slot: usize,
        ends: u64,
        other: Option<usize>,
    ) {
        self.outage[slot].gate(now, node, ends);
        let result = one_holder::check(now, node, slot, other);
        self.judge(Invariant::OneHolder, result);
    }

    /// A gate is opened or prolonged in `epoch`.
    #[inline]
    pub(crate) fn opened_in(&mut self, node: usize, slot: usize, epoch: Epoch) {
        let result = self.epochs.opened(node, slot, epoch);
        self.judge(Invariant::Epochs, result);
    }

    /// A kernel's gate has another deadline than the machine's lease.
    pub(crate) fn gate_without_lease(&mut self, now: Time, gate: Time, lease: Time) {
        let result = no_packet::check(now, gate, lease);
        self.judge(Invariant::NoPacket, result);
    }

    /// An element is in `epoch`.
    #[inline]
    pub(crate) fn epoch(&mut self, node: usize, slot: usize, epoch: Epoch) {
        let result = self.epochs.element(node, slot, epoch);
        self.judge(Invariant::Epochs, result);
    }

    pub(crate) fn new_life(&mut self, node: usize, slot: usize) {
        self.epochs.new_life(node, slot);
    }

    /// The manager said `record` to somebody when that was on its disk.
    #[inline]
    pub(crate) fn told(&mut self, slot: usize, record: Option<Record>, disk: Option<Stored>) {
        let result = self.epochs.record(slot, record);
        self.judge(Invariant::Epochs, result);
        let result = self.durable.told(slot, record, disk);
        self.judge(Invariant::Durable, result);
    }

    pub(crate) fn manager_starts(&mut self, slot: usize, record: Option<Record>) {
        let result = self.durable.manager_starts(slot, record);
        self.judge(Invariant::Durable, result);
        self.epochs.manager_starts(slot, record);
        self.flapping.forgotten(slot);
    }

    /// An element has a clean slate.
    pub(crate) fn forgiven(&mut self, slot: usize, node: usize) {
        self.flapping.forgiven(slot, node);
    }

    pub(crate) fn decided(&mut self, now: u64, slot: usize, record: Record, decision: Decision) {
        let result = self.flapping.decided(now, slot, record, decision);
        self.judge(Invariant::Flapping, result);
        let result = self.epochs.record(slot, Some(record));
        self.judge(Invariant::Epochs, result);
        let result = self.role_changes.record(now, slot);
        self.judge(Invariant::RoleChanges, result);
    }

    pub(crate) fn vote_sent(&mut self, now: u64, node: usize, slot: usize) {
        self.in_sync.voted(now, node, slot);
        let result = self.role_changes.vote(now, node, slot);
        self.judge(Invariant::RoleChanges, result);
    }

    pub(crate) fn role_changed(&mut self, _: u64, _: usize, _: Epoch, _: Role, _: Cause) {
        self.role_changes.roles += 1;
    }

    /// An armed active serves while its successor's copy is as of `as_of`.
    pub(crate) fn copy(&mut self, now: u64, node: usize, slot: usize, as_of: u64, may_vote: bool) {
        let result = self.in_sync.copy(now, node, slot, as_of, may_vote);
        self.judge(Invariant::InSync, result);
    }
}
