//! The machine of the manager for one slot.
//!
//! It holds the record (term and pair), grants manager leases while no successor is armed, counts
//! votes, arms successors. Every new record is on disk before anything of its term is said (R16),
//! and the record of a vote that is near before the vote comes (5n).
//!
//! While a decision is on its way to the disk, its outcome is unknown; a fresh token of the old term
//! would end a vote (R9) that may already be committed. So nothing is said about the slot then,
//! but for one case: both the old and the new record let the same lone active serve, and its
//! lease is renewed.

mod damping;
mod decide;
mod interface;
mod messages;
#[cfg(feature = "model")]
mod model;
mod prepare;

use std::time::Duration;

use vnfpool_model::{Epoch, Incarnation, Pace, Time, Timing};
use vnfpool_wire::datagram::{Info, Member, Message, NodeId, Record, Request, Split, Token};

use damping::Damping;
pub use damping::{QUARANTINE_MAX, Quarantined, Release};
pub use interface::{Decision, Effect, Input, Stored, VoteRefusal};
use prepare::{Preparation, Presumed};

/// The most elements of a slot.
pub const NODES_MAX: usize = 64;

/// What the machine has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The pool's time constants; the pace is that of the next terms.
    pub timing: Timing,
    /// The longest lease that any term may have, in milliseconds.
    pub lease_ms_max: u32,
    /// The element that should serve when everything is well.
    pub preferred: Option<NodeId>,
    /// The slot has a preferred element, which may have no number yet.
    pub preferred_expected: bool,
    /// This boot of the manager, counted in its store.
    pub boot: u64,
    /// The largest manager lease that any boot has granted for this slot (R15), in milliseconds.
    pub manager_lease_ms_max: u32,
}

/// The effects of one call; drained by the driver.
pub type Effects = Vec<Effect>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    id: NodeId,
    incarnation: Incarnation,
    /// When this life was registered, or declared gone.
    registered_at: Time,
    gone: bool,
    heard_at: Time,
    /// Its newest `sent_at`, on its clock.
    sent: Time,
    heard_manager: bool,
    /// Since when it has.
    hears_since: Time,
    able: bool,
    candidate: Option<Member>,
    damping: Damping,
}

impl Node {
    const fn new(id: NodeId, incarnation: Incarnation, now: Time) -> Self {
        Self {
            id,
            incarnation,
            registered_at: now,
            gone: false,
            heard_at: now,
            sent: Time::ZERO,
            heard_manager: false,
            hears_since: now,
            able: false,
            candidate: None,
            damping: Damping::NONE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    record: Record,
    decision: Decision,
    since: Time,
}

/// The machine of the manager for one slot. See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    settings: Settings,
    record: Option<Record>,
    /// What is on its way to the disk, and the decision that waits for it.
    writing: Option<Stored>,
    pending: Option<Pending>,
    preparation: Preparation,
    /// The record may never have been in force.
    presumed: Option<Presumed>,
    /// A manager lease runs to `record.first`'s node until then.
    grant_until: Time,
    /// The newest turn heard in the record's term: for display only.
    turn: u16,
    decided_at: Time,
    /// Since when a successor has been armed, in whatever term.
    armed_at: Time,
    nodes: Vec<Node>,
    apart: Vec<(NodeId, NodeId)>,
    started_at: Time,
    /// When anybody was heard last, and since when it was never longer ago than two leases.
    heard_at: Time,
    listens_since: Time,
    /// Since when it was never longer ago than a member may be silent without suspicion (5n).
    steady_since: Time,
}

impl Slot {
    /// A slot as the store has it. With a record, a grant of an earlier boot may still run: its
    /// holder is renewed at once, nobody else gets the slot before it is over (R15).
    #[must_use]
    pub fn new(settings: Settings, stored: Option<Stored>, now: Time) -> Self {
        let record = stored.map(|stored| stored.newest());
        let lease_ms = settings
            .manager_lease_ms_max
            .max(settings.timing.manager_lease_ms);
        let wait = Duration::from_millis(u64::from(lease_ms));
        Self {
            settings,
            record,
            writing: None,
            pending: None,
            preparation: Preparation {
                on_disk: stored.and_then(|stored| stored.prepared),
                ..Preparation::default()
            },
            presumed: stored.and_then(Presumed::of),
            grant_until: record.map_or(Time::ZERO, |_| now.after(wait)),
            turn: 0,
            decided_at: now,
            armed_at: now,
            nodes: Vec::with_capacity(NODES_MAX),
            apart: Vec::new(),
            started_at: now,
            heard_at: Time::ZERO,
            listens_since: now,
            steady_since: now,
        }
    }

