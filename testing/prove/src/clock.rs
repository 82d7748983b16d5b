//! Clocks that stand still: instead of letting "now" grow, every tick moves what was read before
//! back, until it is too old to matter.

use std::time::Duration;

use vnfpool_model::Time;
use vnfpool_wire::datagram::{Message, NodeId};

/// How many nodes a world has at most: the manager and three elements.
pub const NODES_MAX: usize = 4;

/// One tick of the world: a heartbeat interval.
pub const TICK: Duration = Duration::from_millis(100);

/// The clocks of a world.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// What one tick of the world is on each node's clock: they may run at different rates.
    pub ticks: [Duration; NODES_MAX],
    /// A message is on its way for at most so long; what a node has from another may be compared
    /// with something that is as much older.
    pub late: Duration,
    /// Times in a letter matter for so long: it may wait in a socket for any time.
    pub letters: Duration,
    /// Nothing is too old to matter: states never come back. For the test that this changes nothing.
    pub exact: bool,
}

/// What the clock of `node` shows, always: no two nodes agree.
#[must_use]
pub fn now(node: usize) -> Time {
    Time((node as u64 + 1) << 44)
}

/// The node's place among the clocks.
#[must_use]
pub fn place(node: NodeId) -> usize {
    node.0 as usize
}

impl Clocks {
    /// Moves a reading of `node`'s clock back by one tick, to an age of `oldest` at most.
    pub fn age(&self, node: usize, oldest: Duration, time: &mut Time) {
        if *time == Time::ZERO {
            return;
        }
        let back = nanos(self.ticks[node]);
        let floor = match self.exact {
            true => 1,
            false => now(node).0 - nanos(oldest),
        };
        time.0 = time.0.saturating_sub(back).max(floor);
    }

    /// The same for every time of a message on its way.
    pub fn age_message(&self, from: usize, to: usize, message: &mut Message) {
        let old = |node, time: &mut Time| self.age(node, self.letters, time);
        match message {
            Message::Heartbeat(m) => {
                old(from, &mut m.sent_at);
                old(to, &mut m.echo);
            }
            Message::Ack(m) => {
                old(from, &mut m.sent_at);
                old(to, &mut m.echo);
            }
            Message::Handover(m) => {
                old(from, &mut m.sent_at);
                old(to, &mut m.echo);
            }
            Message::Gossip(m) => {
                old(from, &mut m.sent_at);
                old(to, &mut m.echo);
            }
            Message::Request(m) => old(from, &mut m.sent_at),
            Message::Info(m) => {
                old(0, &mut m.token.clock);
                old(to, &mut m.echo);
            }
            Message::Split(m) => {
                old(0, &mut m.token.clock);
                old(from, &mut m.sent_at);
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
