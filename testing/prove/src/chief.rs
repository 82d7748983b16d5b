//! The manager with its disk: one part of the world.

use vnfpool_model::{Pace, Time};
use vnfpool_succession::manager::{Decision, Effect, Input, Settings, Slot, Stored};
use vnfpool_succession::model::Clock;
use vnfpool_wire::datagram::{Message, NodeId, Record};

use crate::clock::{Clocks, now, place};
use crate::host::node_id;
use crate::letter::{Body, Letter};
use crate::mutation::Mutation;
use crate::world::World;

/// The manager's machine, and what outlives it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chief {
    /// The machine; none while the manager is dead.
    pub life: Option<Slot>,
    /// The record on disk, perhaps with a prepared one beside it.
    pub disk: Option<Stored>,
    /// Counts the lives, on disk.
    pub boot: u64,
    /// The newest record that anybody was told: what the checks remember (I3, I4).
    pub told: Option<Record>,
}

/// What happens to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cue {
    /// A letter arrives; also the disk's answer.
    Hear(Letter),
    /// Its timer fires.
    Beat,
    /// It dies; what is on its way to the disk is there or not.
    Die {
        /// Whether it is there.
        written: bool,
    },
    /// A new life from the disk.
    Live,
    /// It is to prefer the other pace for the terms to come.
    OtherPace,
    /// The operator's word that an element is off.
    Fenced(NodeId),
}

/// What the checks and the world see of the manager.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// It lives.
    pub alive: bool,
    /// Something is on its way to the disk.
    pub writing: bool,
    /// The record in force.
    pub record: Option<Record>,
    /// The newest record that anybody was told.
    pub told: Option<Record>,
}

/// What a reaction leaves behind for the checks and the story.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// What is broken: I3 or I4.
    pub fault: Option<String>,
    /// Decisions that came into force.
    pub decided: Vec<Decision>,
}

