//! The machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vnfpool_model::Time;

/// Entries and questions whose way to the successor is timed during a downgrade. More that are on
/// their way at a time say that it is not prompt.
const PROBES_MAX: usize = 1024;
/// An acknowledgement is prompt within this part of [`Limits::wait_max`].
const PROMPT_PART: u32 = 4;
/// A successor of which no packet asks anything is asked each of these parts of [`Limits::calm`].
const ASK_PART: u32 = 4;

/// How long packets wait, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest that a packet waits before the downgrade (`commit_wait_ms` of the pool).
    pub wait_max: Duration,
    /// How long the successor has to be prompt before packets are held again.
    pub calm: Duration,
    /// Most packets that wait at a time.
    pub held_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait_max: Duration::from_millis(20),
            calm: Duration::from_secs(1),
            held_max: 16_384,
        }
    }
}

/// A packet of a connection that is not in the kernel's table yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<K> {
    /// Its number, one more than that of the packet before; numbers wrap.
    pub id: u32,
    /// The connection: its first packet before translation.
    pub original: K,
    /// What an answer to it looks like: its first packet after translation, turned around.
    pub reply: K,
}

/// What the machine hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<K> {
    /// A packet is held; packets come in the order of their numbers.
    Held(Packet<K>),
    /// The entry that [`Effects::send`] asked for went into the stream as `sequence`, in the order
    /// in which it was asked for. To be said before an acknowledgement of it is.
    Sent {
        /// The packet.
        id: u32,
        /// Its entry's number in the stream, which never falls while there is a successor.
        sequence: u64,
    },
    /// What [`Effects::ask`] asked for went into the stream as `sequence`, a number as of
    /// [`Input::Sent`].
    Asked {
        /// The question's number in the stream.
        sequence: u64,
    },
    /// The successor's kernel holds everything up to this number of the stream, which the stream's
    /// machine has checked.
    Acknowledged(u64),
    /// There is a successor in step, with a new stream, or there is none any more.
    Successor {
        /// Whether there is one.
        is_present: bool,
    },
    /// A packet is held whose connection the driver could not tell: it cannot wait for an entry.
    Unknown {
        /// The packet.
        id: u32,
    },
    /// Packets left without being held, because the driver had no room for them.
    Overflowed {
        /// How many.
        packets: u64,
    },
    /// It is time ([`Commitment::deadline`]).
    Tick,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Send the entries of these packets, in this order, and answer with [`Input::Sent`].
    pub send: Vec<u32>,
    /// Ask the successor to acknowledge what it has, and answer with [`Input::Asked`].
    pub ask: bool,
    /// Release all packets up to this number.
    pub release_through: Option<u32>,
    /// Tell of these.
    pub events: Vec<Event>,
}

/// What an operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// From now on packets leave without waiting for the successor.
    DowngradeBegan {
        /// Why.
        reason: Reason,
    },
    /// Packets wait for the successor again.
    DowngradeEnded {
        /// Why there was a downgrade.
        reason: Reason,
        /// How long it was.
        lasted: Duration,
        /// Packets that left without waiting, or before their entry was acknowledged.
        unheld: u64,
    },
}

/// Why packets do not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is nobody who could hold the entries. Ends when there is.
    NoSuccessor,
    /// A packet waited longer than [`Limits::wait_max`].
    SuccessorSlow,
    /// More packets came than can be held, or told of.
    Overflow,
}

/// What has happened so far, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Left after the successor held the entry.
    pub committed: u64,
    /// Left in a downgrade.
    pub unheld: u64,
    /// Of connections whose translated tuple another connection claimed that was waiting, too: the
    /// kernel lets one of two have it, the first, and drops the other's packet.
    pub clashes: u64,
}

/// How things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Why packets do not wait, and since when; none if they do.
    pub downgrade: Option<(Reason, Time)>,
    /// Packets that wait.
    pub waiting: usize,
    /// What has happened so far.
    pub statistics: Statistics,
}

