//! What the element says to the manager and hears from it: requests (R6), infos, records and
//! grants (R7, R9).

use vnfpool_model::Pace;

use super::{
    Cause, Effect, Effects, Element, Info, Message, Mutation, NodeId, Record, Request, Time,
};

impl Element {
    /// R6: to the manager, every interval, by every element.
    pub(super) fn send_request(&self, now: Time, out: &mut Effects) {
        // Proved in this epoch: what was acknowledged before a cut says nothing after it (I5).
        let candidate = self.copy.complete(now, self.epoch_at);
        let candidate = candidate.filter(|m| self.hears(now, m.node));
        out.push(Effect::Send {
            to: NodeId::MANAGER,
            message: Message::Request(Request {
                epoch: self.epoch(),
                incarnation: self.settings.me.incarnation,
                sent_at: now,
                heard_manager: self.hears_manager(now),
                able: self.able,
                renounces: self.renounces(),
                candidate: candidate.filter(|_| self.active() && !self.quorum.serving),
            }),
        });
    }

    /// Whether the manager may forget what it granted to this element (R7).
    pub(super) fn renounces(&self) -> bool {
        let member = self
            .record
            .is_some_and(|r| r.armed() && r.names(self.settings.me));
        let rests_on_promises = self.renounced || !self.active();
        member && rests_on_promises && !self.quorum.serving
    }

    pub(super) fn hears_manager(&self, now: Time) -> bool {
        self.manager_heard_at != Time::ZERO
            && now.since(self.manager_heard_at) < self.timing().manager_lease()
    }

    /// R7 at the element: what the manager's record and token mean here.
    pub(super) fn on_info(&mut self, now: Time, info: &Info, out: &mut Effects) {
        if info.echo > now {
            return;
        }
        self.manager_heard_at = now;
        if info.token > self.token || self.broken.is(Mutation::LockFollowsLastToken) {
            self.token = info.token;
            self.token_age_from = info.echo;
        }
        let Some(record) = info.record else { return };
        if record.term < self.epoch().term || !self.may_keep(record.pace) {
            return;
        }
        if record.term > self.epoch().term {
            let by_my_vote = self.voted.is_some() && record.first == self.settings.me;
            let cause = match (by_my_vote, self.active()) {
                (true, true) => Cause::Disarm,
                (true, false) => Cause::Failover,
                (false, _) => Cause::Record,
            };
            self.adopt(now, record, cause, out);
        } else if self.record != Some(record) {
            // A term names one pair for ever; a manager that says otherwise is not believed.
            return;
        } else if let Some(voted) = self.voted {
            // R9 (ii): on the manager's clock the vote is too old to be accepted any more.
            let too_old = voted.clock.after(self.lease());
            if info.token.boot > voted.boot || info.token.clock >= too_old {
                self.voted = None;
            }
        }
        self.quorum.manager_spoke(now);
        // 5n: a record that nobody voted for may name me while my promise to the other runs.
        let promised =
            self.promise_until > now && !self.broken.is(Mutation::UsesGrantInsidePromise);
        if info.grant && !self.armed() && self.active() && !promised {
            let until = info
                .echo
                .after(crate::as_held(self.timing().manager_lease()));
            self.confirm(out);
            self.raise_gate(now, until, out);
        }
    }

    /// Whether the pool allows a lease that long: waits are made of the longest one.
    pub(super) const fn may_keep(&self, pace: Pace) -> bool {
        pace.lease_ms <= self.settings.lease_ms_max
    }

    /// Takes a newer record over (R7): the gate closes unless this element is active in it.
    pub(super) fn adopt(&mut self, now: Time, record: Record, cause: Cause, out: &mut Effects) {
        self.record = Some(record);
        self.turn = 0;
        self.epoch_at = now;
        // At a faster pace the peer expects to hear of this element sooner.
        self.next_beat = self.next_beat.min(now.after(self.heartbeat_interval()));
        self.voted = None;
        self.split_sent_at = Time::ZERO;
        self.handover = None;
        self.gate_final = false;
        self.renounced = false;
        self.acked_at = None;
        self.unable_since = None;
        let was_open = self.gate > now;
        self.announced = was_open && self.active();
        if !self.active() {
            self.close_gate(out);
        }
        let promises = !self.broken.is(Mutation::ArmedWithoutPromise);
        if record.second == Some(self.settings.me) && promises {
            // A newly armed successor starts with a promise, else it would claim at once.
            self.promise_until = self.promise_until.max(now.after(self.lease()));
        }
        if self.broken.is(Mutation::PaceCutsPromise) {
            self.promise_until = self.promise_until.min(now.after(self.lease()));
        }
        self.quorum.restart(now);
        self.confirm(out);
        self.notify_role(cause, out);
    }
}
