//! `vnfpool-prove`: explores worlds and says what holds in them.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use serde::Serialize;
use vnfpool_prove::explore::{Explorer, Limits, RECOVER_ONE_IN, Report, Verdict};
use vnfpool_prove::world::World;
use vnfpool_prove::{story, worlds};

/// Runs the machines of succession through every history of small worlds.
#[derive(Debug, Parser)]
struct Arguments {
    /// A world, or "all"; "broken": machines that are broken on purpose; "declared": worlds in which
    /// something is known not to hold.
    #[arg(long, default_value = "all")]
    world: String,
    /// Stop after so many states of a world.
    #[arg(long, default_value_t = 100_000_000)]
    max_states: usize,
    /// Stop after so many seconds in a world.
    #[arg(long, default_value_t = 3600)]
    max_seconds: u64,
    /// Stop when this process has so many MiB in memory.
    #[arg(long, default_value_t = 6144)]
    max_mib: u64,
    /// Heal one state of so many, to see whether it recovers; 0: none.
    #[arg(long, default_value_t = RECOVER_ONE_IN)]
    recover_one_in: usize,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

/// What is said of a world.
#[derive(Debug, Serialize)]
struct Line {
    world: &'static str,
    about: &'static str,
    verdict: &'static str,
    states: usize,
    moves: u64,
    depth: usize,
    seconds: f64,
    healed: u64,
    recovered_within_ticks: u32,
}

fn main() -> ExitCode {
    match explore_all(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Explores the chosen worlds; whether each does what is expected of it.
fn explore_all(arguments: &Arguments) -> anyhow::Result<bool> {
    // An assertion of a machine is a finding, told with its history.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout();
    let chosen = chosen(&arguments.world)?;
    if !arguments.json {
        writeln!(out, "{HEAD}").context("cannot print")?;
    }
    let mut as_expected = true;
    for (to_hold, world) in chosen {
        let mut explorer = Explorer::new(world.clone());
        let report = explorer.run(limits(arguments), |done, known| {
            let _ = write!(
                std::io::stderr(),
                "\r{}: {done} of {known} states",
                world.name
            );
        });
        let _ = writeln!(std::io::stderr());
        let line = line(&world, &report);
        let text = if arguments.json {
            serde_json::to_string(&line).context("cannot print")?
        } else {
            line.row()
        };
        writeln!(out, "{text}").context("cannot print")?;
        let broken = matches!(report.verdict, Verdict::Broken(_));
        as_expected &= broken != to_hold;
        if let Verdict::Broken(violation) = &report.verdict {
            let story = story::tell(explorer.engine_mut(), &violation.history);
            let _ = writeln!(std::io::stderr(), "{}\n{story}", violation.what);
        }
    }
    Ok(as_expected)
}

/// The worlds of that name or group, and whether everything has to hold in them.
fn chosen(name: &str) -> anyhow::Result<Vec<(bool, World)>> {
    let groups = [
        ("all", true, worlds::all()),
        ("broken", false, worlds::broken()),
        ("declared", false, worlds::declared()),
    ];
    let mut chosen = Vec::new();
    for (group, holds, worlds) in groups {
        let wanted = worlds
            .into_iter()
            .filter(|w| name == group || name == w.name);
        chosen.extend(wanted.map(|world| (holds, world)));
    }
    if chosen.is_empty() {
        bail!("there is no world {name:?}; \"all\", \"broken\" and \"declared\" are groups");
    }
    Ok(chosen)
}

const fn limits(arguments: &Arguments) -> Limits {
    Limits {
        states_max: arguments.max_states,
        bytes_max: arguments.max_mib << 20,
        time_max: Duration::from_secs(arguments.max_seconds),
        recover_one_in: arguments.recover_one_in,
    }
}

fn line(world: &World, report: &Report) -> Line {
    Line {
        world: world.name,
        about: world.about,
        verdict: match report.verdict {
            Verdict::Holds => "holds",
            Verdict::Unfinished => "holds in those seen",
            Verdict::Broken(_) => "broken",
        },
        states: report.states,
        moves: report.moves,
        depth: report.depth,
        seconds: report.took.as_secs_f64(),
        healed: report.recovery.tried,
        recovered_within_ticks: report.recovery.ticks_max,
    }
}

const HEAD: &str = "| world | what may happen | states | moves | depth | s | healed | ticks | verdict |\n\
                    |---|---|---|---|---|---|---|---|---|";

impl Line {
    /// A row of the table in docs/succession.md.
    fn row(&self) -> String {
        format!(
            "| {} | {} | {} | {} | {} | {:.1} | {} | {} | {} |",
            self.world,
            self.about,
            self.states,
            self.moves,
            self.depth,
            self.seconds,
            self.healed,
            self.recovered_within_ticks,
            self.verdict
        )
    }
}