/// Says when a held packet may leave. `K` is what the driver knows a tuple by.
///
/// ```text
///              wait_max over, overflow                no successor
///  +---------+ -----------------------> +------------+ <--------- (begin)
///  | holding |                          | downgraded |
///  +---------+ <----------------------- +------------+
///               prompt for `calm`, or a successor after none
/// ```
///
/// Packets leave in the order in which they came. That costs nothing, since entries are sent and
/// acknowledged in this order, and lets a driver release many with one word.
#[derive(Clone, Debug)]
pub struct Commitment<K> {
    limits: Limits,
    has_successor: bool,
    acknowledged: u64,
    downgrade: Option<Downgrade>,
    /// Packets that wait, the oldest first. Empty in a downgrade.
    waiting: VecDeque<Waiting<K>>,
    /// The connections in `waiting` whose entries are sent, by original tuple, and the replies
    /// that they claim.
    connections: BTreeMap<K, Connection<K>>,
    claims: BTreeSet<K>,
    statistics: Statistics,
}

#[derive(Clone, Debug)]
struct Waiting<K> {
    packet: Packet<K>,
    since: Time,
    need: Need,
}

/// What a packet waits for, apart from its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Its entry has to be sent.
    Sending,
    /// Its entry has to be acknowledged.
    Acknowledgement(u64),
    /// Nothing: the entry of its connection is sent for a packet before it.
    Turn,
    /// Nothing: a connection before it has the same translation, so the kernel will not let it go.
    Loser,
}

#[derive(Clone, Debug)]
struct Connection<K> {
    reply: K,
    /// Packets in `waiting`.
    packets: usize,
}

#[derive(Clone, Debug)]
struct Downgrade {
    reason: Reason,
    since: Time,
    unheld: u64,
    /// Since when every acknowledgement has been prompt; none before the first.
    calm_since: Option<Time>,
    /// When the successor is asked, if nothing is on its way there.
    ask_at: Time,
    /// Entries and questions on their way: number in the stream, and since when.
    probes: VecDeque<(u64, Time)>,
}

impl<K: Ord + Clone> Commitment<K> {
    /// A machine without a successor: nothing waits yet.
    #[must_use]
    pub fn new(now: Time, limits: Limits) -> Self {
        Self {
            limits,
            has_successor: false,
            acknowledged: 0,
            downgrade: Some(Downgrade::new(now, Reason::NoSuccessor)),
            waiting: VecDeque::new(),
            connections: BTreeMap::new(),
            claims: BTreeSet::new(),
            statistics: Statistics::default(),
        }
    }

    /// Takes in what has happened and adds to `effects` what follows.
    pub fn handle(&mut self, now: Time, input: Input<K>, effects: &mut Effects) {
        match input {
            Input::Held(packet) => self.hold(now, packet, effects),
            Input::Sent { id, sequence } => self.note_sent(now, id, sequence),
            Input::Asked { sequence } => {
                if let Some(downgrade) = &mut self.downgrade {
                    downgrade.probe(now, sequence);
                }
            }
            Input::Acknowledged(sequence) => {
                self.acknowledged = self.acknowledged.max(sequence);
                if let Some(downgrade) = &mut self.downgrade {
                    downgrade.acknowledge(now, sequence, self.limits.prompt());
                }
            }
            Input::Successor { is_present } => self.set_successor(now, is_present, effects),
            Input::Unknown { id } => {
                self.overflow(now, 1, effects);
                effects.release_through = Some(id);
            }
            Input::Overflowed { packets } => self.overflow(now, packets, effects),
            Input::Tick => {}
        }
        self.release_committed(effects);
        self.look_at_the_clock(now, effects);
    }

