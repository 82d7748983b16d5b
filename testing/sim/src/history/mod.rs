//! A history: a pool begins, suffers faults, and has to recover when they are over.

mod plan;
mod profile;
mod told;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use plan::{Plan, Step, Wait};
pub use profile::{PROFILES, Profile, Style};
pub use told::{Told, all_told};
use vnfpool_succession::manager::QUARANTINE_MAX;

use crate::broken::{Breakage, Broken};
use crate::faults::{self, HALF_BOUND_PPM};
use crate::invariants::{Invariant, Violation};
use crate::trace::Trace;
use crate::world::{MS, Shape, World};
use vnfpool_random::Random;

/// How long it takes at most, after the last fault is over, until there are one holder and an
/// armed successor in each slot: the longest back-off before a standby is armed again (8 s), two
/// manager leases, and the rest for a snapshot, keys and elections.
pub const RECOVERY_NS_MAX: u64 = 15_000 * MS;

/// A pool may wait so long for somebody in quarantine before that.
const QUARANTINE_NS_MAX: u64 = QUARANTINE_MAX.as_secs() * 1_000 * MS;

/// Complete for so long: no vote is under way, no copy turns out to be old, and the active has
/// renounced its manager lease.
const SETTLED_NS: u64 = 700 * MS;

/// Afterwards nothing changes for so long.
const QUIET_NS: u64 = 3_000 * MS;

/// How a history is told.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    /// Keep the timeline.
    pub lines: bool,
    /// And print it.
    pub aloud: bool,
    /// Only these steps, by their number; none: all.
    pub keep: Option<Vec<usize>>,
    /// What is wrong with the world on purpose.
    pub broken: Option<Broken>,
    /// Only this property counts.
    pub only: Option<Invariant>,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What did not hold.
    pub violation: Option<Violation>,
    /// What did not hold after the world had left the bounds of what is promised, and why.
    pub declared: Option<(&'static str, Violation)>,
    /// Equal for equal histories.
    pub digest: u64,
    /// Simulated time.
    pub simulated_ns: u64,
    /// Events of the simulation.
    pub events: u64,
    /// How often each kind of [`faults::ALL`] was injected.
    pub faults: Vec<u64>,
    /// Records that came into force.
    pub records: u64,
    /// Changes of role, at all elements.
    pub roles: u64,
    /// Records that were prepared (5n): in force at once, and when the disk had them.
    pub prepared: [u64; 2],
    /// Records that a new life of the manager found prepared.
    pub presumed: u64,
    /// From the end of the faults until the pool was complete.
    pub recovery_ns: u64,
    /// The longest outage that a single fault cost, where a bound is stated.
    pub outage_ns: u64,
    /// The timeline.
    pub lines: Vec<String>,
}

/// Runs the history of `plan`.
#[must_use]
pub fn run(plan: &Plan, telling: &Telling) -> Outcome {
    let mut outcome = Outcome {
        faults: vec![0; faults::ALL.len()],
        ..Outcome::default()
    };
    let mut world = begin(plan.seed, &plan.shape, telling);
    world.streams.healthy = !plan.lone;
    finish(&mut world, &mut outcome, |world, outcome| {
        tell(world, plan, telling, outcome);
    });
    outcome
}

/// A pool that begins.
fn begin(seed: u64, shape: &Shape, telling: &Telling) -> World {
    let trace = Trace::new(telling.lines, telling.aloud);
    let breakage = Breakage::new(telling.broken, shape);
    let mut world = World::new(seed, shape.clone(), breakage, trace);
    world.checks.only = telling.only;
    if shape.drift_ppm > HALF_BOUND_PPM {
        world.checks.out_of_bounds = Some("clocks drift beyond the bound");
    }
    world.start_manager();
    for node in world.elements() {
        // Beats of different machines have different phases.
        let pause = world.random.below(40 * MS);
        world.run_for(pause);
        world.start(node);
    }
    world
}

/// Tells a history in `world`, and notes what came out.
fn finish(world: &mut World, outcome: &mut Outcome, tell: impl FnOnce(&mut World, &mut Outcome)) {
    let told = catch_unwind(AssertUnwindSafe(|| tell(world, outcome)));
    if told.is_err() {
        let text = "a machine's assertion failed; its message is above".to_owned();
        world.checks.fail(Invariant::Assertion, text);
    }
    outcome.violation = world.checks.violation.take();
    let declared = world.checks.declared.take();
    outcome.declared = world.checks.out_of_bounds.zip(declared);
    outcome.digest = world.trace.digest();
    outcome.simulated_ns = world.now;
    outcome.events = world.events;
    (outcome.records, outcome.roles) = world.checks.changes();
    outcome.prepared = world.manager.prepared;
    outcome.presumed = world.manager.presumed;
    outcome.lines = world.trace.lines().map(str::to_owned).collect();
}

