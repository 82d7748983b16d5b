//! The machine of one element for one slot.
//!
//! What an element must not forget within one life is here; a new life has a new incarnation and
//! starts from nothing (amnesia is the rule, R13). The gate is mirrored: the machine alone decides
//! its deadline, the driver stores it in the kernel.

mod copy;
mod interface;
mod lease;
mod manager;
#[cfg(feature = "model")]
mod model;
mod peers;
mod serve;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vnfpool_model::{Epoch, OnQuorumLoss, PairRole, Role, Time, Timing};
use vnfpool_wire::datagram::{
    Ack, Gossip, Handover, Heartbeat, Info, Member, Message, NodeId, Record, Request, Split, Token,
};

use crate::broken::{Broken, Mutation};
use crate::{GOSSIP_INTERVALS, hearing_time};
use copy::{COPY_AGE_MAX, StandbyCopy};
pub use interface::{Cause, Effect, Input, Notice, Refusal};
pub use serve::LANS_MAX;
use serve::Quorum;

/// A beat that is later than so many intervals is a standstill of this machine; for as many it
/// then hears the others before it votes.
const GRACE_INTERVALS: u32 = 2;

/// The longest wait for the state stream to drain before a handover goes out without it.
pub const DRAIN_MAX: Duration = Duration::from_millis(20);

/// What the machine has to know and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// This element in this life.
    pub me: Member,
    /// The pool's time constants; the pace is that of elements that know no term yet.
    pub timing: Timing,
    /// The longest lease that any term may have, in milliseconds.
    pub lease_ms_max: u32,
    /// What the last of three does.
    pub on_quorum_loss: OnQuorumLoss,
}

/// The effects of one call; drained by the driver.
pub type Effects = Vec<Effect>;

/// The most peers whose messages an element remembers.
pub const PEERS_MAX: usize = 64;

/// What is known of another element of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Peer {
    node: NodeId,
    incarnation: u64,
    /// The newest `sent_at` of it, on its clock; to be echoed.
    sent: Time,
    /// When its newest message came, on our clock.
    heard_at: Time,
    /// When a message came that proves that it hears us, on our clock.
    mutual_at: Time,
    able: bool,
}

/// A handover on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum HandoverState {
    /// The gate is closed, the state stream drains until then at the latest.
    Draining(Time),
    /// Sent, and sent again until the successor is heard in the new epoch.
    Sent,
}

/// The machine of one element for one slot. See the module documentation.
///
/// It can be written down at any time and go on in another process of the same life
/// ([`Element::resume`]): what it was when its last effects were carried out is all that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Element {
    settings: Settings,
    record: Option<Record>,
    turn: u16,
    /// The gate's deadline as the driver has it.
    gate: Time,
    /// The gate was closed for good in this (term, turn) (R1).
    gate_final: bool,
    /// In this armed term the gate rests on the peer's promise alone, no manager lease is left.
    renounced: bool,
    /// The LANs have been told of this epoch.
    announced: bool,
    promise_until: Time,
    /// The newest token used in a vote of this term (R8, R9).
    voted: Option<Token>,
    split_sent_at: Time,
    /// The newest token, and the send time of the request that brought it.
    token: Token,
    token_age_from: Time,
    manager_heard_at: Time,
    peers: Vec<Peer>,
    able: bool,
    /// The copy of service state at the standby that this active feeds.
    copy: StandbyCopy,
    /// Since when the armed successor has been unable.
    unable_since: Option<Time>,
    /// When the successor's newest promise or plain ack of this epoch came.
    acked_at: Option<Time>,
    handover: Option<HandoverState>,
    /// Since when the current epoch is in force here.
    epoch_at: Time,
    next_beat: Time,
    beats: u32,
    /// When this machine last went on after it had stood still.
    woke_at: Time,
    quorum: Quorum,
    /// The time of the newest input.
    now: Time,
    #[serde(skip)]
    broken: Broken,
}

