//! The last of three (`on_quorum_loss = serve`): S1 to S7.
//!
//! Silence proves nothing by itself. The member left serves only after a long silence of both
//! others, measured while it was awake, while a witness outside the pool answered on every LAN
//! that it would serve, and while nobody said that the manager lives; and it yields to any sign
//! of life.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vnfpool_model::OnQuorumLoss;

use super::{Effect, Effects, Element, Gossip, Mutation, NodeId, Notice, Time};

/// The most LANs with witnesses.
pub const LANS_MAX: usize = 32;

/// What is known about being the last of three.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Quorum {
    /// Serving unconfirmed now.
    pub(super) serving: bool,
    /// Since when nothing has spoken against it.
    silent_since: Time,
    /// How many LANs need a witness; none: no evidence is possible.
    lans: Option<usize>,
    witnessed: [Time; LANS_MAX],
    asked_at: Time,
    /// A sign of life other than the manager's came while serving.
    yields: bool,
}

impl Quorum {
    pub(super) const fn new(now: Time) -> Self {
        Self {
            serving: false,
            silent_since: now,
            lans: None,
            witnessed: [Time::ZERO; LANS_MAX],
            asked_at: Time::ZERO,
            yields: false,
        }
    }

    /// Its times and for how long they matter, when a member is alone after
    /// `alone` and an answer of a witness counts for `witness`.
    #[cfg(feature = "model")]
    pub(super) fn moments(
        &mut self,
        alone: Duration,
        witness: Duration,
        own: &mut impl FnMut(Duration, &mut Time),
    ) {
        let Self {
            silent_since,
            witnessed,
            asked_at,
            serving: _,
            lans: _,
            yields: _,
        } = self;
        own(alone, silent_since);
        own(witness, asked_at);
        for at in witnessed {
            own(witness, at);
        }
    }

    /// Something spoke against serving alone: the silence starts again.
    pub(super) const fn restart(&mut self, now: Time) {
        self.silent_since = now;
        self.yields = true;
    }

    /// The manager is back in our own term: nothing is prolonged, but what the gate has is left
    /// to it, so that a vote now can go over into a lease without a gap.
    pub(super) const fn manager_spoke(&mut self, now: Time) {
        self.silent_since = now;
    }

    /// S7: serving has to end at once.
    pub(super) const fn must_yield(&mut self) -> bool {
        let yields = self.yields;
        self.yields = false;
        yields && self.serving
    }

    pub(super) const fn peer_spoke(&mut self, now: Time) {
        self.restart(now);
    }

    pub(super) fn witness(&mut self, now: Time, lan: usize) {
        if let Some(at) = self.witnessed.get_mut(lan) {
            *at = now;
        }
    }

    pub(super) fn set_lans(&mut self, lans: Option<usize>) {
        self.lans = lans.filter(|n| (1..=LANS_MAX).contains(n));
    }

    /// S2: a machine that slept has measured nothing.
    pub(super) fn awake(&mut self, now: Time, due: Time, interval: Duration) {
        if now.since(due) > interval * 3 {
            self.restart(now);
        }
    }

    /// S3: every LAN's witness has answered within `within`.
    fn witnessed_everywhere(&self, now: Time, within: Duration) -> bool {
        let Some(lans) = self.lans else { return false };
        self.witnessed[..lans]
            .iter()
            .all(|at| *at != Time::ZERO && now.since(*at) < within)
    }
}

impl Element {
    /// T_serve >= L_M + V (S2), whatever the pace of the others' term, and one heartbeat more.
    pub(super) fn serve_after(&self) -> Duration {
        let timing = self.timing();
        let longest = Duration::from_millis(self.settings.lease_ms_max.into());
        timing.manager_lease() + timing.lease().max(longest) + timing.heartbeat_interval()
    }

    /// How long one answer of a witness counts: several are needed on the way to serving. After a
    /// restart the next question comes with the first beat after a lease of silence; the answer
    /// before has to count until then, or a short manager lease would never let anybody serve.
    pub(super) fn witness_time(&self) -> Duration {
        let timing = self.timing();
        let next_question = timing.lease() + timing.heartbeat_interval() * 3;
        next_question.max(self.serve_after() / 3)
    }

    /// S4: a newer term, a live member, or somebody who still hears the manager.
    pub(super) fn gossip_about_quorum(&mut self, now: Time, from: NodeId, m: &Gossip) {
        let hears_manager = u128::from(m.manager_silence_ms) < self.serve_after().as_millis();
        let is_pair_peer = self.pair_peer().is_some_and(|p| p.node == from);
        if hears_manager || is_pair_peer || m.epoch.term > self.epoch().term {
            self.quorum.restart(now);
        }
    }

    pub(super) fn run_quorum(&mut self, now: Time, out: &mut Effects) {
        if self.settings.on_quorum_loss != OnQuorumLoss::Serve {
            return;
        }
        let member = self.record.is_some_and(|r| r.names(self.settings.me));
        let hasty = self.broken.is(Mutation::ServesInsidePromise);
        let enough = if hasty {
            self.lease() / 2
        } else {
            self.serve_after()
        };
        let lonely = now.since(self.quorum.silent_since) > self.lease().min(enough);
        if !member || !self.able {
            return self.stop_serving(out);
        }
        if !lonely {
            if self.gate <= now {
                self.stop_serving(out);
            }
            return;
        }
        if now.since(self.quorum.asked_at) >= self.witness_time() / 4 {
            self.quorum.asked_at = now;
            out.push(Effect::AskWitnesses);
        }
        if !self.quorum.witnessed_everywhere(now, self.witness_time()) {
            // Isolated: the silence says nothing about the others.
            if !self.broken.is(Mutation::WitnessAtTheEndOnly)
                && !self.broken.is(Mutation::SilenceWhileFrozen)
            {
                self.quorum.restart(now);
            }
            return self.stop_serving(out);
        }
        let promised = self.promise_until > now && !hasty;
        if now.since(self.quorum.silent_since) < enough || promised {
            return;
        }
        self.serve(now, out);
    }

    /// S6: served in short steps, in an unconfirmed term.
    fn serve(&mut self, now: Time, out: &mut Effects) {
        if !self.quorum.serving {
            self.quorum.serving = true;
            self.announced = self.gate > now;
            out.push(Effect::Notify(Notice::Unconfirmed {
                term: self.epoch().term,
                now: true,
            }));
        }
        let until = now.after(self.lease());
        if until > self.gate {
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
    }

    /// S7: back to the rule of two; the gate closes unless a real lease holds it open.
    pub(super) fn stop_serving(&mut self, out: &mut Effects) {
        if self.quorum.serving {
            self.confirm(out);
            self.announced = false;
            self.close_gate(out);
        }
    }

    /// A real lease of the current epoch has come: no longer unconfirmed.
    pub(super) fn confirm(&mut self, out: &mut Effects) {
        if self.quorum.serving {
            self.quorum.serving = false;
            out.push(Effect::Notify(Notice::Unconfirmed {
                term: self.epoch().term,
                now: false,
            }));
        }
    }
}