impl Chief {
    /// A manager that is off, with an empty disk.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            life: None,
            disk: None,
            boot: 0,
            told: None,
        }
    }

    /// What can be seen of it.
    #[must_use]
    pub fn view(&self) -> View {
        View {
            alive: self.life.is_some(),
            writing: self.life.as_ref().is_some_and(|l| l.writing().is_some()),
            record: self.life.as_ref().and_then(Slot::record),
            told: self.told,
        }
    }

    /// One tick passes.
    pub fn age(&mut self, world: &World, clocks: &Clocks) {
        let Some(life) = &mut self.life else { return };
        life.moments(|moment| match moment.clock {
            Clock::Own => clocks.age(0, moment.matters_for, moment.time),
            Clock::Of(node) => {
                let oldest = moment.matters_for + clocks.late;
                clocks.age(place(node), oldest, moment.time);
            }
        });
        fold(world, life);
    }

    /// Something happens; the letters that it sends are appended.
    pub fn react(&mut self, world: &World, cue: Cue, letters: &mut Vec<Letter>) -> Trace {
        let mut trace = Trace::default();
        match cue {
            Cue::Hear(letter) => match letter.body {
                Body::Written(stored) => {
                    self.disk = Some(stored);
                    // A broken one may have been told before, and writes something else now.
                    let awaited = self.life.as_ref().and_then(Slot::writing);
                    if awaited == Some(stored) {
                        self.handle(world, Input::Persisted, letters, &mut trace);
                    }
                }
                Body::Message(message) => {
                    let from = node_id(letter.from);
                    self.handle(
                        world,
                        Input::Received { from, message },
                        letters,
                        &mut trace,
                    );
                }
                Body::Announcement => {}
            },
            Cue::Beat => self.handle(world, Input::Tick, letters, &mut trace),
            Cue::Die { written } => {
                let writing = self.life.take().and_then(|life| life.writing());
                if let (true, Some(stored)) = (written, writing) {
                    self.disk = Some(stored);
                }
            }
            Cue::Live => self.live(world, &mut trace),
            Cue::OtherPace => {
                let next = self.life.as_ref().map(Slot::next_pace);
                let longest = world.timing().pace();
                let lease_ms = match next == Some(longest) {
                    true => world.other_lease * longest.heartbeat_interval_ms,
                    false => longest.lease_ms,
                };
                let pace = Pace {
                    lease_ms,
                    ..longest
                };
                self.handle(world, Input::Pace(pace), letters, &mut trace);
            }
            Cue::Fenced(node) => self.handle(world, Input::Fenced(node), letters, &mut trace),
        }
        if let Some(life) = &mut self.life {
            fold(world, life);
        }
        trace
    }

    fn live(&mut self, world: &World, trace: &mut Trace) {
        self.boot += 1;
        let timing = world.timing();
        let settings = Settings {
            timing: self
                .disk
                .map_or(timing, |disk| timing.at(disk.newest().pace)),
            lease_ms_max: timing.lease_ms,
            preferred: Some(NodeId(1)),
            preferred_expected: true,
            boot: self.boot,
            manager_lease_ms_max: world.timing().manager_lease_ms,
        };
        let found = self.disk.map(|stored| match world.mutation {
            Some(Mutation::ForgetsPreparation) => Stored::of(stored.record),
            Some(Mutation::PreparationCountsAsVoted) => Stored::of(stored.newest()),
            _ => stored,
        });
        let mut life = Slot::new(settings, found, now(0));
        if world.mutation == Some(Mutation::RestartWaitsOnlyUnarmed)
            && self.disk.is_some_and(|stored| stored.record.armed())
        {
            *life.grant_mut() = Time::ZERO;
        }
        let record = life.record();
        self.life = Some(life);
        if let Some(told) = self.told
            && record.is_none_or(|r| r.term < told.term || (r.term == told.term && r != told))
        {
            let disk = self.disk;
            trace.fault = Some(format!("I3: told {told:?}, but the disk has {disk:?}"));
        }
    }

    fn handle(
        &mut self,
        world: &World,
        input: Input,
        letters: &mut Vec<Letter>,
        trace: &mut Trace,
    ) {
        match world.mutation {
            Some(mutation) => mutation.manage(self, world, input, letters, trace),
            None => self.give(world, input, letters, trace),
        }
    }

    /// Gives an input to the machine and carries out what it says.
    pub fn give(
        &mut self,
        world: &World,
        input: Input,
        letters: &mut Vec<Letter>,
        trace: &mut Trace,
    ) {
        let Some(life) = &mut self.life else { return };
        let mut effects = Vec::new();
        life.handle(now(0), input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(place(to), message, letters, trace),
                Effect::Persist { stored, decision } => {
                    letters.push(Letter {
                        from: 0,
                        to: 0,
                        body: Body::Written(stored),
                    });
                    if world
                        .mutation
                        .is_some_and(|m| m.tells_too_early(self.disk, stored, decision))
                    {
                        self.give(world, Input::Persisted, letters, trace);
                    }
                }
                Effect::Decided { decision, .. } => trace.decided.push(decision),
                Effect::VoteRefused { .. } | Effect::Quarantined(_) | Effect::Released { .. } => {}
            }
        }
    }

    fn send(&mut self, to: usize, message: Message, letters: &mut Vec<Letter>, trace: &mut Trace) {
        if let Message::Info(info) = message
            && let Some(record) = info.record
        {
            let known = self.disk.map(|disk| (disk.record, disk.prepared));
            if known.is_none_or(|(there, prepared)| {
                record.term >= there.term && record != there && Some(record) != prepared
            }) {
                trace.fault = Some(format!("I3: tells {record:?}, disk has {known:?}"));
            }
            match self.told {
                Some(told) if told.term > record.term => {
                    trace.fault = Some(format!("I4: after {told:?} the manager says {record:?}"));
                }
                Some(told) if told.term == record.term && told != record => {
                    trace.fault = Some(format!("one term, two pairs: {told:?} and {record:?}"));
                }
                _ => self.told = Some(record),
            }
        }
        letters.push(Letter {
            from: 0,
            to,
            body: Body::Message(message),
        });
    }
}

impl Default for Chief {
    fn default() -> Self {
        Self::new()
    }
}

fn fold(world: &World, life: &mut Slot) {
    life.fold(now(0));
    if world.eager_arming {
        life.assume_rested();
    }
}
