//! What the commands print: tables for people, JSON for machines, errors with a hint.

use std::io::{self, Write};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;
use vnfpool_config::Diagnostics;
use vnfpool_northbound::client::ClientError;

/// Standard output. Every write is checked, so a closed pipe ends the command quietly instead of
/// with a panic.
pub(super) struct Output {
    stream: io::Stdout,
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self {
            stream: io::stdout(),
        }
    }

    /// Prints one line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> anyhow::Result<()> {
        self.bytes(text.as_ref().as_bytes())?;
        self.bytes(b"\n")
    }

    /// Prints a value as indented JSON.
    pub(super) fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        self.line(text)
    }

    /// Prints a value as JSON on one line and flushes: one event, one line, at once.
    pub(super) fn json_line(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string(value)?;
        self.line(text)?;
        self.flush()
    }

    /// Prints a table, without the spaces that padding leaves at the end of its lines.
    pub(super) fn table(&mut self, table: &Table) -> anyhow::Result<()> {
        self.line(table.trim_fmt())
    }

    /// For libraries that write themselves.
    pub(super) fn writer(&mut self) -> &mut dyn Write {
        &mut self.stream
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes)?;
        Ok(())
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.stream.flush()?;
        Ok(())
    }
}

/// A table without frames, in the style of `ip -br` and `kubectl`.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(Cell::new));
    table
}

/// Whether an error only says that nobody reads our output any more (`vnfpool status | head -1`).
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints an error with its causes and what to do about it on standard error.
pub(super) fn report(error: &anyhow::Error) {
    if let Some(diagnostics) = error.downcast_ref::<Diagnostics>() {
        for diagnostic in diagnostics.as_slice() {
            note(&format!("error: {diagnostic}\n"));
        }
        return;
    }
    note(&format!("error: {}", clean(&format!("{error:#}"))));
    let Some(error) = error.downcast_ref::<ClientError>() else {
        return;
    };
    if let Some(hint) = error.hint() {
        note(&format!("hint: {hint}"));
    }
    // A single error is the whole detail already.
    if let ClientError::Refused(problem) = error
        && problem.errors.len() > 1
    {
        for fault in &problem.errors {
            let help = fault
                .help
                .as_ref()
                .map(|help| format!(" ({help})"))
                .unwrap_or_default();
            let place = match fault.place.as_str() {
                "" => String::new(),
                place => format!("{place}: "),
            };
            note(&clean(&format!("  {place}{}{help}", fault.message)));
        }
    }
}

/// Prints a line on standard error; nothing is left to do if that fails.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Replaces control characters: what elements report must not play with the reader's terminal.
pub(super) fn clean(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(printable).collect()
}
