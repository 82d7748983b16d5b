//! The streams of service state, as far as succession hears of them: proofs that come while a
//! stream carries, and none when it does not. Nobody says that a stream has broken.

use vnfpool_model::{Incarnation, Role};
use vnfpool_succession::element::Input;
use vnfpool_wire::datagram::{Member, NodeId};

use super::{Event, MS, World};

/// How often a stream that carries nothing else proves the copy.
const PROOF_INTERVAL: u64 = 50 * MS;

/// How long it takes at most until a stream that broke carries again.
const REOPENED_AFTER_MAX: u64 = 200 * MS;

#[derive(Debug)]
pub struct Streams {
    /// No stream carries anything while this is false.
    pub healthy: bool,
    /// `back_at[from][to]`: from when the stream carries again after it broke.
    back_at: Vec<Vec<u64>>,
    /// How long it takes at most until then.
    pub reopened_after_max: u64,
}

impl Streams {
    pub fn new(hosts: usize) -> Self {
        Self {
            healthy: true,
            back_at: vec![vec![0; hosts]; hosts],
            reopened_after_max: REOPENED_AFTER_MAX,
        }
    }
}

impl World {
    pub(super) fn begin_streams(&mut self) {
        self.schedule(self.now, Event::Streams);
    }

    /// Every active feeds its successor, or the first living other when it is alone.
    pub(super) fn run_streams(&mut self) {
        self.schedule(self.now + PROOF_INTERVAL, Event::Streams);
        for from in self.elements() {
            let Some(machine) = self.hosts[from].machine.as_ref() else {
                continue;
            };
            if machine.role() != Role::Active {
                continue;
            }
            let successor = machine.pair_peer().map(|peer| peer.node.0 as usize);
            let living = |to: &usize| *to != from && self.hosts[*to].machine.is_some();
            let Some(to) = successor.or_else(|| self.elements().find(living)) else {
                continue;
            };
            let broken = !self.streams.healthy
                || self.hosts[to].machine.is_none()
                || self.cuts[from][to]
                || self.cuts[to][from];
            // What stands still for a moment goes on afterwards where it was.
            let frozen = [from, to].map(|node| self.hosts[node].frozen_until > self.now);
            if broken {
                let reopened_after = self.random.below(self.streams.reopened_after_max);
                self.streams.back_at[from][to] = self.now + reopened_after;
            } else if self.now >= self.streams.back_at[from][to] && frozen == [false; 2] {
                let peer = Member {
                    node: NodeId(to as u32),
                    incarnation: Incarnation(self.hosts[to].incarnation),
                };
                let as_of = Some(self.clock(from));
                self.input(from, Input::InSync { peer, as_of });
            }
        }
    }
}
