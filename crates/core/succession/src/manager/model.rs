//! The manager's machine under a model checker; see [`crate::model`].

use vnfpool_wire::datagram::NodeId;

use super::decide::PREFERRED_WAIT;
use super::{Damping, Duration, Node, Pending, Preparation, Presumed, Slot, Stored, Time};
use crate::model::{Clock, Moment};

impl Slot {
    /// Shows every time that this machine keeps. Fields are named one by one, so that a new one is
    /// not forgotten here.
    pub fn moments(&mut self, mut visit: impl FnMut(Moment<'_>)) {
        // A term at a longer pace may follow.
        let lease = self.longest_lease().max(self.timing().lease());
        let manager_lease = self.manager_lease();
        let patience = self.silence_patience();
        let start = match self.record {
            Some(_) => self.manager_lease(),
            None => self.manager_lease().max(PREFERRED_WAIT),
        };
        let Self {
            grant_until,
            decided_at,
            armed_at,
            nodes,
            started_at,
            heard_at,
            listens_since,
            steady_since,
            pending,
            preparation,
            presumed,
            settings: _,
            record: _,
            writing: _,
            turn: _,
            apart: _,
        } = self;
        let mut moment = |clock, matters_for: Duration, time: &mut Time| {
            visit(Moment {
                clock,
                matters_for,
                time,
            });
        };
        moment(Clock::Own, Duration::ZERO, grant_until);
        moment(Clock::Own, manager_lease, decided_at);
        moment(Clock::Own, Duration::ZERO, armed_at);
        moment(Clock::Own, start, started_at);
        moment(Clock::Own, lease * 2, heard_at);
        moment(Clock::Own, manager_lease, listens_since);
        moment(Clock::Own, patience, steady_since);
        let Preparation {
            until,
            on_disk: _,
            silent: _,
        } = preparation;
        moment(Clock::Own, Duration::ZERO, until);
        if let Some(Pending { since, .. }) = pending {
            moment(Clock::Own, Duration::ZERO, since);
        }
        if let Some(Presumed {
            left_at: Some(left_at),
            ..
        }) = presumed
        {
            moment(Clock::Own, lease, left_at);
        }
        for node in nodes {
            let Node {
                id,
                registered_at,
                heard_at,
                hears_since,
                sent,
                damping,
                incarnation: _,
                gone: _,
                heard_manager: _,
                able: _,
                candidate: _,
            } = node;
            moment(Clock::Own, lease * 8, registered_at);
            moment(Clock::Own, lease * 2, heard_at);
            moment(Clock::Own, manager_lease, hears_since);
            damping.moments(&mut |time| moment(Clock::Own, Duration::ZERO, time));
            moment(Clock::Of(*id), Duration::ZERO, sent);
        }
    }

    /// Forgets what decides nothing (the turn is for display, the order of registration), the
    /// clean slate of a standby that was armed for long (each counts as armed just now), and the losses
    /// that add up to a quarantine over minutes: it is about arming only.
    pub fn fold(&mut self, now: Time) {
        self.turn = 0;
        self.armed_at = now;
        let next = self.settings.timing.pace();
        if self.record.is_none_or(|record| record.pace == next) {
            // Only a change of pace looks at it.
            self.decided_at = now;
        }
        if let Some(pending) = &mut self.pending {
            pending.since = now;
        }
        if self.preparation.on_disk.is_none() && self.writing.is_none() {
            self.preparation.until = Time::ZERO;
        }
        self.nodes.sort_by_key(|node| node.id);
        for node in &mut self.nodes {
            node.damping.forgive();
        }
    }

    /// Arms whoever may be armed at once: the rest after a split only damps (R11).
    pub fn assume_rested(&mut self) {
        for node in &mut self.nodes {
            node.damping = Damping::NONE;
        }
    }

    /// What is on its way to the disk.
    #[must_use]
    pub const fn writing(&self) -> Option<Stored> {
        self.writing
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
