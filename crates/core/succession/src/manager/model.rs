//! The manager's machine under a model checker; see [`crate::model`].

use vnfpool_wire::datagram::{NodeId, Record};

use super::decide::PREFERRED_WAIT;
use super::{Duration, Slot, Time};
use crate::model::{Clock, Moment};

impl Slot {
    /// Shows every time that this machine keeps.
    pub fn moments(&mut self, mut visit: impl FnMut(Moment<'_>)) {
        let lease = self.settings.timing.lease();
        let start = match self.record {
            Some(_) => self.manager_lease(),
            None => self.manager_lease().max(PREFERRED_WAIT),
        };
        let mut own = |matters_for: Duration, time: &mut Time| {
            visit(Moment {
                clock: Clock::Own,
                matters_for,
                time,
            });
        };
        own(Duration::ZERO, &mut self.grant_until);
        own(Duration::ZERO, &mut self.decided_at);
        own(start, &mut self.started_at);
        for node in &mut self.nodes {
            own(lease * 8, &mut node.registered_at);
            own(lease * 2, &mut node.heard_at);
            own(Duration::ZERO, &mut node.rest_until);
        }
        for node in &mut self.nodes {
            visit(Moment {
                clock: Clock::Of(node.id),
                matters_for: Duration::ZERO,
                time: &mut node.sent,
            });
        }
    }

    /// Forgets what decides nothing (the turn is for display, the order of registration) and the
    /// clean slate of a standby that was armed for long: each counts as armed just now.
    pub fn fold(&mut self, now: Time) {
        self.turn = 0;
        self.decided_at = now;
        self.nodes.sort_by_key(|node| node.id);
    }

    /// Arms whoever may be armed at once: the rest after a split only damps (R11).
    pub fn assume_rested(&mut self) {
        for node in &mut self.nodes {
            node.rest_until = Time::ZERO;
            node.rest = Duration::ZERO;
        }
    }

    /// The record on its way to the disk.
    #[must_use]
    pub fn pending_record(&self) -> Option<Record> {
        self.pending.as_ref().map(|pending| pending.record)
    }

    /// The end of the running grant: for machines that are broken on purpose.
    pub const fn grant_mut(&mut self) -> &mut Time {
        &mut self.grant_until
    }

    /// When this life of `id` was registered: for machines that are broken on purpose.
    pub fn registered_mut(&mut self, id: NodeId) -> Option<&mut Time> {
        self.node_mut(id).map(|node| &mut node.registered_at)
    }
}
