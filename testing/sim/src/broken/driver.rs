//! What a broken driver does, or leaves undone.

use std::time::Duration;

use vnfpool_model::{Time, Timing};
use vnfpool_succession::element::Element;
use vnfpool_succession::manager::Stored;
use vnfpool_wire::datagram::{Message, Record};

use super::{Breakage, Broken, Later};
use crate::world::{MS, Parcel, World};

impl Breakage {
    /// Whether what is sent is lost.
    pub(crate) fn loses(&self, parcel: &Parcel, by_keys: bool) -> bool {
        match parcel {
            Parcel::SignOfLife if by_keys => self.is(Broken::UndecodableIsSilence),
            Parcel::SignOfLife => self.is(Broken::SilentUntilKeys) || self.is(Broken::NoGossip),
            Parcel::Message { message, .. } => {
                self.is(Broken::NoGossip) && matches!(message, Message::Gossip(_))
            }
            _ => false,
        }
    }

    pub(crate) fn starts_with_open_gates(&self) -> bool {
        self.is(Broken::ClosesAfterRegistering)
    }

    pub(crate) fn forgets_incarnation(&self) -> bool {
        self.is(Broken::SameIncarnation)
    }

    /// The time constants as a machine has them.
    pub(crate) fn timing_of(&self, node: usize, timing: Timing) -> Timing {
        let mut timing = timing;
        match self.what {
            Some(Broken::ShortPromise) if node == 2 => timing.lease_ms /= 4,
            Some(Broken::ReplacesInsideGrant) if node == 0 => timing.manager_lease_ms = 100,
            Some(Broken::ShortManagerLease) => timing.manager_lease_ms = timing.lease_ms / 3,
            _ => {}
        }
        timing
    }

    /// The machine, with the mutations inside that the breakage needs.
    #[cfg(feature = "broken")]
    pub(crate) fn inside(&self, machine: Element) -> Element {
        let mutations = self.what.map_or(&[][..], Broken::mutations);
        let add = |machine: Element, mutation: &_| machine.broken_by(*mutation);
        mutations.iter().fold(machine, add)
    }

    /// The machine of production.
    #[cfg(not(feature = "broken"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) const fn inside(&self, machine: Element) -> Element {
        machine
    }

    /// The time that a new machine of the manager begins with.
    pub(crate) fn manager_starts_at(&self, now: Time, record: Option<Record>) -> Time {
        let armed = record.is_some_and(|r| r.armed());
        let early = self.is(Broken::RestartsWithoutWait)
            || (armed && self.is(Broken::RestartWaitsOnlyUnarmed));
        match early {
            true => Time(now.0 - 1_500 * MS),
            false => now,
        }
    }

    /// What a new machine of the manager is told that the disk holds.
    pub(crate) fn found_on_disk(&self, stored: Option<Stored>) -> Option<Stored> {
        match self.what {
            Some(Broken::ForgetsPreparation) => stored.map(|found| Stored::of(found.record)),
            Some(Broken::PreparationCountsAsVoted) => {
                stored.map(|found| Stored::of(found.newest()))
            }
            _ => stored,
        }
    }

    /// What waits in the sockets of a machine that stands still is lost.
    pub(crate) fn loses_mailbox(&self) -> bool {
        self.is(Broken::SilenceWhileFrozen)
    }

    pub(crate) fn witness(&self, answers: bool) -> bool {
        answers || self.is(Broken::ServesOnSilence)
    }

    pub(crate) fn proves_without_stream(&self) -> bool {
        self.is(Broken::ProofsWithoutStream)
    }

    /// A writing that failed is told to be done.
    pub(crate) fn tells_failed_as_done(&self) -> bool {
        self.is(Broken::FailedWriteIsDone)
    }

    /// Whether the kernel's gate does not get the deadline that it should get.
    pub(crate) fn misses_gate(
        &mut self,
        now: u64,
        node: usize,
        slot: usize,
        was: Time,
        until: Time,
    ) -> bool {
        if self.is(Broken::ClosesLate) && until == Time::ZERO {
            self.later
                .push((now + 20 * MS, node, slot, Later::CloseGate));
            return true;
        }
        if self.is(Broken::OpensWithoutEpoch) && until > was {
            self.later
                .push((now + 8 * MS, node, slot, Later::OpenGate(until)));
        }
        false
    }
}

impl World {
    pub(crate) fn broken_later(&mut self, node: usize, slot: usize, what: Later) {
        match what {
            Later::CloseGate => self.set_gate(node, slot, Time::ZERO),
            Later::OpenGate(until) => {
                let still = self.hosts[node].clock.read(self.now);
                if until.since(still) > Duration::ZERO && until > self.hosts[node].gates[slot] {
                    self.set_gate(node, slot, until);
                }
            }
            Later::Overwrite(record) => self.manager.disk.slots[slot] = Some(Stored::of(record)),
        }
    }
}
