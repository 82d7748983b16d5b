//! `vnfpool-prove`: explores worlds and says what holds in them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use vnfpool_prove::explore::{Explorer, Limits, Report, Verdict};
use vnfpool_prove::{story, worlds};

/// Runs the machines of succession through every history of small worlds.
#[derive(Debug, Parser)]
struct Arguments {
    /// The world to explore, or "all".
    #[arg(long, default_value = "all")]
    world: String,
    /// Stop after so many states.
    #[arg(long, default_value_t = 100_000_000)]
    max_states: usize,
    /// Stop after so many seconds in one world.
    #[arg(long, default_value_t = 3600)]
    max_seconds: u64,
    /// Stop when this process has so many MiB in memory.
    #[arg(long, default_value_t = 6144)]
    max_mib: u64,
    /// Heal one state of so many, and see whether it recovers.
    #[arg(long, default_value_t = 16)]
    recover_one_in: usize,
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    std::panic::set_hook(Box::new(|_| {}));
    let limits = Limits {
        states_max: arguments.max_states,
        bytes_max: arguments.max_mib << 20,
        time_max: Duration::from_secs(arguments.max_seconds),
        recover_one_in: arguments.recover_one_in,
    };
    let broken = worlds::broken().into_iter();
    for world in worlds::all().into_iter().chain(broken) {
        let group = if world.mutation.is_some() {
            "broken"
        } else {
            "all"
        };
        if arguments.world != group && arguments.world != world.name {
            continue;
        }
        let name = world.name;
        let mut explorer = Explorer::new(world);
        let report = explorer.run(limits, |done, known| {
            eprint!("\r{name}: {done} of {known} states");
        });
        eprintln!();
        let Report {
            states,
            moves,
            depth,
            took,
            recovery,
            parts,
            ..
        } = &report;
        let verdict = match &report.verdict {
            Verdict::Broken(_) => "BROKEN",
            Verdict::Holds => "holds",
            Verdict::Unfinished => "unfinished",
        };
        println!(
            "{name}: {verdict} states {states} moves {moves} depth {depth} took {took:?} {recovery:?} parts {parts:?}"
        );
        if let Verdict::Broken(violation) = &report.verdict {
            println!("{}", violation.what);
            println!("{}", story::tell(explorer.engine_mut(), &violation.history));
        }
    }
    ExitCode::SUCCESS
}
