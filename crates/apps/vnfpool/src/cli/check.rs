//! `vnfpool check`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use vnfpool_config::{Checked, Diagnostic, advice, check_any, overlaps};
use vnfpool_model::PoolSpec;

use super::args::Check;
use super::file;
use super::output::{Output, note};
use crate::command;

/// What was found out about a file.
#[derive(Serialize)]
struct Report {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    ok: bool,
    errors: Vec<Diagnostic>,
    /// Errors without a place: the file cannot be read, or another one has the same address.
    problems: Vec<String>,
    warnings: Vec<String>,
}

/// Checks files; the exit code says whether all are sound.
pub(super) fn run(args: &Check, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut pools: Vec<PoolSpec> = Vec::new();
    let reports: Vec<Report> = args
        .files
        .iter()
        .map(|path| check_file(path, &mut pools))
        .collect();
    if args.output.json {
        output.json(&reports)?;
    } else {
        for report in &reports {
            print(report, output)?;
        }
    }
    let all_ok = reports.iter().all(|report| report.ok);
    Ok(if all_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check_file(path: &Path, pools: &mut Vec<PoolSpec>) -> Report {
    let name = file::name(path);
    let mut report = Report {
        file: name.clone(),
        kind: None,
        ok: false,
        errors: Vec::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let checked = match file::read(path) {
        Ok(text) => check_any(&text, &name),
        Err(error) => {
            report.problems.push(format!("{error:#}"));
            return report;
        }
    };
    match checked {
        Ok(checked) => {
            report.kind = Some(checked.kind());
            match checked {
                Checked::Pool(pool) => {
                    check_against_others(&pool, pools, &mut report);
                    report.warnings = advice(&pool);
                    pools.push(pool);
                }
                Checked::Manager(manager) => {
                    let obstacle = manager.fencing.and_then(|f| command::obstacle(&f.command));
                    let problem = obstacle.map(|why| format!("{name}: [fencing] command: {why}"));
                    report.problems.extend(problem);
                }
                _ => {}
            }
        }
        Err(errors) => report.errors = errors.as_slice().to_vec(),
    }
    report.ok = report.errors.is_empty() && report.problems.is_empty();
    report
}

/// Files given together are meant for one manager.
fn check_against_others(pool: &PoolSpec, others: &[PoolSpec], report: &mut Report) {
    if others.iter().any(|other| other.handle == pool.handle) {
        let problem = format!(
            "{}: another file describes pool '{}' too",
            report.file, pool.handle
        );
        report.problems.push(problem);
    }
    for conflict in overlaps(others, pool) {
        report.problems.push(format!("{}: {conflict}", report.file));
    }
}

fn print(report: &Report, output: &mut Output) -> anyhow::Result<()> {
    for error in &report.errors {
        note(&format!("error: {error}\n"));
    }
    for problem in &report.problems {
        note(&format!("error: {problem}"));
    }
    for warning in &report.warnings {
        note(&format!("warning: {}: {warning}", report.file));
    }
    match report.kind {
        Some(kind) if report.ok => output.line(format!("{}: ok ({kind})", report.file)),
        _ => Ok(()),
    }
}
