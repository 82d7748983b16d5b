//! Long runs of the simulator, and replays of single histories.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use vnfpool_sim::broken::{Broken, CATALOGUE};
use vnfpool_sim::campaign::{Summary, run_many};
use vnfpool_sim::history::{PROFILES, Plan, Profile, Telling, Told, all_told, run};

/// Runs whole pools in simulated time; the end is 0 when everything held.
#[derive(Debug, Parser)]
struct Arguments {
    /// First seed; without it one from the wall clock.
    #[arg(long)]
    seed: Option<u64>,
    /// How many histories at most.
    #[arg(long, default_value_t = u64::MAX)]
    seeds: u64,
    /// For how many seconds at most, for each profile.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Which kind of histories; without it all that stay within what is promised.
    #[arg(long)]
    profile: Vec<String>,
    /// A told history instead.
    #[arg(long)]
    told: Option<String>,
    /// Only these steps of the history (of one seed).
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    keep: Option<Vec<usize>>,
    /// Break the world in this way (of one seed).
    #[arg(long)]
    broken: Option<String>,
    /// Print the timeline (of one seed).
    #[arg(long)]
    trace: bool,
}

impl Arguments {
    fn breakage(&self) -> Option<Broken> {
        let name = self.broken.as_ref()?;
        CATALOGUE
            .iter()
            .find(|row| row.name == name)
            .map(|row| row.broken)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let fresh = clock.map_or(0, |d| d.as_secs());
    let seed = arguments.seed.unwrap_or(fresh);
    if let Some(name) = &arguments.told {
        let Some(told) = Told::named(name) else {
            let names = all_told().map(|t| t.name).collect::<Vec<_>>();
            eprintln!(
                "no history is called '{name}'; there are {}",
                names.join(", ")
            );
            return ExitCode::from(2);
        };
        return tell(told, seed, &arguments);
    }
    let names = match arguments.profile.is_empty() {
        true => USUAL.map(str::to_owned).to_vec(),
        false => arguments.profile.clone(),
    };
    let mut well = true;
    for name in names {
        let Some(profile) = Profile::named(&name) else {
            let names = PROFILES.iter().map(|p| p.name).collect::<Vec<_>>();
            eprintln!(
                "no profile is called '{name}'; there are {}",
                names.join(", ")
            );
            return ExitCode::from(2);
        };
        well &= if arguments.trace || arguments.keep.is_some() {
            replay(profile, seed, &arguments)
        } else {
            many(profile, seed, &arguments)
        };
    }
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(profile: &Profile, seed: u64, arguments: &Arguments) -> bool {
    let plan = Plan::new(profile, seed);
    println!("{:?}", plan.shape);
    let telling = Telling {
        lines: arguments.trace,
        aloud: arguments.trace,
        broken: arguments.breakage(),
        keep: arguments.keep.clone(),
        ..Telling::default()
    };
    let outcome = run(&plan, &telling);
    println!("trace {:016x}, {} events", outcome.digest, outcome.events);
    if let Some((reason, violation)) = &outcome.declared {
        println!(
            "out of bounds ({reason}): {}: {}",
            violation.invariant, violation.text
        );
    }
    if let Some(violation) = &outcome.violation {
        println!("VIOLATED: {}: {}", violation.invariant, violation.text);
    }
    outcome.violation.is_none()
}

fn tell(told: &Told, seed: u64, arguments: &Arguments) -> ExitCode {
    let telling = Telling {
        lines: arguments.trace,
        aloud: arguments.trace,
        broken: arguments.breakage(),
        ..Telling::default()
    };
    for seed in seed..seed + arguments.seeds.min(TOLD_SEEDS_MAX) {
        if let Some(violation) = told.run(seed, &telling).violation {
            println!(
                "VIOLATED with seed {seed}: {}: {}",
                violation.invariant, violation.text
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Within what is promised.
const USUAL: [&str; 6] = ["storm", "blinks", "single", "serve", "lone", "lone-serve"];

/// A told history has little chance in it.
const TOLD_SEEDS_MAX: u64 = 1_000;

fn many(profile: &'static Profile, seed: u64, arguments: &Arguments) -> bool {
    println!("profile {}, from seed {seed} on", profile.name);
    let limit = Duration::from_secs(arguments.seconds);
    let mut told = Instant::now();
    let progress = |summary: &Summary| {
        if told.elapsed() >= Duration::from_secs(10) {
            told = Instant::now();
            let (seeds, simulated) = (summary.seeds, summary.simulated.as_secs());
            println!("... {seeds} seeds, {simulated} simulated seconds");
        }
    };
    let summary = run_many(profile, seed, arguments.seeds, limit, progress);
    if let Some(failure) = &summary.failure {
        println!("{failure}");
    }
    println!("{summary}");
    summary.failure.is_none()
}