    /// Takes one input. Total: nothing that an element sends can make it fail.
    pub fn handle(&mut self, now: Time, input: Input, out: &mut Effects) {
        match input {
            Input::Tick => {}
            Input::Received {
                from,
                message: Message::Request(m),
            } => {
                self.on_request(now, from, &m, out);
            }
            Input::Received {
                from,
                message: Message::Split(m),
            } => {
                self.on_split(now, from, &m, out);
            }
            Input::Received { .. } => {}
            Input::Persisted => self.on_persisted(now, out),
            Input::Fenced(id) => self.fence(now, id),
            Input::Apart { one, other, apart } => {
                self.apart
                    .retain(|pair| *pair != (one, other) && *pair != (other, one));
                if apart {
                    self.apart.push((one, other));
                }
            }
            Input::Preferred(preferred) => self.settings.preferred = preferred,
            Input::Pace(pace) => {
                if pace.lease_ms <= self.settings.lease_ms_max {
                    self.settings.timing = self.settings.timing.at(pace);
                }
            }
            Input::Pardoned(id) => self.pardon(id, out),
        }
        self.look_at_quarantines(now, out);
        self.decide(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn deadline(&self, now: Time) -> Time {
        now.after(self.timing().lease())
    }

    /// The record in force.
    #[must_use]
    pub const fn record(&self) -> Option<Record> {
        self.record
    }

    /// The epoch as far as the manager knows; the turn is a hint.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch {
            term: self.record.map_or(0, |r| r.term),
            turn: self.turn,
        }
    }

    /// Who serves, as far as the manager knows.
    #[must_use]
    pub fn active(&self) -> Option<Member> {
        use vnfpool_model::PairRole::{First, Second};
        let record = self.record?;
        match self.epoch().active() {
            First => Some(record.first),
            Second => record.second,
        }
    }

    /// Every element: when it was heard last, and in which life.
    pub fn all_heard(&self) -> impl Iterator<Item = (NodeId, Time, Incarnation)> + '_ {
        self.nodes.iter().map(|n| (n.id, n.heard_at, n.incarnation))
    }

    /// The pace of the terms to come.
    #[must_use]
    pub const fn next_pace(&self) -> Pace {
        self.settings.timing.pace()
    }

    /// Whether the record in force was prepared, and nobody knows whether it was ever told (5n).
    #[must_use]
    pub const fn is_presumed(&self) -> bool {
        self.presumed.is_some()
    }

    /// Whether a decision is waiting for the disk.
    #[must_use]
    pub const fn waits_for_disk(&self) -> bool {
        self.pending.is_some()
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.iter().find(|n| n.id == id)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|n| n.id == id)
    }

    /// A record of the next terms' pace that names `first` alone.
    const fn lone(&self, term: u64, first: Member) -> Record {
        Record {
            term,
            first,
            second: None,
            pace: self.settings.timing.pace(),
        }
    }

    /// The time constants in force.
    fn timing(&self) -> Timing {
        let next = self.settings.timing;
        self.record.map_or(next, |record| next.at(record.pace))
    }

    /// The longest promise that anybody may have given in any term.
    fn longest_lease(&self) -> Duration {
        Duration::from_millis(self.settings.lease_ms_max.into())
    }

    fn manager_lease(&self) -> Duration {
        self.settings.timing.manager_lease()
    }

    fn token(&self, now: Time) -> Token {
        Token {
            boot: self.settings.boot,
            clock: now,
        }
    }

    /// Heard within the last two leases, in the registered life.
    fn fresh(&self, now: Time, node: &Node) -> bool {
        self.is_recent(now, node.heard_at)
    }

    fn is_recent(&self, now: Time, heard_at: Time) -> bool {
        heard_at != Time::ZERO && now.since(heard_at) < self.timing().lease() * 2
    }
}