impl Element {
    /// A machine that knows nothing yet; the driver has closed the gate before (R1).
    #[must_use]
    pub fn new(settings: Settings, now: Time) -> Self {
        Self {
            settings,
            record: None,
            turn: 0,
            gate: Time::ZERO,
            gate_final: false,
            renounced: false,
            announced: false,
            promise_until: Time::ZERO,
            voted: None,
            split_sent_at: Time::ZERO,
            token: Token::default(),
            token_age_from: Time::ZERO,
            manager_heard_at: Time::ZERO,
            peers: Vec::with_capacity(PEERS_MAX),
            able: false,
            copy: StandbyCopy::default(),
            unable_since: None,
            acked_at: None,
            handover: None,
            epoch_at: now,
            next_beat: now,
            beats: 0,
            woke_at: Time::ZERO,
            quorum: Quorum::new(now),
            now,
            broken: Broken::default(),
        }
    }

    /// Goes on in another process of the same life: for the machine, its agent was frozen for a
    /// moment. It was written down after an input and before that input's effects, so some of them
    /// may be missing; all of them are repeated or time out.
    ///
    /// What came meanwhile may be lost, unlike after a freeze: silence is measured from now on only
    /// (S2), and for a moment nothing is concluded from what is missing.
    pub fn resume(&mut self, now: Time) {
        self.now = now;
        self.woke_at = now;
        self.quorum.restart(now);
        self.copy.interrupt();
    }

    /// What the machine was made with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether its function could serve, as was said last.
    #[must_use]
    pub const fn able(&self) -> bool {
        self.able
    }

    /// The time of the newest input.
    #[must_use]
    pub const fn newest_input_at(&self) -> Time {
        self.now
    }

    /// This machine with one more mutation inside.
    #[cfg(feature = "broken")]
    #[must_use]
    pub const fn broken_by(mut self, mutation: Mutation) -> Self {
        self.broken = self.broken.and(mutation);
        self
    }

