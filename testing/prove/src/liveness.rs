//! Whether a world recovers: all faults end, everything that is due happens in its order, and
//! within a bounded number of ticks exactly one element serves, and goes on serving.

use crate::engine::{Engine, State, node_u8};
use crate::moves::Move;

/// What healed states did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recovery {
    /// How many states were healed.
    pub tried: u64,
    /// The most ticks until exactly one element served, and went on.
    pub ticks_max: u32,
}

/// Heals the state and follows it.
///
/// # Errors
/// It does not recover, or breaks something on the way.
pub fn recover(engine: &mut Engine, state: State, recovery: &mut Recovery) -> Result<(), String> {
    let mut state = heal(engine, state)?;
    let mut served_since = None;
    for tick in 0..WATCHED_TICKS {
        state = engine.run_tick(state)?;
        match engine.owners(state).count() {
            1 => served_since = served_since.or(Some(tick)),
            _ => served_since = None,
        }
    }
    let Some(ticks) = served_since.filter(|tick| *tick < RECOVERED_TICKS) else {
        return Err("all faults are over, but nobody serves".into());
    };
    recovery.tried += 1;
    recovery.ticks_max = recovery.ticks_max.max(ticks + 1);
    Ok(())
}

/// Everything lives, works and is connected; what is held arrives.
fn heal(engine: &mut Engine, mut state: State) -> Result<State, String> {
    state = engine.step(state, Move::Heal)?;
    state = engine.step(state, Move::MendStream)?;
    if !engine.chief_view(state).alive {
        state = engine.step(state, Move::LiveManager)?;
    }
    for node in engine.world.hosts() {
        let view = engine.host_view(state, node);
        let n = node_u8(node);
        if !view.alive {
            state = engine.step(state, Move::Live(n))?;
        } else if !view.awake {
            state = engine.step(state, Move::Thaw(n))?;
        }
        if !view.able {
            state = engine.step(state, Move::Repair(n))?;
        }
    }
    while !engine.letters(state).1.is_empty() {
        state = engine.step(state, Move::Arrive(0))?;
    }
    Ok(state)
}

/// A healed world is watched for so long.
const WATCHED_TICKS: u32 = 60;

/// A healed world that takes longer hangs.
const RECOVERED_TICKS: u32 = 45;
