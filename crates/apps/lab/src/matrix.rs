//! Every fault of the laboratory, ours and the rival's, in one table.
//!
//! The bench measures a few figures often; the matrix asks of every fault there is whether an
//! address ever had two owners, whether connections lived, whether the service moved where nothing
//! was broken, and whether the pool came back.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::report::{MatrixReport, MatrixRow, Outcome, matrix_markdown, matrix_page, matrix_table};
use crate::rival::install_missing;
use crate::run::{Contender, Rival, Scheduling, measure};
use crate::scenarios::{self, Scenario};
use crate::signals;
use crate::vnfpool::Profile;

/// keepalived at its protocol's minimum: its best figures.
const ADVERT: Duration = Duration::from_millis(10);

/// What [`matrix()`] is asked to do.
#[derive(Debug, Clone)]
pub struct MatrixOptions {
    /// Only these scenarios; empty: all.
    pub scenarios: Vec<String>,
    /// Only the few scenarios that are over in a minute together.
    pub smoke: bool,
    /// How many runs of each.
    pub runs: u32,
    /// The timing profile of the pool.
    pub profile: Profile,
    /// Whether the rival goes through the same faults.
    pub rival: bool,
    /// One JSON object a system and scenario instead of a table.
    pub json: bool,
    /// Where to write the table as a page, anew after each scenario.
    pub html: Option<PathBuf>,
    /// Where to write it in Markdown, anew after each scenario.
    pub markdown: Option<PathBuf>,
}

/// Runs the matrix. Returns whether it passed: every scenario of ours could be measured, no address
/// had two owners, no frame was stale, no connection was lost that has to live, no service moved
/// where nothing was broken, and the pool was ready again after each fault.
///
/// # Errors
/// When a scenario does not exist, when a report cannot be written, or on an interrupt.
pub fn matrix(
    options: &MatrixOptions,
    output: &mut dyn Write,
    progress: &mut dyn Write,
) -> Result<bool> {
    signals::catch_interrupts();
    if options.runs == 0 {
        bail!("--runs must be at least 1");
    }
    let selected = selected(options)?;
    crate::need_root("vnfpool lab matrix")?;
    // Hours of measuring must not end at a file that nobody can write.
    let mut report = MatrixReport {
        runs: options.runs,
        scenarios: selected.len(),
        rows: Vec::new(),
    };
    write_reports(options, &report)?;
    if options.rival {
        install_missing(progress)?;
    }
    crate::clean_interrupted(progress)?;
    for (number, scenario) in (1..).zip(&selected) {
        let count = selected.len();
        writeln!(
            progress,
            "[{number}/{count}] {}: {}",
            scenario.name(),
            scenario.about()
        )?;
        let row = run_row(options, *scenario, progress)?;
        if options.json {
            for object in row.objects()? {
                writeln!(output, "{object}")?;
            }
            output.flush()?;
        }
        for failure in row.failures() {
            writeln!(progress, "FAILED {}: {failure}", scenario.name())?;
        }
        report.rows.push(row);
        write_reports(options, &report)?;
    }
    if !options.json {
        writeln!(output, "{}", matrix_table(&report))?;
    }
    for path in options.html.iter().chain(&options.markdown) {
        writeln!(progress, "written: {}", path.display())?;
    }
    Ok(report.passed())
}

fn run_row(
    options: &MatrixOptions,
    scenario: &dyn Scenario,
    progress: &mut dyn Write,
) -> Result<MatrixRow> {
    let mut measured = |contender| -> Result<Outcome> {
        match measure(scenario, contender, options.runs, false, progress) {
            Ok(summary) => Ok(Outcome::Measured(Box::new(summary))),
            Err(error) => {
                signals::check()?;
                writeln!(progress, "not measured: {error:#}")?;
                Ok(Outcome::NotMeasured(format!("{error:#}")))
            }
        }
    };
    let own = measured(Contender::Own(options.profile))?;
    let rival = match (options.rival, scenario.needs_manager()) {
        (false, _) => None,
        (true, true) => Some(Outcome::NotForIt("it has no manager")),
        (true, false) => {
            let rival = Rival::Keepalived {
                advert: ADVERT,
                scheduling: Scheduling::RealTime,
            };
            Some(measured(Contender::Rival(rival))?)
        }
    };
    Ok(MatrixRow {
        scenario: scenario.name(),
        about: scenario.about(),
        keeps_connections: scenario.keeps_connections(),
        breaks_nothing: scenario.breaks_nothing(),
        own,
        rival,
    })
}

fn selected(options: &MatrixOptions) -> Result<Vec<&'static dyn Scenario>> {
    if options.smoke && !options.scenarios.is_empty() {
        bail!("--smoke names the scenarios already: leave either away");
    }
    if !options.scenarios.is_empty() {
        let named = options.scenarios.iter();
        return named.map(|name| scenarios::by_name(name)).collect();
    }
    let all = scenarios::all().iter().copied();
    Ok(all
        .filter(|scenario| !scenario.only_by_name())
        .filter(|scenario| !options.smoke || scenario.is_smoke())
        .collect())
}

fn write_reports(options: &MatrixOptions, report: &MatrixReport) -> Result<()> {
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    };
    if let Some(path) = &options.html {
        write(path, matrix_page(report))?;
    }
    if let Some(path) = &options.markdown {
        write(path, matrix_markdown(report))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(scenarios: &[&str], smoke: bool) -> MatrixOptions {
        MatrixOptions {
            scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
            smoke,
            runs: 1,
            profile: Profile::Default,
            rival: false,
            json: false,
            html: None,
            markdown: None,
        }
    }

    #[test]
    fn scenarios_are_chosen_by_name_by_smoke_or_all() {
        let names = |options: &MatrixOptions| {
            let chosen = selected(options).unwrap();
            chosen.iter().map(|s| s.name()).collect::<Vec<_>>()
        };
        assert_eq!(names(&options(&["kill", "heal"], false)), ["kill", "heal"]);
        let smoke = names(&options(&[], true));
        assert!(!smoke.is_empty() && smoke.len() < scenarios::all().len());
        let all = names(&options(&[], false));
        assert!(all.contains(&"load-mixed") && !all.contains(&"load-long"));
        assert_eq!(names(&options(&["load-long"], false)), ["load-long"]);
    }

    #[test]
    fn what_cannot_be_run_is_refused_before_anything_runs() {
        let refused = |options: &MatrixOptions| selected(options).err().unwrap().to_string();
        assert!(refused(&options(&["sleep"], false)).contains("sleep"));
        assert!(refused(&options(&["kill"], true)).contains("--smoke"));
        let mut unwritable = options(&["kill"], false);
        unwritable.html = Some("/nowhere/to/write".into());
        let error = matrix(&unwritable, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/to/write"), "{error}");
    }
}
