//! Every history of a world, breadth first: the first violation found is one of the shortest.
//!
//! A state is kept where the histories branch and at every tick; between, where only one thing can
//! happen, the one thing happens.

use std::time::{Duration, Instant};

use crate::engine::{Engine, State};
use crate::intern::Interner;
use crate::liveness::{self, Recovery};
use crate::moves::Move;
use crate::world::World;

/// One state in so many is healed by default.
pub const RECOVER_ONE_IN: usize = 16;

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many states at most.
    pub states_max: usize,
    /// So much memory of this process at most, in bytes.
    pub bytes_max: u64,
    /// So long at most.
    pub time_max: Duration,
    /// One state of so many is healed, to see whether it recovers; 0: none.
    pub recover_one_in: usize,
}

/// What the exploration has found.
#[derive(Debug)]
pub enum Verdict {
    /// All states were seen, and everything holds in each.
    Holds,
    /// A limit was reached before all were seen; everything holds in those seen.
    Unfinished,
    /// Something does not hold.
    Broken(Violation),
}

/// What does not hold, and how it comes about.
#[derive(Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// The moves from the beginning.
    pub history: Vec<Move>,
}

/// The figures of an exploration.
#[derive(Debug)]
pub struct Report {
    /// What was found.
    pub verdict: Verdict,
    /// States kept.
    pub states: usize,
    /// Moves made, those between kept states included.
    pub moves: u64,
    /// The most moves that branch, on a shortest way to any state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What healed states did.
    pub recovery: Recovery,
    /// Distinct states of elements, of the manager, distinct letters.
    pub parts: [usize; 3],
}

/// The exploration of a world.
#[derive(Debug)]
pub struct Explorer {
    engine: Engine,
    states: Interner<State>,
    /// For each state where it came from, and by which move.
    parents: Vec<(u32, u16)>,
    moves: u64,
    recovery: Recovery,
}

impl Explorer {
    /// Nothing is seen yet.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self {
            engine: Engine::new(world),
            states: Interner::default(),
            parents: Vec::new(),
            moves: 0,
            recovery: Recovery::default(),
        }
    }

    /// Explores the world within the limits; tells `progress` about it now and then.
    pub fn run(&mut self, limits: Limits, mut progress: impl FnMut(usize, usize)) -> Report {
        let began = Instant::now();
        let mut depth = 0;
        let verdict = match self.engine.start() {
            Err(what) => broken(what, Vec::new()),
            Ok(start) => {
                self.states.add(start);
                self.parents.push((0, 0));
                self.explore(began, limits, &mut depth, &mut progress)
            }
        };
        Report {
            verdict,
            states: self.states.len(),
            moves: self.moves,
            depth,
            took: began.elapsed(),
            recovery: self.recovery,
            parts: self.engine.parts(),
        }
    }

    /// The engine, to tell a history with.
    pub const fn engine_mut(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn explore(
        &mut self,
        began: Instant,
        limits: Limits,
        depth: &mut usize,
        progress: &mut impl FnMut(usize, usize),
    ) -> Verdict {
        let mut moves = Vec::new();
        let mut level_end = 1;
        let mut index = 0;
        while index < self.states.len() {
            if index == level_end {
                *depth += 1;
                level_end = self.states.len();
            }
            if index % CHECK_EVERY == 0 {
                progress(index, self.states.len());
                if self.states.len() > limits.states_max
                    || began.elapsed() > limits.time_max
                    || resident_bytes() > limits.bytes_max
                {
                    return Verdict::Unfinished;
                }
            }
            let state = *self.states.value(number(index));
            self.engine.moves(state, &mut moves);
            let term = self.engine.chief_view(state).told.map_or(0, |r| r.term);
            if term > self.engine.world.term_max {
                moves.clear();
            }
            for next in moves.clone() {
                match self.follow(state, next) {
                    Ok(reached) => {
                        if self.states.add(reached).1 {
                            self.parents.push((number(index), next.pack()));
                        }
                    }
                    Err(what) => return broken(what, self.history(number(index), Some(next))),
                }
            }
            let sampled = limits.recover_one_in != 0 && index % limits.recover_one_in == 0;
            if sampled && self.engine.scene(state).fresh {
                let recovered = liveness::recover(&mut self.engine, state, &mut self.recovery);
                if let Err(what) = recovered {
                    return broken(what, self.history(number(index), None));
                }
            }
            index += 1;
        }
        Verdict::Holds
    }

    /// Makes a move, and those after it that have no alternative.
    fn follow(&mut self, state: State, first: Move) -> Result<State, String> {
        let mut moves = Vec::new();
        let (mut state, mut next) = (state, first);
        loop {
            state = self.engine.step(state, next)?;
            self.moves += 1;
            if next == Move::Advance {
                return Ok(state);
            }
            self.engine.moves(state, &mut moves);
            let [only] = moves[..] else { return Ok(state) };
            next = only;
        }
    }

    /// All moves to the state with this number, and then `last` with what follows from it.
    fn history(&mut self, number: u32, last: Option<Move>) -> Vec<Move> {
        let mut branches: Vec<Move> = last.into_iter().collect();
        let mut at = number;
        while at != 0 {
            let (parent, by) = self.parents[at as usize];
            branches.push(Move::unpack(by));
            at = parent;
        }
        branches.reverse();
        self.with_forced_moves(&branches)
    }

    /// The branching moves with those between them.
    fn with_forced_moves(&mut self, branches: &[Move]) -> Vec<Move> {
        let mut history = Vec::new();
        let mut state = *self.states.value(0);
        let mut moves = Vec::new();
        for branch in branches {
            let mut next = *branch;
            loop {
                history.push(next);
                let Ok(reached) = self.engine.step(state, next) else {
                    return history;
                };
                state = reached;
                if next == Move::Advance {
                    break;
                }
                self.engine.moves(state, &mut moves);
                let [only] = moves[..] else { break };
                next = only;
            }
        }
        history
    }
}

const CHECK_EVERY: usize = 1 << 14;

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

const fn broken(what: String, history: Vec<Move>) -> Verdict {
    Verdict::Broken(Violation { what, history })
}

/// What this process has in memory; 0 where the kernel does not say.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096
}
