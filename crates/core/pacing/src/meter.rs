//! Silences of peers, measured where a lease would have run out.

use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::datagram::{Message, NodeId};

/// A silence counts for at least one and at most two of these.
const WINDOW: Duration = Duration::from_secs(2);

/// The most peers that are listened to; of more of them the first.
const PEERS_MAX: usize = 64;

/// Measures, for one slot of one element, by how much the silences of its peers were longer than
/// the interval in which they speak.
///
/// A silence is counted when it ends, so a peer that is dead counts for nothing. Of an element that
/// stands still itself the standstill counts: its peers were silent to it, and its lease ran on.
#[derive(Clone, Debug)]
pub struct Meter {
    peers: Vec<Peer>,
    /// The newest send time that the successor's promise has answered: the lease in force counts
    /// from there.
    leased_from: Time,
    window_since: Time,
    /// The longest excess of the window, and of the one before.
    longest: [Duration; 2],
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    node: NodeId,
    incarnation: u64,
    heard_at: Time,
}

impl Meter {
    /// Nobody has been heard.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            peers: Vec::new(),
            leased_from: Time::ZERO,
            window_since: Time::ZERO,
            longest: [Duration::ZERO; 2],
        }
    }

    /// An authenticated message of `from` about the slot has come, which speaks once in `interval`.
    pub fn received(&mut self, now: Time, from: NodeId, message: &Message, interval: Duration) {
        if let Message::Ack(ack) = message
            && ack.promise
            && ack.echo <= now
        {
            // What is left of a lease at its renewal is what the round trip has left of it, too.
            let renewed = self.leased_from != Time::ZERO && ack.echo > self.leased_from;
            if renewed {
                self.note(now, now.since(self.leased_from), interval);
            }
            self.leased_from = self.leased_from.max(ack.echo);
        }
        let Some(incarnation) = life_of(from, message) else {
            return;
        };
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == from) else {
            if self.peers.len() < PEERS_MAX {
                self.peers.push(Peer {
                    node: from,
                    incarnation,
                    heard_at: now,
                });
            }
            return;
        };
        let silence = now.since(peer.heard_at);
        let same_life = peer.incarnation == incarnation;
        peer.incarnation = incarnation;
        peer.heard_at = now;
        // Between two lives nobody was silent.
        if same_life {
            self.note(now, silence, interval);
        }
    }

    /// Another epoch begins: leases of the one before say nothing about this one.
    pub const fn begin_epoch(&mut self) {
        self.leased_from = Time::ZERO;
    }

    /// The longest excess of the last seconds.
    #[must_use]
    pub fn longest_excess(&mut self, now: Time) -> Duration {
        self.turn(now);
        self.longest[0].max(self.longest[1])
    }

    fn note(&mut self, now: Time, silence: Duration, interval: Duration) {
        self.turn(now);
        self.longest[0] = self.longest[0].max(silence.saturating_sub(interval));
    }

    fn turn(&mut self, now: Time) {
        let age = now.since(self.window_since);
        if age >= WINDOW {
            let recent = age < WINDOW * 2;
            self.longest = [
                Duration::ZERO,
                if recent {
                    self.longest[0]
                } else {
                    Duration::ZERO
                },
            ];
            self.window_since = now;
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// The life in which `from` has sent it; none for what elements do not send to each other.
fn life_of(from: NodeId, message: &Message) -> Option<u64> {
    match message {
        Message::Heartbeat(m) => [Some(m.record.first), m.record.second]
            .into_iter()
            .flatten()
            .find(|member| member.node == from)
            .map(|member| member.incarnation.0),
        Message::Ack(m) => Some(m.incarnation.0),
        Message::Handover(m) => Some(m.incarnation.0),
        Message::Gossip(m) => Some(m.incarnation.0),
        Message::Request(_) | Message::Info(_) | Message::Split(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use vnfpool_model::{Epoch, Incarnation};
    use vnfpool_wire::datagram::{Ack, Gossip};

    use super::*;

    const MS: u64 = 1_000_000;
    const INTERVAL: Duration = Duration::from_millis(10);
    const PEER: NodeId = NodeId(2);

    fn gossip(life: u64) -> Message {
        Message::Gossip(Gossip {
            epoch: Epoch::default(),
            incarnation: Incarnation(life),
            sent_at: Time(1),
            echo: Time::ZERO,
            manager_silence_ms: 0,
            able: true,
        })
    }

    fn promise(echo_ms: u64) -> Message {
        Message::Ack(Ack {
            epoch: Epoch::default(),
            incarnation: Incarnation(1),
            sent_at: Time(1),
            echo: Time(echo_ms * MS),
            promise: true,
            able: true,
        })
    }

    fn hear(meter: &mut Meter, at_ms: u64, message: &Message) -> Duration {
        let now = Time(at_ms * MS);
        meter.received(now, PEER, message, INTERVAL);
        meter.longest_excess(now)
    }

    #[test]
    fn a_silence_counts_when_it_ends_and_for_seconds() {
        let mut meter = Meter::new();
        for at in [1_000, 1_010, 1_020] {
            assert_eq!(hear(&mut meter, at, &gossip(1)), Duration::ZERO);
        }
        assert_eq!(meter.longest_excess(Time(1_060 * MS)), Duration::ZERO);
        let excess = Duration::from_millis(37);
        assert_eq!(hear(&mut meter, 1_067, &gossip(1)), excess);
        assert_eq!(hear(&mut meter, 1_077, &gossip(1)), excess);
        assert_eq!(meter.longest_excess(Time(3_050 * MS)), excess);
        assert_eq!(meter.longest_excess(Time(8_000 * MS)), Duration::ZERO);
    }

    #[test]
    fn between_two_lives_nobody_was_silent() {
        let mut meter = Meter::new();
        hear(&mut meter, 1_000, &gossip(1));
        assert_eq!(hear(&mut meter, 1_500, &gossip(2)), Duration::ZERO);
    }

    /// Acks that come regularly but late leave little of the lease.
    #[test]
    fn a_round_trip_uses_up_the_lease() {
        let mut meter = Meter::new();
        hear(&mut meter, 1_000, &promise(992));
        hear(&mut meter, 1_010, &promise(1_002));
        assert_eq!(
            meter.longest_excess(Time(1_010 * MS)),
            Duration::from_millis(8)
        );
        // Not those of an epoch that is over, nor a copy of an old one.
        let mut meter = Meter::new();
        hear(&mut meter, 1_000, &promise(999));
        meter.begin_epoch();
        hear(&mut meter, 1_010, &promise(1_009));
        hear(&mut meter, 1_020, &promise(1_005));
        assert_eq!(meter.longest_excess(Time(1_020 * MS)), Duration::ZERO);
    }

    #[test]
    fn the_manager_and_crowds_do_not_count() {
        let mut meter = Meter::new();
        for node in 1..=200 {
            meter.received(Time(1_000 * MS), NodeId(node), &gossip(1), INTERVAL);
        }
        assert_eq!(meter.peers.len(), PEERS_MAX);
    }
}