    /// When [`Input::Tick`] is due, if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match &self.downgrade {
            Some(downgrade) => {
                let calm = downgrade.calm_since.map(|at| at.after(self.limits.calm));
                calm.into_iter().chain(self.ask_at()).min()
            }
            None => Some(self.waiting.front()?.since.after(self.limits.wait_max)),
        }
    }

    /// How things are.
    #[must_use]
    pub fn status(&self) -> Status {
        let downgrade = self.downgrade.as_ref();
        Status {
            downgrade: downgrade.map(|downgrade| (downgrade.reason, downgrade.since)),
            waiting: self.waiting.len(),
            statistics: self.statistics,
        }
    }

    fn hold(&mut self, now: Time, packet: Packet<K>, effects: &mut Effects) {
        if self.downgrade.is_none() && self.waiting.len() >= self.limits.held_max {
            self.begin_downgrade(now, Reason::Overflow, effects);
        }
        if let Some(downgrade) = &mut self.downgrade {
            downgrade.unheld += 1;
            self.statistics.unheld += 1;
            // The entry goes all the same: it is worth having, and its way is timed.
            if self.has_successor {
                effects.send.push(packet.id);
            }
            effects.release_through = Some(packet.id);
            return;
        }
        let need = self.claim(&packet);
        if need == Need::Sending {
            effects.send.push(packet.id);
        }
        self.waiting.push_back(Waiting {
            packet,
            since: now,
            need,
        });
    }

    /// Notes down whose packet it is, and says what it has to wait for.
    fn claim(&mut self, packet: &Packet<K>) -> Need {
        if let Some(connection) = self.connections.get_mut(&packet.original) {
            connection.packets += 1;
            return Need::Turn;
        }
        if !self.claims.insert(packet.reply.clone()) {
            // Sent, the entry would take the other's place at the successor.
            self.statistics.clashes += 1;
            return Need::Loser;
        }
        let connection = Connection {
            reply: packet.reply.clone(),
            packets: 1,
        };
        self.connections.insert(packet.original.clone(), connection);
        Need::Sending
    }

    fn note_sent(&mut self, now: Time, id: u32, sequence: u64) {
        if let Some(downgrade) = &mut self.downgrade {
            downgrade.probe(now, sequence);
            return;
        }
        // Numbers rise by one, so the packet's place follows from its number; one that has left in
        // a downgrade in between has none.
        let front = self.waiting.front().map_or(id, |first| first.packet.id);
        let place = usize::try_from(id.wrapping_sub(front)).unwrap_or(usize::MAX);
        if let Some(waiting) = self.waiting.get_mut(place)
            && waiting.need == Need::Sending
        {
            waiting.need = Need::Acknowledgement(sequence);
        }
    }

    fn set_successor(&mut self, now: Time, is_present: bool, effects: &mut Effects) {
        if !is_present {
            self.begin_downgrade(now, Reason::NoSuccessor, effects);
        }
        self.has_successor = is_present;
        self.acknowledged = 0;
        let reason = self.downgrade.as_ref().map(|downgrade| downgrade.reason);
        if is_present && reason == Some(Reason::NoSuccessor) {
            self.end_downgrade(now, effects);
        }
    }

    fn overflow(&mut self, now: Time, packets: u64, effects: &mut Effects) {
        self.begin_downgrade(now, Reason::Overflow, effects);
        self.statistics.unheld += packets;
        if let Some(downgrade) = &mut self.downgrade {
            downgrade.unheld += packets;
            downgrade.calm_since = None;
        }
    }

    fn release_committed(&mut self, effects: &mut Effects) {
        while let Some(first) = self.waiting.front() {
            match first.need {
                Need::Sending => break,
                Need::Acknowledgement(sequence) if sequence > self.acknowledged => break,
                Need::Acknowledgement(_) | Need::Turn | Need::Loser => {}
            }
            self.statistics.committed += 1;
            effects.release_through = Some(first.packet.id);
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some(first) = self.waiting.pop_front() else {
            return;
        };
        if first.need == Need::Loser {
            return;
        }
        let original = &first.packet.original;
        let connection = self.connections.get_mut(original);
        let connection = connection.expect("each packet that waits is counted with its connection");
        connection.packets -= 1;
        if connection.packets == 0 {
            self.claims.remove(&connection.reply);
            self.connections.remove(original);
        }
    }

    fn look_at_the_clock(&mut self, now: Time, effects: &mut Effects) {
        if let Some(first) = self.waiting.front()
            && first.since.after(self.limits.wait_max) <= now
        {
            self.begin_downgrade(now, Reason::SuccessorSlow, effects);
        }
        if let Some(downgrade) = &mut self.downgrade
            && downgrade.is_over(now, &self.limits)
        {
            self.end_downgrade(now, effects);
        }
        // Without a packet nobody else would find out that it is prompt again.
        let is_due = self.ask_at().is_some_and(|due| due <= now);
        if let Some(downgrade) = self.downgrade.as_mut().filter(|_| is_due) {
            downgrade.ask_at = now.after(self.limits.calm / ASK_PART);
            effects.ask = true;
        }
    }

    /// When the successor is to be asked whether it is prompt, since nothing on its way there will say.
    fn ask_at(&self) -> Option<Time> {
        let downgrade = self.downgrade.as_ref().filter(|_| self.has_successor)?;
        downgrade.probes.is_empty().then_some(downgrade.ask_at)
    }

    /// Begins a downgrade, or gives the one that there is a reason that does not end by itself.
    fn begin_downgrade(&mut self, now: Time, reason: Reason, effects: &mut Effects) {
        if let Some(downgrade) = &mut self.downgrade {
            if reason == Reason::NoSuccessor {
                downgrade.reason = reason;
                downgrade.calm_since = None;
                downgrade.probes.clear();
            }
            return;
        }
        let mut downgrade = Downgrade::new(now, reason);
        downgrade.unheld = self.waiting.len() as u64;
        self.statistics.unheld += downgrade.unheld;
        for waiting in self.waiting.drain(..) {
            effects.release_through = Some(waiting.packet.id);
            if reason != Reason::NoSuccessor
                && let Need::Acknowledgement(sequence) = waiting.need
            {
                downgrade.probe(waiting.since, sequence);
            }
        }
        self.connections.clear();
        self.claims.clear();
        self.downgrade = Some(downgrade);
        effects.events.push(Event::DowngradeBegan { reason });
    }

    fn end_downgrade(&mut self, now: Time, effects: &mut Effects) {
        if let Some(downgrade) = self.downgrade.take() {
            effects.events.push(Event::DowngradeEnded {
                reason: downgrade.reason,
                lasted: now.since(downgrade.since),
                unheld: downgrade.unheld,
            });
        }
    }
}

impl Downgrade {
    const fn new(since: Time, reason: Reason) -> Self {
        Self {
            reason,
            since,
            unheld: 0,
            calm_since: None,
            ask_at: since,
            probes: VecDeque::new(),
        }
    }

    fn probe(&mut self, since: Time, sequence: u64) {
        if self.probes.len() < PROBES_MAX {
            self.probes.push_back((sequence, since));
        } else {
            self.calm_since = None;
        }
    }

    fn acknowledge(&mut self, now: Time, sequence: u64, prompt: Duration) {
        while let Some(&(probe, since)) = self.probes.front()
            && probe <= sequence
        {
            self.probes.pop_front();
            if now.since(since) > prompt {
                self.calm_since = None;
            } else {
                self.calm_since.get_or_insert(now);
            }
        }
    }

    fn is_over(&mut self, now: Time, limits: &Limits) -> bool {
        let is_late = |&(_, since): &(u64, Time)| now.since(since) > limits.prompt();
        if self.probes.front().is_some_and(is_late) {
            self.calm_since = None;
        }
        self.calm_since
            .is_some_and(|since| since.after(limits.calm) <= now)
    }
}

impl Limits {
    fn prompt(&self) -> Duration {
        self.wait_max / PROMPT_PART
    }
}
