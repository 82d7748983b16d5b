//! Promises, leases, votes and handovers of the pair: R1 to R5, R8 and R9.

use std::time::Duration;

use super::{
    Ack, COPY_AGE_MAX, Cause, DRAIN_MAX, Effect, Effects, Element, GRACE_INTERVALS, Handover,
    HandoverState, Heartbeat, Member, Message, Mutation, NodeId, Notice, Refusal, Split, Time,
};

/// The active disarms a silent successor after this part of a lease, while its own gate is still
/// open: so the death of a standby costs nothing, and so a cut between the two is decided for the
/// active, whose vote goes out before the successor's may.
const DISARM_AFTER_PERCENT: u32 = 60;

/// A successor that is unable is disarmed after this time.
pub(super) const UNABLE_MAX: Duration = Duration::from_millis(500);

impl Element {
    /// R1: a deadline is only raised by a lease of the current epoch in which I am active.
    pub(super) fn raise_gate(&mut self, now: Time, until: Time, out: &mut Effects) {
        assert!(self.active(), "a lease is used by the active only");
        if self.gate_final || until <= self.gate || until <= now {
            return;
        }
        self.gate = until;
        out.push(Effect::Gate {
            epoch: self.epoch(),
            until,
        });
        if !self.announced {
            self.announced = true;
            out.push(Effect::Announce {
                epoch: self.epoch(),
            });
        }
    }

    pub(super) fn close_gate(&mut self, out: &mut Effects) {
        self.gate = Time::ZERO;
        out.push(Effect::Gate {
            epoch: self.epoch(),
            until: Time::ZERO,
        });
    }

    /// R2: the active's heartbeat; not while it has voted.
    pub(super) fn send_heartbeat(&self, now: Time, out: &mut Effects) {
        let (Some(record), Some(peer)) = (self.record, self.pair_peer()) else {
            return;
        };
        if !self.active() || self.voted.is_some() {
            return;
        }
        out.push(Effect::Send {
            to: peer.node,
            message: Message::Heartbeat(Heartbeat {
                turn: self.turn,
                record,
                sent_at: now,
                echo: self.echo_for(peer.node),
            }),
        });
    }

    /// R3: the successor's answer, a promise when the active proves that it hears.
    pub(super) fn on_heartbeat(
        &mut self,
        now: Time,
        from: NodeId,
        m: &Heartbeat,
        out: &mut Effects,
    ) {
        let sender = [Some(m.record.first), m.record.second]
            .into_iter()
            .flatten()
            .find(|member| member.node == from);
        let Some(sender) = sender else { return };
        if !self.hear(now, from, sender.incarnation.0, m.sent_at, m.echo) {
            return;
        }
        self.quorum.peer_spoke(now);
        let me = self.settings.me;
        // The record is the manager's word, wherever it comes from: a term names one pair for ever.
        let is_news = m.record.term > self.epoch().term && self.may_keep(m.record.pace);
        if is_news && m.turn == 0 && m.record.second == Some(me) {
            self.adopt(now, m.record, Cause::Record, out);
        }
        if self.record != Some(m.record) || self.turn != m.turn {
            return;
        }
        if self.active() || self.voted.is_some() || self.pair_peer() != Some(sender) {
            return;
        }
        if self.handover == Some(HandoverState::Sent) {
            self.handover = None;
            out.push(Effect::Notify(Notice::HandedOver {
                epoch: self.epoch(),
            }));
        }
        // S7: a successor that hears its active closes, then acknowledges.
        if self.quorum.serving {
            self.stop_serving(out);
        }
        let heard = m.echo != Time::ZERO && m.echo <= now && now.since(m.echo) < self.lease();
        if heard {
            self.promise_until = self.promise_until.max(now.after(self.lease()));
        }
        out.push(Effect::Send {
            to: from,
            message: Message::Ack(Ack {
                epoch: self.epoch(),
                incarnation: me.incarnation,
                sent_at: now,
                echo: m.sent_at,
                promise: heard,
                able: self.able,
            }),
        });
    }

    /// R4: the lease counts from the heartbeat's own send time.
    pub(super) fn on_ack(&mut self, now: Time, from: NodeId, m: &Ack, out: &mut Effects) {
        // An ack echoes what we sent; the hearing is proved by it in any epoch.
        if !self.hear(now, from, m.incarnation.0, m.sent_at, m.echo) {
            return;
        }
        self.quorum.peer_spoke(now);
        let sender = Member {
            node: from,
            incarnation: m.incarnation,
        };
        if m.epoch != self.epoch() || !self.active() || self.pair_peer() != Some(sender) {
            return;
        }
        if let Some(peer) = self.peers.iter_mut().find(|p| p.node == from) {
            peer.able = m.able;
        }
        if m.echo > now {
            return;
        }
        if m.promise {
            self.acked_at = Some(now);
            self.confirm(out);
            let until = m.echo.after(crate::as_held(self.lease()));
            if !self.renounced && !self.gate_final && until > now {
                // The peer's promise carries us from here on: a rest of a manager lease would
                // only make the peer's claim wait (R10). Down before the manager hears of it.
                self.renounced = true;
                if self.gate > until {
                    self.gate = until;
                    out.push(Effect::Gate {
                        epoch: self.epoch(),
                        until,
                    });
                }
            }
            self.raise_gate(now, until, out);
        }
    }

