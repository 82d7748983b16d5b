//! What the demonstration shows while it runs: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::report::{DemoReport, StepReport, demo_table};

/// Results go to the output that was handed in, the bar to standard error.
pub(super) struct Screen<'a> {
    output: &'a mut dyn Write,
    is_json: bool,
    bar: Option<ProgressBar>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(output: &'a mut dyn Write, is_json: bool, steps: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(u64::try_from(steps).unwrap_or(0));
            // The template is fixed; should it not parse, the plain style serves as well.
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} [{bar:24}] {pos}/{len} {msg}")
            {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            output,
            is_json,
            bar,
        }
    }

    /// Says what is being done now.
    pub(super) fn doing(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            // Without a terminal the finished steps are lines enough, but the start is slow.
            None => drop(writeln!(std::io::stderr(), "{what} …")),
        }
    }

    /// One part is done.
    pub(super) fn done(&mut self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Prints a line of the result.
    pub(super) fn line(&mut self, text: &str) -> Result<()> {
        let Self { output, bar, .. } = self;
        let mut print = || writeln!(output, "{text}").context("writing the result");
        match bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a line for people only: on the side when the result is for machines.
    pub(super) fn note(&mut self, text: &str) -> Result<()> {
        if self.is_json {
            return writeln!(self, "{text}").context("writing a note");
        }
        self.line(text)
    }

    /// Prints a finished step.
    pub(super) fn step(&mut self, step: &StepReport) -> Result<()> {
        if self.is_json {
            return self.line(&serde_json::to_string(step)?);
        }
        let sign = if step.passed() { "✓" } else { "✗" };
        self.line(&format!("{sign} {}: {}", step.title, step.facts()))?;
        match &step.problem {
            Some(problem) => self.line(&format!("  {problem}")),
            None => Ok(()),
        }
    }

    /// Prints the end.
    pub(super) fn finish(&mut self, report: &DemoReport, page: &Path) -> Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let page = std::path::absolute(page).unwrap_or_else(|_| page.to_owned());
        if self.is_json {
            let result = json!({
                "step": "result",
                "passed": report.passed(),
                "download": report.download,
                "report": page,
            });
            return self.line(&result.to_string());
        }
        self.line(&demo_table(&report.steps))?;
        if let Some(download) = &report.download {
            let megabytes = download.bytes / 1_000_000;
            self.line(&match &download.problem {
                None => format!("download: {megabytes} MB through all of it, checksum right"),
                Some(problem) => format!("download: broken after {megabytes} MB: {problem}"),
            })?;
        }
        self.line(&format!("report with pictures: {}", page.display()))?;
        if !report.passed() {
            return self.line(
                "FAILED: a connection was lost, two owners were seen, or the pool did not recover",
            );
        }
        self.line(&format!("passed: {}", report.shown()))
    }
}

/// Notes on the way (packages installed, leftovers removed) go where the bar is.
impl Write for Screen<'_> {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        match &self.bar {
            Some(bar) => bar.suspend(|| std::io::stderr().write(text)),
            None => std::io::stderr().write(text),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