fn tell(world: &mut World, plan: &Plan, telling: &Telling, outcome: &mut Outcome) {
    let arms = !plan.lone;
    if plan.style == Style::Storm {
        world.run_for(2_500 * MS);
    } else {
        recover(world, outcome, arms);
    }
    for (number, step) in plan.steps.iter().enumerate() {
        if telling
            .keep
            .as_ref()
            .is_some_and(|keep| !keep.contains(&number))
        {
            continue;
        }
        if !world.is_well() {
            return;
        }
        match step.wait {
            Wait::Pause(ns) => world.run_for(ns),
            Wait::Moment(moment, ns) => world.run_to(moment, ns),
        }
        outcome.faults[step.fault] += 1;
        let fault = &faults::ALL[step.fault];
        world.note(|| format!("--- step {number}: {}", fault.name));
        world.checks.fault();
        if plan.style == Style::Storm {
            (fault.inject)(world, &mut Random::new(step.seed));
        } else {
            suffer(world, step, outcome, arms);
        }
    }
    recover(world, outcome, true);
    stay_quiet(world);
}

/// A single fault, which lasts, then ends.
fn suffer(world: &mut World, step: &Step, outcome: &mut Outcome, arms: bool) {
    let fault = &faults::ALL[step.fault];
    let now = world.now;
    world.checks.outage.iter_mut().for_each(|o| o.begin(now));
    (fault.inject)(world, &mut Random::new(step.seed));
    world.run_for(step.lasts);
    let now = world.now;
    let worst = world.checks.outage.iter().map(|outage| outage.worst(now));
    let worst = worst.max().unwrap_or(0);
    if let Some(bound) = step.outage_ns_max {
        outcome.outage_ns = outcome.outage_ns.max(worst);
        if worst > bound {
            let text = format!(
                "{} cost {} ms, allowed are {} ms",
                fault.name,
                worst / MS,
                bound / MS
            );
            world.checks.fail(Invariant::OutageBound, text);
        }
    }
    recover(world, outcome, arms);
}

/// All faults are over: in time there are one holder and an armed successor in each slot. Unless
/// `arms`, no stream carries, and one holder is all that there can be.
fn recover(world: &mut World, outcome: &mut Outcome, arms: bool) {
    if !world.is_well() {
        return;
    }
    world.note(|| "--- all faults are over".to_owned());
    world.checks.fault();
    faults::end_all(world);
    world.streams.healthy = arms;
    faults::revive_all(world);
    // Most operators help who has flapped; the others wait until its quarantine is over.
    if !world.patient {
        world.pardon();
    }
    let since = world.now;
    let mut until = since + RECOVERY_NS_MAX;
    let complete = |world: &World| match arms {
        true => world.complete(),
        false => world.served(),
    };
    let mut complete_at = None;
    while world.is_well() && world.now < until {
        world.run_for(20 * MS);
        let longest = since + QUARANTINE_NS_MAX;
        if world.has_quarantined() && world.now < longest {
            until = world.now + RECOVERY_NS_MAX;
        }
        if !complete(world) {
            complete_at = None;
        } else if world.now - *complete_at.get_or_insert(world.now) >= SETTLED_NS {
            break;
        }
    }
    let took = complete_at.unwrap_or(world.now) - since;
    outcome.recovery_ns = outcome.recovery_ns.max(took);
    if !complete(world) {
        let slots = 0..world.shape.slots;
        let state: Vec<_> = slots
            .map(|slot| (world.holders(slot).collect::<Vec<_>>(), world.armed(slot)))
            .collect();
        let text = format!(
            "{} ms after the last fault, (holders, armed) of the slots: {state:?}",
            RECOVERY_NS_MAX / MS
        );
        world.checks.fail(Invariant::Liveness, text);
    }
}

/// A pool without faults keeps its records.
fn stay_quiet(world: &mut World) {
    let before = world.checks.changes();
    world.run_for(QUIET_NS);
    let after = world.checks.changes();
    if before != after {
        let text = format!("a pool without faults goes from {before:?} changes to {after:?}");
        world.checks.fail(Invariant::RoleChanges, text);
    }
    if world.is_well() && !world.complete() {
        let text = "a pool without faults is not complete any more".to_owned();
        world.checks.fail(Invariant::Liveness, text);
    }
}
