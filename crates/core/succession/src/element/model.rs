//! The element's machine under a model checker; see [`crate::model`].

use std::time::Duration;

use vnfpool_model::{OnQuorumLoss, Timing};
use vnfpool_wire::datagram::{NodeId, Record, Token};

use super::copy::COPY_AGE_MAX;
use super::lease::UNABLE_MAX;
use super::{Element, GOSSIP_INTERVALS, HandoverState, Time};
use crate::hearing_time;
use crate::model::{Clock, Moment};

impl Element {
    /// Shows every time that this machine keeps. Fields are named one by one, so that a new one is
    /// not forgotten here.
    pub fn moments(&mut self, mut visit: impl FnMut(Moment<'_>)) {
        // A term at a longer pace may follow; a world's settings have the longest.
        let longest = self.settings.lease_ms_max.max(self.timing().lease_ms);
        let timing = Timing {
            lease_ms: longest,
            ..self.timing()
        };
        let (beat, lease) = (timing.heartbeat_interval(), timing.lease());
        let (alone, witness) = match self.settings.on_quorum_loss {
            OnQuorumLoss::Serve => (self.serve_after(), self.witness_time()),
            OnQuorumLoss::Stop => (Duration::ZERO, Duration::ZERO),
        };
        let Self {
            gate,
            promise_until,
            voted,
            split_sent_at,
            token,
            token_age_from,
            manager_heard_at,
            peers,
            copy,
            unable_since,
            acked_at,
            handover,
            epoch_at,
            next_beat,
            woke_at,
            quorum,
            now,
            settings: _,
            record: _,
            turn: _,
            gate_final: _,
            renounced: _,
            announced: _,
            able: _,
            beats: _,
            broken: _,
        } = self;
        let mut own = |matters_for: Duration, time: &mut Time| {
            visit(Moment {
                clock: Clock::Own,
                matters_for,
                time,
            });
        };
        own(Duration::ZERO, gate);
        own(Duration::ZERO, promise_until);
        own(beat, split_sent_at);
        own(lease, token_age_from);
        own(alone.max(timing.manager_lease()), manager_heard_at);
        copy.moments(&mut own);
        if let Some(at) = unable_since {
            own(UNABLE_MAX, at);
        }
        if let Some(at) = acked_at {
            own(lease + beat * 2, at);
        }
        if let Some(HandoverState::Draining(until)) = handover {
            own(Duration::ZERO, until);
        }
        own(COPY_AGE_MAX.max(lease), epoch_at);
        own(beat * 4, next_beat);
        own(lease * 4, woke_at);
        own(beat, now);
        quorum.moments(alone, witness, &mut own);
        for peer in peers.iter_mut() {
            own(Duration::ZERO, &mut peer.heard_at);
            own(hearing_time(timing), &mut peer.mutual_at);
        }
        let mut others = |node: NodeId, time: &mut Time| {
            visit(Moment {
                clock: Clock::Of(node),
                matters_for: lease,
                time,
            });
        };
        others(NodeId::MANAGER, &mut token.clock);
        if let Some(voted) = voted {
            others(NodeId::MANAGER, &mut voted.clock);
        }
        for peer in peers {
            others(peer.node, &mut peer.sent);
        }
    }

    /// Forgets what decides nothing: when peers were heard (for the log only), how many beats there
    /// were beyond the rhythm of gossip, and by which part of an interval below an eighth a timer
    /// misses a beat of the world.
    pub fn fold(&mut self) {
        self.beats %= GOSSIP_INTERVALS;
        let now = self.now;
        for peer in &mut self.peers {
            peer.heard_at = Time::ZERO;
        }
        let near = self.timing().heartbeat_interval() / 8;
        if now.since(self.next_beat) < near && self.next_beat.since(now) < near {
            self.next_beat = now;
        }
    }

    /// Gossips with every beat: for worlds in which nobody listens to gossip.
    pub const fn forget_rhythm(&mut self) {
        self.beats = 0;
    }

    /// Takes for granted that all peers hear this element, also while it stands still: only arming
    /// asks for it (R11), so that a pair is armed sooner than it would be.
    pub fn assume_heard(&mut self, now: Time) {
        for peer in &mut self.peers {
            peer.mutual_at = now;
        }
    }

    /// The newest record known.
    #[must_use]
    pub const fn record(&self) -> Option<Record> {
        self.record
    }

    /// The vote that is out: for machines that are broken on purpose.
    pub const fn vote_mut(&mut self) -> &mut Option<Token> {
        &mut self.voted
    }

    /// The end of the own promise: for machines that are broken on purpose.
    pub const fn promise_mut(&mut self) -> &mut Time {
        &mut self.promise_until
    }
}