    /// R5, as the operator wants it: nothing may be lost, so the successor's copy has to be there.
    /// (A function that failed is handed over to what there is.)
    pub(super) fn hand_over_as_asked(&mut self, now: Time, out: &mut Effects) {
        let mutual = self.may_hand_over(now);
        let complete = self.copy.complete(now, Time::ZERO);
        if mutual.is_ok() && (complete.is_none() || complete != self.pair_peer()) {
            let refusal = Refusal::SuccessorBehind;
            out.push(Effect::Notify(Notice::HandOverRefused(refusal)));
            return;
        }
        self.hand_over(now, out);
    }

    /// R5 at the active: close the gate, let the state drain; [`Element::complete_handover`] ends it.
    pub(super) fn hand_over(&mut self, now: Time, out: &mut Effects) {
        if let Err(refusal) = self.may_hand_over(now) {
            out.push(Effect::Notify(Notice::HandOverRefused(refusal)));
            return;
        }
        self.gate_final = true;
        self.close_gate(out);
        self.handover = Some(HandoverState::Draining(now.after(DRAIN_MAX)));
        out.push(Effect::Drain {
            epoch: self.epoch(),
        });
    }

    fn may_hand_over(&self, now: Time) -> Result<(), Refusal> {
        // First: once it is sent this element is not active any more, but not done with it either.
        if self.handover.is_some() {
            return Err(Refusal::UnderWay);
        }
        if !self.active() {
            return Err(Refusal::NotActive);
        }
        let Some(successor) = self.pair_peer() else {
            return Err(Refusal::NotArmed);
        };
        if self.quorum.serving {
            return Err(Refusal::NotArmed);
        }
        if self.voted.is_some() {
            return Err(Refusal::Voting);
        }
        if self.acked_at.is_none_or(|at| now.since(at) >= self.lease()) {
            return Err(Refusal::SuccessorSilent);
        }
        if !self.peer(successor.node).is_some_and(|p| p.able) {
            return Err(Refusal::SuccessorUnable);
        }
        Ok(())
    }

    /// R5: turn + 1 with my own promise, in this order.
    pub(super) fn complete_handover(&mut self, now: Time, out: &mut Effects) {
        let next = self.epoch().next_turn();
        let (Some(next), Some(successor), None) = (next, self.pair_peer(), self.voted) else {
            self.handover = None;
            return;
        };
        assert!(
            self.gate == Time::ZERO,
            "the gate is closed before the slot is handed over"
        );
        let echo = self.echo_for(successor.node);
        self.turn = next.turn;
        self.epoch_at = now;
        self.renounced = true;
        self.gate_final = false;
        self.announced = false;
        self.acked_at = None;
        if !self.broken.is(Mutation::HandsOverWithoutPromise) {
            self.promise_until = self.promise_until.max(now.after(self.lease()));
        }
        self.handover = Some(HandoverState::Sent);
        self.send_handover(now, successor.node, echo, out);
        self.notify_role(Cause::Handover, out);
    }

    /// R5: again until heard, with an empty lease and without renewing my promise.
    pub(super) fn resend_handover(&mut self, now: Time, out: &mut Effects) {
        if self.handover != Some(HandoverState::Sent) || self.voted.is_some() {
            return;
        }
        if self.broken.is(Mutation::ResentHandoverRenews) {
            self.promise_until = now.after(self.lease());
        }
        if let Some(successor) = self.pair_peer() {
            self.send_handover(now, successor.node, Time::ZERO, out);
        }
    }

    fn send_handover(&self, now: Time, to: NodeId, echo: Time, out: &mut Effects) {
        out.push(Effect::Send {
            to,
            message: Message::Handover(Handover {
                epoch: self.epoch(),
                incarnation: self.settings.me.incarnation,
                sent_at: now,
                echo,
            }),
        });
    }

