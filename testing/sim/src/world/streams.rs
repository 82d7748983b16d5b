//! The streams of service state, as far as succession hears of them: proofs while a stream
//! carries, and none when it does not. Nobody says that a stream has broken.

use vnfpool_model::{Role, Time};
use vnfpool_succession::element::{Cause, Input};

use super::{Event, MS, Parcel, World, machine_of};
use crate::network::{MACHINES_MAX, MANAGEMENT};

/// How often a stream that carries nothing else proves the copy.
const PROOF_NS: u64 = 50 * MS;

/// How long it takes at most until a stream that broke carries again, with a new snapshot.
const REOPEN_NS_MAX: u64 = 200 * MS;

/// The stream from an active.
#[derive(Clone, Copy, Debug)]
struct Feed {
    to: usize,
    lives: (u64, u64),
    carries_from: u64,
}

/// The streams of all slots.
#[derive(Debug)]
pub struct Streams {
    /// No stream carries anything while this is false.
    pub healthy: bool,
    feeds: Vec<[Option<Feed>; MACHINES_MAX]>,
    /// The true time as of which each machine's copy of a slot's state is complete.
    as_of: Vec<[u64; MACHINES_MAX]>,
    /// Since when each element and the manager could have talked at every look.
    contact_since: [Option<u64>; MACHINES_MAX],
}

impl Streams {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            healthy: true,
            feeds: vec![[None; MACHINES_MAX]; slots],
            as_of: vec![[0; MACHINES_MAX]; slots],
            contact_since: [None; MACHINES_MAX],
        }
    }
}

impl World {
    /// Every active feeds its successor, or when it is alone another element.
    pub(super) fn run_streams(&mut self, slot: usize) {
        self.schedule(self.now + PROOF_NS, Event::Streams { slot });
        for from in self.elements() {
            self.look_at_contact(from);
            if self.role(from, slot) != Some(Role::Active) {
                self.streams.feeds[slot][from] = None;
                continue;
            }
            self.check_copy(from, slot);
            let Some(to) = self.stands_by(from, slot) else {
                continue;
            };
            self.feed(from, to, slot);
        }
    }

    fn stands_by(&self, from: usize, slot: usize) -> Option<usize> {
        let machine = &self.hosts[from].agent.as_ref()?.machines[slot];
        if let Some(peer) = machine.pair_peer() {
            return Some(machine_of(peer.node));
        }
        self.elements().find(|to| {
            let host = &self.hosts[*to];
            *to != from && host.agent.is_some() && host.able && self.network.connects(from, *to)
        })
    }

    fn feed(&mut self, from: usize, to: usize, slot: usize) {
        let lives = (self.hosts[from].life, self.hosts[to].life);
        let same = |feed: &Feed| feed.to == to && feed.lives == lives;
        let known = self.streams.feeds[slot][from].filter(same);
        let dead = self.hosts[to].agent.is_none();
        let broken = !self.streams.healthy || dead || !self.network.connects(from, to);
        let mut feed = known.unwrap_or(Feed {
            to,
            lives,
            carries_from: u64::MAX,
        });
        if broken || known.is_none() {
            feed.carries_from = self.now + self.random.below(REOPEN_NS_MAX);
        }
        self.streams.feeds[slot][from] = Some(feed);
        // What stands still for a moment goes on afterwards where it was.
        let frozen = [from, to]
            .iter()
            .any(|node| self.hosts[*node].frozen(self.now));
        let carries = !broken && !frozen && self.now >= feed.carries_from;
        if carries || self.breakage.proves_without_stream() {
            let sent = if carries { self.now } else { 0 };
            let sent_at = self.hosts[from].clock.read(self.now);
            let at = self.now + MS / 10 + self.random.below(2 * MS);
            self.schedule(
                at,
                Event::Proof {
                    from,
                    to,
                    slot,
                    sent,
                    sent_at,
                    lives,
                },
            );
        }
    }

