//! The world as numbers. A state is one number for each of its parts; what a part does with an
//! input, and what becomes of it when a tick passes, is computed once and looked up ever after.
//! So the machines, which are the production's and not small, run as often as they have distinct
//! states, not as often as the world has.

mod moves;
mod step;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustc_hash::FxHashMap;

use crate::chief::{self, Chief};
use crate::clock::Clocks;
use crate::host::{self, Host};
use crate::intern::Interner;
use crate::letter::Letter;
use crate::moves::Move;
use crate::net::{Net, Scene};
use crate::world::{Start, World};

/// How many elements a world has at most.
pub const HOSTS_MAX: usize = 3;

/// A state of the whole world: the numbers of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    hosts: [u32; HOSTS_MAX],
    chief: u32,
    net: u32,
    scene: u32,
}

/// What a part did with an input.
#[derive(Debug)]
struct Outcome {
    next: u32,
    letters: Box<[u32]>,
    fault: Option<String>,
}

/// The parts of a world that have been seen, and what they do.
#[derive(Debug)]
pub struct Engine {
    /// The bounds.
    pub world: World,
    clocks: Clocks,
    letters: Interner<Letter>,
    nets: Interner<Net>,
    scenes: Interner<Scene>,
    hosts: Interner<Host>,
    host_views: Vec<host::View>,
    host_cues: Interner<host::Cue>,
    host_outcomes: FxHashMap<(u32, u32), u32>,
    chiefs: Interner<Chief>,
    chief_views: Vec<chief::View>,
    chief_cues: Interner<chief::Cue>,
    chief_outcomes: FxHashMap<(u32, u32), u32>,
    outcomes: Vec<Outcome>,
    aged_hosts: Vec<Option<u32>>,
    aged_chiefs: Vec<Option<u32>>,
    aged_letters: Vec<Option<u32>>,
}

