//! The published figures: every scenario, ours in both profiles and the rival's, in one run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::{Summary, bench_page};
use crate::run::{Rival, RunOptions, lab_run};
use crate::scenarios;
use crate::signals;
use crate::vnfpool::Profile;

/// keepalived at its protocol's minimum: its best figures.
const ADVERT: Duration = Duration::from_millis(10);

/// The scenarios, each with its usual number of runs: 20 where a figure is promised; a minute of
/// full load is enough once.
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
    for (scenario, runs) in selected(&options.scenarios)? {
        for profile in [Profile::Default, Profile::Fast] {
            let with_rival = options.rival && profile == Profile::Default;
            let rival = with_rival.then_some(Rival::Keepalived { advert: ADVERT });
            let run = RunOptions {
                scenario: scenario.clone(),
                runs: options.runs.unwrap_or(runs),
                own: true,
                profile,
                rivals: rival.into_iter().collect(),
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

    #[test]
    fn unknown_scenarios_are_refused_before_anything_runs() {
        let error = selected(&["silent".into(), "sleep".into()]).unwrap_err();
        assert!(error.to_string().contains("sleep"), "{error}");
        assert_eq!(selected(&["load".into()]).unwrap(), [("load".into(), 1)]);
    }
}