    /// R5 at the successor: only from exactly the epoch before; its first lease counts from the
    /// echo of its own send time.
    pub(super) fn on_handover(&mut self, now: Time, from: NodeId, m: &Handover, out: &mut Effects) {
        if !self.hear(now, from, m.incarnation.0, m.sent_at, m.echo) {
            return;
        }
        self.quorum.peer_spoke(now);
        let sender = Member {
            node: from,
            incarnation: m.incarnation,
        };
        let expected = self.epoch().next_turn();
        if self.active() || self.pair_peer() != Some(sender) || expected != Some(m.epoch) {
            return;
        }
        if self.handover.is_some() || self.quorum.serving {
            return;
        }
        self.turn = m.epoch.turn;
        self.epoch_at = now;
        self.renounced = true;
        self.promise_until = Time::ZERO;
        self.gate_final = false;
        self.announced = false;
        self.acked_at = None;
        self.unable_since = None;
        self.notify_role(Cause::Handover, out);
        if m.echo != Time::ZERO && m.echo <= now {
            self.acked_at = Some(now);
            self.raise_gate(now, m.echo.after(crate::as_held(self.lease())), out);
        }
        // The former active must hear of it before its own promise is over.
        self.send_heartbeat(now, out);
    }

    /// When a vote may be repeated.
    pub(super) fn split_retry_at(&self) -> Time {
        match self.split_sent_at {
            Time::ZERO => Time::ZERO,
            at => at.after(self.timing().heartbeat_interval()),
        }
    }

    /// R8: the one vote, by either member, when its own promise has run out.
    pub(super) fn try_split(&mut self, now: Time, out: &mut Effects) {
        let (Some(record), Some(peer)) = (self.record, self.pair_peer()) else {
            return;
        };
        let promised = self.promise_until > now && !self.broken.is(Mutation::VotesInsidePromise);
        if !self.armed() || promised || now < self.split_retry_at() {
            return;
        }
        // A token is at most as old as the request that brought it.
        let token_is_fresh =
            self.token_age_from != Time::ZERO && now.since(self.token_age_from) < self.lease();
        let grace = self.timing().heartbeat_interval() * GRACE_INTERVALS;
        if self.voted.is_none() && now.since(self.woke_at) < grace {
            return;
        }
        if !token_is_fresh || (self.active() && !self.wants_to_disarm(now, peer)) {
            return;
        }
        if self.voted.is_none() {
            let heard_at = self.peer(peer.node).map_or(Time::ZERO, |p| p.heard_at);
            out.push(Effect::Notify(Notice::Voted {
                term: record.term,
                disarms: self.active(),
                silence: now.since(heard_at),
            }));
        }
        if !self.able && self.active() {
            // The manager gives the slot to somebody else and grants at once: an active that
            // could not serve must not emit on what its successor promised. Found by simulation.
            self.gate_final = true;
            self.close_gate(out);
        }
        self.voted = Some(match self.voted {
            Some(voted) if !self.broken.is(Mutation::LockFollowsLastToken) => voted.max(self.token),
            _ => self.token,
        });
        self.split_sent_at = now;
        out.push(Effect::Send {
            to: NodeId::MANAGER,
            message: Message::Split(Split {
                term: record.term,
                incarnation: self.settings.me.incarnation,
                sent_at: now,
                token: self.token,
                able: self.able,
            }),
        });
    }

    fn wants_to_disarm(&mut self, now: Time, successor: Member) -> bool {
        // Closed for good in this epoch and not handed over: only a newer term helps.
        let stuck = self.gate_final && self.handover.is_none();
        if self.voted.is_some() || stuck {
            return true;
        }
        // I5. In the first turn nothing but proofs counts: a record may have been on its way for
        // long when the pair is armed at last. In a later one the successor has just handed over
        // and is where it all came from.
        let complete_at = if self.turn == 0 {
            Time::ZERO
        } else {
            self.epoch_at
        };
        let age = self.copy.age(now, successor, complete_at);
        if age >= COPY_AGE_MAX.max(self.lease()) {
            return true;
        }
        let able = self.peer(successor.node).is_some_and(|p| p.able);
        let unable_since = self.unable_since.unwrap_or(now);
        self.unable_since = if able { None } else { Some(unable_since) };
        if !able && now.since(unable_since) >= UNABLE_MAX {
            return true;
        }
        let patience = self.lease() * DISARM_AFTER_PERCENT / 100;
        match self.acked_at {
            // Only somebody who hears the manager while the acks are missing: an active that has
            // gone deaf would never hear the answer to its vote, and the slot would hang for a
            // manager lease.
            Some(at) => {
                let since = self.timing().heartbeat_interval() * 2;
                now.since(at) >= patience && self.manager_heard_at >= at.after(since)
            }
            None => {
                // The manager's last grant may carry us on for long; ask for more in time.
                let lasting = now.after(self.timing().manager_lease() / 2);
                self.gate <= lasting && now.since(self.epoch_at) >= self.lease()
            }
        }
    }
}