    /// Takes one input. Total: nothing that a peer sends can make it fail.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Effects) {
        self.now = now;
        self.note_standstill(now);
        match input {
            Input::Tick => {}
            Input::Received { from, message } => self.received(now, from, message, out),
            Input::Peer { node, present } => self.peer_changed(node, present),
            Input::Able(able) => self.able_changed(now, able, out),
            Input::InSync { peer, as_of } => self.copy.learn(peer, as_of),
            Input::HandOver => self.hand_over_as_asked(now, out),
            Input::Resign => self.hand_over(now, out),
            Input::Drained => {
                if matches!(self.handover, Some(HandoverState::Draining(_))) {
                    self.complete_handover(now, out);
                }
            }
            Input::Witness { lan } => self.quorum.witness(now, lan),
            Input::WitnessLans(lans) => self.quorum.set_lans(lans),
            Input::SignOfLife => self.quorum.restart(now),
        }
        if self.quorum.must_yield() {
            self.stop_serving(out);
        }
        self.run_timers(now, out);
        self.check(now);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let mut deadline = self.next_beat;
        if let Some(HandoverState::Draining(until)) = self.handover {
            deadline = deadline.min(until);
        }
        // The successor's claim must not wait for the next beat.
        if self.role() == Role::Standby && self.promise_until > self.now {
            deadline = deadline.min(self.promise_until);
        }
        deadline
    }

    /// The role in the current epoch.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.record {
            Some(_) if self.active() => Role::Active,
            Some(record) if record.names(self.settings.me) => Role::Standby,
            _ => Role::Spare,
        }
    }

    /// The newest epoch known.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch {
            term: self.record.map_or(0, |r| r.term),
            turn: self.turn,
        }
    }

    /// The other member of the pair.
    #[must_use]
    pub fn pair_peer(&self) -> Option<Member> {
        self.record.and_then(|r| r.peer_of(self.settings.me))
    }

    /// The gate's deadline.
    #[must_use]
    pub const fn gate(&self) -> Time {
        self.gate
    }

    /// Until when this element has promised not to split.
    #[must_use]
    pub const fn promise_until(&self) -> Time {
        self.promise_until
    }

    /// Whether the slot is served on evidence alone (S1–S7).
    #[must_use]
    pub const fn unconfirmed(&self) -> bool {
        self.quorum.serving
    }

    /// When the manager was heard last; [`Time::ZERO`]: never.
    #[must_use]
    pub const fn manager_heard_at(&self) -> Time {
        self.manager_heard_at
    }

    /// Since when `node` has been heard, and whether it hears us, within the lease before `now`.
    #[must_use]
    pub fn hears(&self, now: Time, node: NodeId) -> bool {
        self.peers
            .iter()
            .any(|p| p.node == node && now.since(p.mutual_at) < hearing_time(self.timing()))
    }

    /// In which interval the members of the pair speak to each other.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Duration {
        self.timing().heartbeat_interval()
    }

    /// Who serves in the newest epoch known, be it this element or another.
    #[must_use]
    pub fn active_member(&self) -> Option<Member> {
        let record = self.record?;
        match self.epoch().active() {
            PairRole::First => Some(record.first),
            PairRole::Second => record.second,
        }
    }

    fn active(&self) -> bool {
        self.active_member() == Some(self.settings.me)
    }

    fn armed(&self) -> bool {
        self.record.is_some_and(|r| r.armed())
    }

    /// The time constants in force: a term has a pace of its own.
    fn timing(&self) -> Timing {
        let pool = self.settings.timing;
        let of_term = self.record.filter(|_| !self.broken.is(Mutation::OwnPace));
        of_term.map_or(pool, |record| pool.at(record.pace))
    }

    fn lease(&self) -> Duration {
        self.timing().lease()
    }

    fn received(&mut self, now: Time, from: NodeId, message: Message, out: &mut Effects) {
        match message {
            Message::Info(info) if from == NodeId::MANAGER => self.on_info(now, &info, out),
            Message::Heartbeat(m) if from != NodeId::MANAGER => {
                self.on_heartbeat(now, from, &m, out)
            }
            Message::Ack(m) if from != NodeId::MANAGER => self.on_ack(now, from, &m, out),
            Message::Handover(m) if from != NodeId::MANAGER => self.on_handover(now, from, &m, out),
            Message::Gossip(m) if from != NodeId::MANAGER => self.on_gossip(now, from, &m),
            // Requests and splits are for the manager; a manager sends nothing but infos.
            _ => {}
        }
    }

    fn able_changed(&mut self, now: Time, able: bool, out: &mut Effects) {
        let failed = self.able && !able;
        self.able = able;
        // A function that fails while its agent lives resigns at once.
        if failed && self.active() && self.armed() {
            self.hand_over(now, out);
        }
    }

    /// A machine that stood still has measured its own silence, not the others': their messages
    /// wait in its sockets, and they have heard nothing that they could answer.
    fn note_standstill(&mut self, now: Time) {
        let late = self.timing().heartbeat_interval() * GRACE_INTERVALS;
        // Not again and again, or a machine that is always late would never vote.
        let rarely = now.since(self.woke_at) >= self.lease() * 4;
        if now.since(self.next_beat) > late && rarely {
            self.woke_at = now;
        }
    }

    fn run_timers(&mut self, now: Time, out: &mut Effects) {
        if let Some(HandoverState::Draining(until)) = self.handover
            && now >= until
        {
            self.complete_handover(now, out);
        }
        self.try_split(now, out);
        if now < self.next_beat {
            return;
        }
        let interval = self.timing().heartbeat_interval();
        if !self.broken.is(Mutation::SilenceWhileFrozen) {
            self.quorum.awake(now, self.next_beat, interval);
        }
        // A late thread sends one beat, not those that it missed.
        self.next_beat = self.next_beat.after(interval).max(now.after(interval / 2));
        self.beats = self.beats.wrapping_add(1);
        self.send_heartbeat(now, out);
        self.resend_handover(now, out);
        self.send_request(now, out);
        // From the first beat on: a peer that serves on evidence has to hear of a new life before
        // the manager may give that the slot (R13).
        if self.beats % GOSSIP_INTERVALS == 1 {
            self.send_gossip(now, out);
        }
        self.run_quorum(now, out);
    }

    fn notify_role(&self, cause: Cause, out: &mut Effects) {
        out.push(Effect::Notify(Notice::RoleChanged {
            epoch: self.epoch(),
            role: self.role(),
            peer: self.pair_peer(),
            cause,
        }));
    }

    /// The invariants that can be seen from one machine; a programmer's error stops the program.
    fn check(&self, now: Time) {
        assert!(
            self.gate <= now || self.active() || self.quorum.serving,
            "the gate is open without being active"
        );
        assert!(
            self.handover != Some(HandoverState::Sent) || !self.active(),
            "handed over, yet active"
        );
        assert!(self.peers.len() <= PEERS_MAX);
    }
}
