//! Silences of the pair's other member, measured where a lease would have run out.

use std::time::Duration;

use vnfpool_model::{Epoch, Time};
use vnfpool_wire::datagram::{Member, Message, NodeId};

/// A silence counts for at least one and at most two of these.
const WINDOW: Duration = Duration::from_secs(2);

/// Measures, for one slot of one element, by how much the silences of the pair's other member were
/// longer than a heartbeat interval.
///
/// A silence is counted when it ends, so a member that is dead counts for nothing. One that was split
/// off counts once more, with its first word in the same life: that silence has ended the pair. Of an
/// element that stands still itself the standstill counts: its peer was silent to it, and its lease
/// ran on. A silence as long as the longest lease allowed is a failure, whatever it was.
#[derive(Clone, Debug)]
pub struct Meter {
    longest_lease: Duration,
    partner: Option<Partner>,
    /// The newest send time that the partner's promise has answered in this epoch: the lease in force
    /// counts from there.
    leased: Option<(Epoch, Time)>,
    window_since: Time,
    /// The longest excess of the window, and of the one before.
    longest: [Duration; 2],
}

#[derive(Clone, Copy, Debug)]
struct Partner {
    member: Member,
    /// When it was heard last as the partner, and in which interval it spoke then.
    heard: Option<(Time, Duration)>,
}

impl Meter {
    /// Nobody has been heard; a silence of `longest_lease` or more is a failure.
    #[must_use]
    pub const fn new(longest_lease: Duration) -> Self {
        Self {
            longest_lease,
            partner: None,
            leased: None,
            window_since: Time::ZERO,
            longest: [Duration::ZERO; 2],
        }
    }

    /// An authenticated message of `from` about the slot has come. In `epoch` the pair's other
    /// member is `partner`, if there is one, and speaks once in `interval`.
    pub fn received(
        &mut self,
        now: Time,
        (from, message): (NodeId, &Message),
        (epoch, partner): (Epoch, Option<Member>),
        interval: Duration,
    ) {
        if let Some(member) = partner
            && self.partner.is_none_or(|known| known.member != member)
        {
            self.partner = Some(Partner {
                member,
                heard: None,
            });
        }
        let Some(known) = self.partner else { return };
        if known.member.node != from || life_of(from, message) != Some(known.member.incarnation.0) {
            return;
        }
        if let Some((at, interval_then)) = known.heard {
            self.note(now, now.since(at), interval.max(interval_then));
        }
        let still = partner == Some(known.member);
        self.partner = still.then_some(Partner {
            heard: Some((now, interval)),
            ..known
        });
        if let Message::Ack(ack) = message
            && ack.promise
            && still
            && ack.epoch == epoch
            && ack.echo <= now
        {
            // What is left of a lease at its renewal is what the round trip has left of it, too.
            let newest = match self.leased {
                Some((of, from)) if of == epoch => {
                    if ack.echo > from {
                        self.note(now, now.since(from), interval);
                    }
                    from.max(ack.echo)
                }
                _ => ack.echo,
            };
            self.leased = Some((epoch, newest));
        }
    }

    /// The longest excess of the last seconds; zero when nothing was measured.
    #[must_use]
    pub fn longest_excess(&mut self, now: Time) -> Duration {
        self.turn(now);
        self.longest[0].max(self.longest[1])
    }

