//! The published figures: every scenario, ours in both profiles and the rival's, in one run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::{Summary, bench_page, check_writable};
use crate::run::{Rival, RunOptions, Scheduling, lab_run};
use crate::scenarios;
use crate::signals;
use crate::vnfpool::Profile;

/// keepalived at its protocol's minimum: its best figures.
const ADVERT: Duration = Duration::from_millis(10);

/// The scenarios, each with its usual number of runs: 20 where a figure is promised; a minute of
/// full load, and ten of a mixed one, are enough once.
const SCENARIOS: &[(&str, u32)] = &[
    ("silent", 20),
    ("freeze", 20),
    ("kill", 20),
    ("vnf-fail", 20),
    ("switchover", 20),
    ("switchback", 20),
    ("stop", 20),
    ("agent-kill", 20),
    ("agent-upgrade", 20),
    ("link", 20),
    ("partition", 20),
    ("heal", 20),
    ("manager-kill", 20),
    ("quorum-loss", 20),
    ("load", 1),
    ("load-long", 1),
];

/// What [`bench()`] is asked to do.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Only these scenarios; empty: all.
    pub scenarios: Vec<String>,
    /// How many runs of each, instead of the usual number.
    pub runs: Option<u32>,
    /// Whether the rival runs beside us.
    pub rival: bool,
    /// One JSON object a system and scenario instead of tables.
    pub json: bool,
    /// Where to write the tables in Markdown, anew after each scenario.
    pub report: PathBuf,
}

/// Measures the published figures. Returns whether every scenario could be measured; one that could
/// not is named in the report, and the others go on.
///
/// # Errors
/// When a scenario does not exist, when the report cannot be written, or on an interrupt.
pub fn bench(
    options: &BenchOptions,
    output: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<bool> {
    let mut summaries: Vec<Summary> = Vec::new();
    let mut failures: Vec<String> = Vec::new();
    let selected = selected(&options.scenarios)?;
    crate::need_root("vnfpool bench")?;
    check_writable(&options.report)?;
    announce_long(&selected, options.runs, progress)?;
    for (scenario, runs) in selected {
        for profile in [Profile::Default, Profile::Fast] {
            let with_rival = options.rival && profile == Profile::Default;
            let rivals = if with_rival {
                rivals(&scenario)?
            } else {
                Vec::new()
            };
            let run = RunOptions {
                scenario: scenario.clone(),
                runs: options.runs.unwrap_or(runs),
                own: true,
                profile,
                rivals,
                json: options.json,
                keep: false,
            };
            match lab_run(&run, output, progress) {
                Ok(measured) => summaries.extend(measured),
                Err(error) => {
                    signals::check()?;
                    let failure = format!("{scenario}, {}: {error:#}", profile.name());
                    writeln!(progress, "not measured: {failure}")?;
                    failures.push(failure);
                }
            }
            output.flush()?;
            std::fs::write(&options.report, bench_page(&summaries, &failures))
                .with_context(|| format!("writing {}", options.report.display()))?;
        }
    }
    writeln!(progress, "written: {}", options.report.display())?;
    Ok(failures.is_empty())
}

/// Says beforehand which scenarios take long.
fn announce_long(
    selected: &[(String, u32)],
    runs: Option<u32>,
    progress: &mut dyn Write,
) -> Result<()> {
    for (name, usual) in selected {
        let lasts = scenarios::by_name(name)?.lasts();
        let minutes =
            lasts.map_or(0, |lasts| lasts.as_secs() / 60) * u64::from(runs.unwrap_or(*usual));
        if minutes > 0 {
            writeln!(
                progress,
                "{name}: {minutes} minutes for each system and profile"
            )?;
        }
    }
    Ok(())
}

/// The rival at its best; where nothing is broken, also as its package runs it, for which real-time
/// scheduling is the cure.
fn rivals(scenario: &str) -> Result<Vec<Rival>> {
    let keepalived = |scheduling| Rival::Keepalived {
        advert: ADVERT,
        scheduling,
    };
    let mut rivals = vec![keepalived(Scheduling::RealTime)];
    if scenarios::by_name(scenario)?.breaks_nothing() {
        rivals.push(keepalived(Scheduling::Ordinary));
    }
    Ok(rivals)
}

fn selected(names: &[String]) -> Result<Vec<(String, u32)>> {
    if names.is_empty() {
        let all = SCENARIOS
            .iter()
            .map(|(name, runs)| ((*name).to_owned(), *runs));
        return Ok(all.collect());
    }
    let runs_of = |name: &String| {
        scenarios::by_name(name)?;
        let usual = SCENARIOS.iter().find(|(known, _)| known == name);
        Ok((name.clone(), usual.map_or(5, |(_, runs)| *runs)))
    };
    names.iter().map(runs_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_scenarios_exist() {
        for (name, _) in SCENARIOS {
            assert!(scenarios::by_name(name).is_ok(), "{name}");
        }
    }

    /// Goal: whoever starts hours of measuring is told what takes ten minutes a system.
    #[test]
    fn long_scenarios_are_announced() {
        let mut told = Vec::new();
        let selected = [("kill".to_owned(), 20), ("load-long".to_owned(), 1)];
        announce_long(&selected, None, &mut told).unwrap();
        announce_long(&selected, Some(3), &mut told).unwrap();
        let told = String::from_utf8(told).unwrap();
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines,
            [
                "load-long: 10 minutes for each system and profile",
                "load-long: 30 minutes for each system and profile",
            ]
        );
    }

    #[test]
    fn unknown_scenarios_are_refused_before_anything_runs() {
        let error = selected(&["silent".into(), "sleep".into()]).unwrap_err();
        assert!(error.to_string().contains("sleep"), "{error}");
        assert_eq!(selected(&["load".into()]).unwrap(), [("load".into(), 1)]);
    }
}