impl Engine {
    /// The engine of a world in which nothing has happened yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            clocks: world.clocks(),
            world,
            letters: Interner::default(),
            nets: Interner::default(),
            scenes: Interner::default(),
            hosts: Interner::default(),
            host_views: Vec::new(),
            host_cues: Interner::default(),
            host_outcomes: FxHashMap::default(),
            chiefs: Interner::default(),
            chief_views: Vec::new(),
            chief_cues: Interner::default(),
            chief_outcomes: FxHashMap::default(),
            outcomes: Vec::new(),
            aged_hosts: Vec::new(),
            aged_chiefs: Vec::new(),
            aged_letters: Vec::new(),
        }
    }

    /// The same, with times that grow as old as they are.
    #[must_use]
    pub fn exact(world: World) -> Self {
        let mut engine = Self::new(world);
        engine.clocks.exact = true;
        engine
    }

    /// The state in which the histories begin.
    ///
    /// # Errors
    /// What is broken on the way to it.
    pub fn start(&mut self) -> Result<State, String> {
        let alone = Scene {
            stream_broken: true,
            ..Scene::default()
        };
        let off: Vec<u32> = (1..=HOSTS_MAX)
            .map(|node| self.host_number(Host::new(node)))
            .collect();
        let mut state = State {
            hosts: [off[0], off[1], off[2]],
            chief: self.chief_number(Chief::new()),
            net: self.nets.number(Net::default()),
            scene: self.scenes.number(alone),
        };
        state = self.step(state, Move::LiveManager)?;
        for node in self.world.hosts() {
            state = self.step(state, Move::Live(node_u8(node)))?;
        }
        let ticks = match self.world.start {
            Start::Cold => 0,
            Start::Alone | Start::Armed => SETTLED_TICKS,
        };
        for _ in 0..ticks {
            state = self.run_tick(state)?;
        }
        if self.world.start != Start::Alone {
            state = self.step(state, Move::MendStream)?;
        }
        if self.world.start == Start::Armed {
            for _ in 0..SETTLED_TICKS {
                state = self.run_tick(state)?;
            }
        }
        let scene = Scene {
            fresh: true,
            stream_broken: false,
            ..Scene::default()
        };
        state.scene = self.scenes.number(scene);
        Ok(state)
    }

    /// Lets everything happen that is due, undisturbed, until a tick has passed.
    ///
    /// # Errors
    /// What is broken on the way.
    pub fn run_tick(&mut self, mut state: State) -> Result<State, String> {
        loop {
            let next = self.due_move(state);
            state = self.step(state, next)?;
            if next == Move::Advance {
                return Ok(state);
            }
        }
    }

    /// What can be seen of element `node`.
    #[must_use]
    pub fn host_view(&self, state: State, node: usize) -> host::View {
        self.host_views[state.hosts[node - 1] as usize]
    }

    /// What can be seen of the manager.
    #[must_use]
    pub fn chief_view(&self, state: State) -> chief::View {
        self.chief_views[state.chief as usize]
    }

    /// The links and what has happened so far.
    #[must_use]
    pub fn scene(&self, state: State) -> Scene {
        *self.scenes.value(state.scene)
    }

    /// The letters in the order in which they arrive, then the held ones.
    #[must_use]
    pub fn letters(&self, state: State) -> (Vec<Letter>, Vec<Letter>) {
        let net = self.nets.value(state.net);
        let letter = |number: &u32| *self.letters.value(*number);
        let late = net.late.iter().map(|(_, number)| letter(number)).collect();
        (net.queue.iter().map(letter).collect(), late)
    }

    /// Whose gates are open.
    pub fn owners(&self, state: State) -> impl Iterator<Item = usize> + '_ {
        self.world
            .hosts()
            .filter(move |node| self.host_view(state, *node).open)
    }

    /// How many distinct states the parts have: elements, manager, letters.
    #[must_use]
    pub fn parts(&self) -> [usize; 3] {
        [self.hosts.len(), self.chiefs.len(), self.letters.len()]
    }

    fn host_number(&mut self, host: Host) -> u32 {
        let view = host.view();
        let (number, new) = self.hosts.add(host);
        if new {
            self.host_views.push(view);
            self.aged_hosts.push(None);
        }
        number
    }

    fn chief_number(&mut self, chief: Chief) -> u32 {
        let view = chief.view();
        let (number, new) = self.chiefs.add(chief);
        if new {
            self.chief_views.push(view);
            self.aged_chiefs.push(None);
        }
        number
    }

    fn letter_number(&mut self, letter: Letter) -> u32 {
        let (number, new) = self.letters.add(letter);
        if new {
            self.aged_letters.push(None);
        }
        number
    }

    /// What host number `host` does when `cue` happens: the number of the outcome.
    fn host_reacts(&mut self, host: u32, cue: host::Cue) -> u32 {
        let key = (host, self.host_cues.number(cue));
        if let Some(outcome) = self.host_outcomes.get(&key) {
            return *outcome;
        }
        let before = self.host_views[host as usize];
        let mut next = self.hosts.value(host).clone();
        let mut letters = Vec::new();
        let world = &self.world;
        let react = || next.react(world, cue, &mut letters);
        let mut fault = catch_unwind(AssertUnwindSafe(react)).err().map(told);
        let after = next.view();
        if before.alive
            && after.epoch < before.epoch
            && after.me == before.me
            && after.alive
            && cue != host::Cue::Restore
        {
            fault = Some(format!("I4: {} falls to {}", before.epoch, after.epoch));
        }
        let next = self.host_number(next);
        self.keep_host_outcome(key, next, letters, fault)
    }

    fn keep_host_outcome(
        &mut self,
        key: (u32, u32),
        next: u32,
        letters: Vec<Letter>,
        fault: Option<String>,
    ) -> u32 {
        let outcome = self.outcome(next, letters, fault);
        self.host_outcomes.insert(key, outcome);
        outcome
    }

    /// What manager number `chief` does when `cue` happens: the number of the outcome.
    fn chief_reacts(&mut self, chief: u32, cue: chief::Cue) -> u32 {
        let key = (chief, self.chief_cues.number(cue));
        if let Some(outcome) = self.chief_outcomes.get(&key) {
            return *outcome;
        }
        let mut next = self.chiefs.value(chief).clone();
        let mut letters = Vec::new();
        let world = &self.world;
        let react = || next.react(world, cue, &mut letters);
        let fault = match catch_unwind(AssertUnwindSafe(react)) {
            Ok(trace) => trace.fault,
            Err(panic) => Some(told(panic)),
        };
        let next = self.chief_number(next);
        let outcome = self.outcome(next, letters, fault);
        self.chief_outcomes.insert(key, outcome);
        outcome
    }

    fn outcome(&mut self, next: u32, letters: Vec<Letter>, fault: Option<String>) -> u32 {
        let letters = letters
            .into_iter()
            .map(|letter| self.letter_number(letter))
            .collect();
        let number = u32::try_from(self.outcomes.len()).unwrap_or(u32::MAX);
        self.outcomes.push(Outcome {
            next,
            letters,
            fault,
        });
        number
    }
}

/// Ticks after which an undisturbed world is as it stays.
const SETTLED_TICKS: u32 = 40;

/// A node's number in a [`Move`].
#[must_use]
pub fn node_u8(node: usize) -> u8 {
    u8::try_from(node).unwrap_or(u8::MAX)
}

/// An assertion of a machine that failed.
fn told(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a machine stops: {}", text.unwrap_or_default())
}
