//! One machine: its clock, its kernel's gates, its agent, its disk.

use std::collections::VecDeque;

use vnfpool_model::{Epoch, Incarnation, Time};
use vnfpool_succession::element::Element;
use vnfpool_wire::datagram::Member;

use super::{Parcel, node_id};
use crate::clock::Clock;

/// What waits in the sockets of a machine that stands still; more is lost.
pub(crate) const MAILBOX_MAX: usize = 256;

/// A living agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// One machine for each slot.
    pub machines: Vec<Element>,
    /// When the earliest wake-up of each is scheduled.
    pub(crate) wake_at: Vec<u64>,
}

/// One machine with its kernel. The gates live on when the agent is dead or frozen.
#[derive(Debug)]
pub struct Host {
    /// Its clock.
    pub clock: Clock,
    /// The agent, if it lives. The manager's machine has none.
    pub agent: Option<Agent>,
    /// What an agent that was killed has written down, until another process goes on with it.
    pub(crate) kept: Option<Agent>,
    /// The deadlines in the kernel, one for each slot.
    pub gates: Vec<Time>,
    /// The epoch in which each gate was opened last.
    pub gate_epochs: Vec<Epoch>,
    /// Stands still until then.
    pub frozen_until: u64,
    pub(crate) mailbox: VecDeque<(usize, Parcel)>,
    /// Whether the network function works.
    pub able: bool,
    /// Counts the lives of the agent here; unlike the incarnation always right.
    pub life: u64,
    /// The incarnation of the agent.
    pub incarnation: u64,
    /// What its directory remembers of it.
    pub incarnation_on_disk: u64,
    /// Nothing that it seals or opens authenticates.
    pub keys_fail: bool,
    /// What is added to the wall clock, in milliseconds.
    pub wall_step_ms: i64,
}

/// What the wall clocks show at the begin, in milliseconds.
const WALL_MS: u64 = 1_700_000_000_000;

impl Host {
    pub(crate) fn new(clock: Clock, slots: usize) -> Self {
        Self {
            clock,
            agent: None,
            kept: None,
            gates: vec![Time::ZERO; slots],
            gate_epochs: vec![Epoch::default(); slots],
            frozen_until: 0,
            mailbox: VecDeque::with_capacity(MAILBOX_MAX),
            able: true,
            life: 0,
            incarnation: 0,
            incarnation_on_disk: 0,
            keys_fail: false,
            wall_step_ms: 0,
        }
    }

    /// The agent in its life.
    #[must_use]
    pub fn member(&self, node: usize) -> Member {
        Member {
            node: node_id(node),
            incarnation: Incarnation(self.incarnation),
        }
    }

    /// Whether it stands still at `now`.
    #[must_use]
    pub const fn frozen(&self, now: u64) -> bool {
        self.frozen_until > now
    }

    /// What the wall clock says, in milliseconds.
    pub(crate) const fn wall_ms(&self, now: u64) -> u64 {
        (WALL_MS + now / 1_000_000).saturating_add_signed(self.wall_step_ms)
    }

    /// The next incarnation, as the agent takes it: above the last one whatever the wall clock
    /// says, and above every earlier one as long as the directory or the wall clock is right.
    pub(crate) const fn take_incarnation(&mut self, now: u64) {
        let wall = self.wall_ms(now);
        let next = self.incarnation_on_disk + 1;
        self.incarnation = if next > wall { next } else { wall };
        self.incarnation_on_disk = self.incarnation;
    }
}
