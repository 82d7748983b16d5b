//! What is known of the other elements of the pool: who is heard, in which life, and whether it
//! hears us (S4).

use super::{Effect, Effects, Element, Gossip, Message, NodeId, PEERS_MAX, Peer, Time};

impl Element {
    pub(super) fn peer_changed(&mut self, node: NodeId, present: bool) {
        self.peers.retain(|p| p.node != node || present);
        let known = self.peers.iter().any(|p| p.node == node);
        if present && !known && self.peers.len() < PEERS_MAX && node != self.settings.me.node {
            self.peers.push(Peer {
                node,
                incarnation: 0,
                sent: Time::ZERO,
                heard_at: Time::ZERO,
                mutual_at: Time::ZERO,
                able: false,
            });
        }
    }

    /// Notes that `node` in life `incarnation` was heard; false when the message is of an earlier
    /// life or of nobody in the pool.
    pub(super) fn hear(
        &mut self,
        now: Time,
        node: NodeId,
        incarnation: u64,
        sent: Time,
        echo: Time,
    ) -> bool {
        let lease = self.lease();
        let Some(peer) = self.peers.iter_mut().find(|p| p.node == node) else {
            return false;
        };
        if incarnation < peer.incarnation {
            return false;
        }
        if incarnation > peer.incarnation {
            *peer = Peer {
                incarnation,
                sent: Time::ZERO,
                mutual_at: Time::ZERO,
                ..*peer
            };
        }
        peer.sent = peer.sent.max(sent);
        peer.heard_at = now;
        if echo != Time::ZERO && echo <= now && now.since(echo) < lease {
            peer.mutual_at = now;
        }
        true
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.peers.iter().find(|p| p.node == node)
    }

    /// The newest send time of `node`, to be echoed to it.
    pub(super) fn echo_for(&self, node: NodeId) -> Time {
        self.peer(node).map_or(Time::ZERO, |p| p.sent)
    }

    pub(super) fn send_gossip(&self, now: Time, out: &mut Effects) {
        let silence = match self.manager_heard_at {
            Time::ZERO => u32::MAX,
            at => u32::try_from(now.since(at).as_millis()).unwrap_or(u32::MAX),
        };
        out.extend(self.peers.iter().map(|peer| Effect::Send {
            to: peer.node,
            message: Message::Gossip(Gossip {
                epoch: self.epoch(),
                incarnation: self.settings.me.incarnation,
                sent_at: now,
                echo: peer.sent,
                manager_silence_ms: silence,
                able: self.able,
            }),
        }));
    }

    pub(super) fn on_gossip(&mut self, now: Time, from: NodeId, m: &Gossip) {
        if !self.hear(now, from, m.incarnation.0, m.sent_at, m.echo) {
            return;
        }
        if let Some(peer) = self.peers.iter_mut().find(|p| p.node == from) {
            peer.able = m.able;
        }
        self.gossip_about_quorum(now, from, m);
    }
}
