//! Short-lived helper programs (`ip`, `nft`, `conntrackd -c` …) and what they answered.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a program to its end, with `input` on its standard input, and returns what it printed.
///
/// # Errors
/// When it cannot be started or ends with a failure; the message carries what it wrote to
/// standard error.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_prepared(&mut command, input)
}

/// As [`run`], for a prepared command: with variables in its environment, say. These are in no
/// message.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_prepared(command: &mut Command, input: &str) -> Result<String> {
    let output = run_command(command, input)?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let arguments = command.get_args().map(|a| a.to_string_lossy());
        bail!(
            "`{} {}` failed ({}): {}",
            command.get_program().to_string_lossy(),
            arguments.collect::<Vec<_>>().join(" "),
            output.status,
            complaint.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`run_prepared`], and leaves the judgement of the status to the caller.
///
/// # Errors
/// When the program cannot be started or its pipes break.
pub(crate) fn run_command(command: &mut Command, input: &str) -> Result<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is for the laboratory, which then cleans up with such helpers.
        .process_group(0)
        .spawn()
        .with_context(|| format!("starting `{program}` (is its Debian package installed?)"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why on standard error.
        let _broken_pipe = stdin.write_all(input.as_bytes());
    }
    child
        .wait_with_output()
        .with_context(|| format!("waiting for `{program}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a failure names what was run, and nothing that only its environment holds.
    #[test]
    fn a_failure_repeats_the_command_line_and_not_the_environment() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "test -n \"$SECRET\" && echo refused >&2; exit 3"])
            .env("SECRET", "vnfpool1.secret");
        let error = run_prepared(&mut command, "").unwrap_err();
        let message = format!("{error:#} {error:?}");
        assert!(message.contains("`sh -c test"), "{message}");
        assert!(message.contains("refused"), "the command had it: {message}");
        assert!(!message.contains("vnfpool1.secret"), "{message}");
    }
}