    fn note(&mut self, now: Time, silence: Duration, interval: Duration) {
        self.turn(now);
        if silence < self.longest_lease {
            // Something was measured, be it that nobody was late.
            let excess = silence
                .saturating_sub(interval)
                .max(Duration::from_micros(1));
            self.longest[0] = self.longest[0].max(excess);
        }
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
    use vnfpool_model::Incarnation;
    use vnfpool_wire::datagram::{Ack, Gossip};

    use super::*;

    const MS: u64 = 1_000_000;
    const INTERVAL: Duration = Duration::from_millis(10);
    const EPOCH: Epoch = Epoch { term: 2, turn: 0 };
    const PEER: Member = Member {
        node: NodeId(2),
        incarnation: Incarnation(1),
    };

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

    fn promise(epoch: Epoch, echo_ms: u64) -> Message {
        Message::Ack(Ack {
            epoch,
            incarnation: Incarnation(1),
            sent_at: Time(1),
            echo: Time(echo_ms * MS),
            promise: true,
            able: true,
        })
    }

    struct Pair(Meter, Option<Member>);

    impl Pair {
        fn new() -> Self {
            Self(Meter::new(Duration::from_millis(250)), Some(PEER))
        }

        /// The longest excess in ms after the partner's word.
        fn hear(&mut self, at_ms: u64, message: &Message) -> u128 {
            self.hear_each(at_ms, message, INTERVAL)
        }

        fn hear_each(&mut self, at_ms: u64, message: &Message, interval: Duration) -> u128 {
            let now = Time(at_ms * MS);
            self.0
                .received(now, (PEER.node, message), (EPOCH, self.1), interval);
            self.0.longest_excess(now).as_millis()
        }
    }

    #[test]
    fn a_silence_counts_when_it_ends_and_for_seconds() {
        let mut pair = Pair::new();
        for at in [1_000, 1_010, 1_020] {
            assert_eq!(pair.hear(at, &gossip(1)), 0);
        }
        assert_eq!(pair.0.longest_excess(Time(1_060 * MS)).as_millis(), 0);
        assert_eq!(pair.hear(1_067, &gossip(1)), 37);
        assert_eq!(pair.hear(1_077, &gossip(1)), 37);
        assert_eq!(pair.0.longest_excess(Time(3_050 * MS)).as_millis(), 37);
        assert_eq!(pair.0.longest_excess(Time(8_000 * MS)), Duration::ZERO);
    }

    /// Nobody is late who has not begun to speak in that interval yet, nor was in another life.
    #[test]
    fn what_comes_before_the_pair_is_no_silence() {
        let mut pair = Pair::new();
        pair.1 = None;
        pair.hear(1_000, &gossip(1));
        pair.1 = Some(PEER);
        assert_eq!(pair.hear(1_030, &gossip(1)), 0);
        assert_eq!(pair.hear(1_500, &gossip(2)), 0);
        // A shorter interval holds from the first word in it on.
        assert_eq!(pair.hear_each(1_040, &gossip(1), INTERVAL / 5), 0);
    }

    /// The silence that ended the pair is measured when the member that was split off is back; what
    /// a spare does then is its own affair.
    #[test]
    fn who_was_split_off_counts_once_more() {
        let mut pair = Pair::new();
        pair.hear(1_000, &gossip(1));
        pair.1 = None;
        assert_eq!(pair.hear(1_070, &gossip(1)), 60);
        assert_eq!(pair.hear(1_300, &gossip(1)), 60);
    }

    #[test]
    fn a_failure_hides_no_shorter_silence() {
        let mut pair = Pair::new();
        pair.hear(1_000, &gossip(1));
        assert_eq!(pair.hear(1_030, &gossip(1)), 20);
        assert_eq!(pair.hear(1_600, &gossip(1)), 20);
    }

    /// Acks that come regularly but late leave little of the lease. Not those of another epoch, nor
    /// a copy of an old one.
    #[test]
    fn a_round_trip_uses_up_the_lease() {
        let mut pair = Pair::new();
        pair.hear(1_000, &promise(EPOCH, 992));
        assert_eq!(pair.hear(1_010, &promise(EPOCH, 1_002)), 8);
        let mut pair = Pair::new();
        pair.hear(1_000, &promise(EPOCH, 999));
        pair.hear(1_010, &promise(Epoch { term: 1, turn: 0 }, 1_009));
        pair.hear(1_020, &promise(EPOCH, 990));
        assert_eq!(pair.hear(1_030, &gossip(1)), 0);
    }

    #[test]
    fn others_do_not_count() {
        let mut meter = Meter::new(Duration::from_secs(1));
        for at in [1_000, 1_500] {
            let from = (NodeId(3), &gossip(1));
            meter.received(Time(at * MS), from, (EPOCH, Some(PEER)), INTERVAL);
        }
        assert_eq!(meter.longest_excess(Time(1_500 * MS)), Duration::ZERO);
    }
}