    pub(super) fn proof(
        &mut self,
        from: usize,
        to: usize,
        slot: usize,
        sent: u64,
        sent_at: Time,
        lives: (u64, u64),
    ) {
        if lives != (self.hosts[from].life, self.hosts[to].life) {
            return;
        }
        let as_of = &mut self.streams.as_of[slot][to];
        *as_of = (*as_of).max(sent);
        let peer = self.hosts[to].member(to);
        self.input(
            from,
            slot,
            Input::InSync {
                peer,
                as_of: Some(sent_at),
            },
        );
    }

    /// Before a handover everything goes to the successor, if the stream carries.
    pub(super) fn drain(&mut self, node: usize, slot: usize) {
        let Some(feed) = self.streams.feeds[slot][node] else {
            return;
        };
        let carries = self.streams.healthy
            && self.now >= feed.carries_from
            && self.hosts[feed.to].agent.is_some()
            && !self.hosts[feed.to].frozen(self.now)
            && self.network.connects(node, feed.to);
        if carries {
            let life = self.hosts[node].life;
            let at = self.now + MS / 10 + self.random.below(5 * MS);
            self.streams.as_of[slot][feed.to] = self.now;
            let parcel = Parcel::Drained;
            self.schedule(
                at,
                Event::Arrive {
                    to: node,
                    slot,
                    life,
                    parcel,
                },
            );
        }
    }

    /// Who serves is where the state is. Who has handed over still has it all, and nothing came
    /// before the successor served.
    pub(super) fn took_over(&mut self, node: usize, slot: usize, role: Role, cause: Cause) {
        if role != Role::Active {
            return;
        }
        self.streams.as_of[slot][node] = self.now;
        let agent = self.hosts[node].agent.as_ref();
        let former = agent.and_then(|agent| agent.machines[slot].pair_peer());
        if let (Cause::Handover, Some(former)) = (cause, former) {
            self.streams.as_of[slot][machine_of(former.node)] = self.now;
        }
    }

    /// Whether `node` and the manager live, have keys, and reach each other without noise. What was
    /// late may still arrive after a cut: to be heard is no sign that a question is answered.
    fn look_at_contact(&mut self, node: usize) {
        let management = &self.network.paths[MANAGEMENT];
        let lives = self.manager.lives() && self.hosts[node].agent.is_some();
        let awake = [0, node]
            .iter()
            .all(|host| !self.hosts[*host].frozen(self.now));
        let has_keys = [(0, node), (node, 0)]
            .iter()
            .all(|(from, to)| !self.hosts[*from].keys_fail && self.now >= self.keys_at[*from][*to]);
        let reach = management.carries(0, node) && management.carries(node, 0);
        let contact = lives && awake && has_keys && reach && !management.is_noisy();
        let since = &mut self.streams.contact_since[node];
        *since = contact.then(|| since.unwrap_or(self.now));
    }

    /// I5: an active with an old copy at its successor says so by its vote.
    fn check_copy(&mut self, from: usize, slot: usize) {
        let Some(agent) = self.hosts[from].agent.as_ref() else {
            return;
        };
        let machine = &agent.machines[slot];
        let Some(peer) = machine.pair_peer() else {
            return;
        };
        let as_of = self.streams.as_of[slot][machine_of(peer.node)];
        let now = self.hosts[from].clock.read(self.now);
        // A vote needs a token that is not older than a lease, counted from the request for it: so
        // long it takes to get one, and as long again for what fell between two looks.
        let lease_ns = u64::from(self.shape.timing.lease_ms) * MS;
        let in_contact =
            self.streams.contact_since[from].is_some_and(|since| self.now - since >= 2 * lease_ns);
        let may_vote = in_contact
            && now.since(machine.manager_heard_at()) < self.shape.timing.lease() / 2
            && machine.promise_until() < now
            && machine.gate() > now
            && !machine.unconfirmed();
        self.checks.copy(self.now, from, slot, as_of, may_vote);
    }
}
