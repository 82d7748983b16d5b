//! `vnfpool completion`.

use clap::CommandFactory;

use super::args::{Cli, Completion};
use super::output::Output;

/// Prints the completion script of a shell.
pub(super) fn run(args: &Completion, output: &mut Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "vnfpool", &mut script);
    output.bytes(&script)
}
