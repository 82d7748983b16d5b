//! Many histories: from a seed on, until there are enough or time is up.

use std::fmt;
use std::time::{Duration, Instant};

use crate::faults;
use crate::history::{Outcome, Plan, Profile, Telling, run};

/// A history that violates something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The profile's name.
    pub profile: &'static str,
    /// The seed.
    pub seed: u64,
    /// The steps that are needed for it.
    pub steps: Vec<usize>,
    /// What came out.
    pub outcome: Outcome,
}

/// What many histories came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many.
    pub seeds: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// Events.
    pub events: u64,
    /// How often each kind of [`faults::ALL`] was injected.
    pub faults: Vec<u64>,
    /// Records that came into force.
    pub records: u64,
    /// Changes of role.
    pub roles: u64,
    /// Records that were prepared (5n): in force at once, and when the disk had them.
    pub prepared: [u64; 2],
    /// Records that a new life of the manager found prepared.
    pub presumed: u64,
    /// The longest recovery after the end of all faults, and its seed.
    pub recovery: (Duration, u64),
    /// The longest outage of a single fault with a bound, and its seed.
    pub outage: (Duration, u64),
    /// Histories in which something did not hold outside of the bounds, by reason.
    pub declared: u64,
    /// The first one that fails.
    pub failure: Option<Failure>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.simulated += Duration::from_nanos(outcome.simulated_ns);
        self.events += outcome.events;
        self.faults.resize(outcome.faults.len(), 0);
        let sums = self.faults.iter_mut().zip(&outcome.faults);
        sums.for_each(|(sum, count)| *sum += count);
        self.records += outcome.records;
        self.roles += outcome.roles;
        let sums = self.prepared.iter_mut().zip(outcome.prepared);
        sums.for_each(|(sum, count)| *sum += count);
        self.presumed += outcome.presumed;
        let worse = |worst: &mut (Duration, u64), ns| {
            *worst = (*worst).max((Duration::from_nanos(ns), seed));
        };
        worse(&mut self.recovery, outcome.recovery_ns);
        worse(&mut self.outage, outcome.outage_ns);
        self.declared += u64::from(outcome.declared.is_some());
    }
}

/// Runs histories from `seed` on, until `seeds` are done, `limit` is over or one fails; `progress`
/// is told of each.
pub fn run_many(
    profile: &'static Profile,
    seed: u64,
    seeds: u64,
    limit: Duration,
    mut progress: impl FnMut(&Summary),
) -> Summary {
    let began = Instant::now();
    let mut summary = Summary::default();
    for seed in seed..seed.saturating_add(seeds) {
        if began.elapsed() >= limit {
            break;
        }
        let plan = Plan::new(profile, seed);
        let outcome = run(&plan, &Telling::default());
        summary.add(seed, &outcome);
        summary.took = began.elapsed();
        progress(&summary);
        if outcome.violation.is_some() {
            summary.failure = Some(explain(profile, &plan, &Telling::default()));
            break;
        }
    }
    summary
}

/// Finds the steps that are needed for a failure, and its timeline.
#[must_use]
pub fn explain(profile: &'static Profile, plan: &Plan, telling: &Telling) -> Failure {
    let told_again = |keep: &[usize], lines| {
        let telling = Telling {
            lines,
            keep: Some(keep.to_vec()),
            ..telling.clone()
        };
        run(plan, &telling)
    };
    let mut steps: Vec<usize> = (0..plan.steps.len()).collect();
    let wanted = told_again(&steps, false).violation.map(|v| v.invariant);
    let mut length = steps.len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < steps.len() {
            let until = (from + length).min(steps.len());
            let fewer = [&steps[..from], &steps[until..]].concat();
            let fails = told_again(&fewer, false).violation;
            if fails.is_some_and(|v| Some(v.invariant) == wanted) {
                steps = fewer;
            } else {
                from = until;
            }
        }
        length /= 2;
    }
    let outcome = told_again(&steps, true);
    Failure {
        profile: profile.name,
        seed: plan.seed,
        steps,
        outcome,
    }
}

/// Lines of the timeline that a report shows.
const LINES_SHOWN: usize = 150;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = &self.outcome.lines;
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            writeln!(f, "{line}")?;
        }
        if let Some(violation) = &self.outcome.violation {
            writeln!(f, "VIOLATED: {}: {}", violation.invariant, violation.text)?;
        }
        let keep = self.steps.iter().map(usize::to_string);
        write!(
            f,
            "replay with: cargo run --release -p vnfpool-sim -- --profile {} --seed {} --seeds 1 --keep {} --trace",
            self.profile,
            self.seed,
            keep.collect::<Vec<_>>().join(",")
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.simulated.as_secs_f64() / self.took.as_secs_f64().max(1e-9);
        writeln!(
            f,
            "{} seeds, {:.0} simulated seconds, {rate:.0} of them per second, {} events",
            self.seeds,
            self.simulated.as_secs_f64(),
            self.events
        )?;
        let faults = faults::ALL.iter().zip(&self.faults);
        let faults = faults.filter(|(_, count)| **count > 0);
        let faults: Vec<_> = faults.map(|(f, n)| format!("{} {n}", f.name)).collect();
        writeln!(f, "faults: {}", faults.join(", "))?;
        writeln!(
            f,
            "{} records, {} changes of role",
            self.records, self.roles
        )?;
        let [in_time, awaited] = self.prepared;
        writeln!(
            f,
            "prepared records: {in_time} in time, {awaited} waited for, {} found by a new manager",
            self.presumed
        )?;
        let (recovery, of) = self.recovery;
        write!(
            f,
            "longest recovery {} ms (seed {of})",
            recovery.as_millis()
        )?;
        let (outage, of) = self.outage;
        if outage > Duration::ZERO {
            write!(
                f,
                ", longest outage of a single fault {} ms (seed {of})",
                outage.as_millis()
            )?;
        }
        if self.declared > 0 {
            write!(
                f,
                "\n{} histories violate something outside of the bounds",
                self.declared
            )?;
        }
        Ok(())
    }
}
