//! The command line front-end: parses arguments, calls a command, maps results to exit codes.

pub(crate) mod args;
mod check;
mod completion;
mod file;
mod gate_cost;
mod lab;
mod output;
mod pool;
mod session;
mod status;
mod switchover;
mod token;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command, ElementCommand, ManagerCommand};
use self::output::Output;
use crate::{daemon, element, manager, sdk_load};

/// Runs the program. Exit codes: 0 done, 1 failed, 2 wrong usage (from the argument parser).
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of a command that is carried out elsewhere.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    Output::stdout().line(text)
}

/// Runs the example beside an agent, for the demonstration.
fn load_balancer(options: &vnfpool_lb::Options) -> anyhow::Result<()> {
    daemon::start_log();
    daemon::block_on(vnfpool_lb::run(options.clone()))
}

/// Runs a function that is there to be measured.
fn load_sdk(options: &sdk_load::Options) -> anyhow::Result<()> {
    daemon::start_log();
    daemon::block_on(sdk_load::run(options.clone()))
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    let admin = cli.admin.as_path();
    let output = &mut Output::stdout();
    let code = match &cli.command {
        Command::Manager(ManagerCommand::Init(args)) => manager::init(args).map(done),
        Command::Manager(ManagerCommand::Run(args)) => manager::run(args).map(done),
        Command::Element(ElementCommand::Join(args)) => element::join(args).map(done),
        Command::Element(ElementCommand::Run(args)) => element::run(args).map(done),
        Command::Element(ElementCommand::Supervise(args)) => element::supervise(args),
        Command::Pool(command) => pool::run(command, admin, output).map(done),
        Command::Token(command) => token::run(command, admin, output).map(done),
        Command::Status(args) => status::run(args, admin, output).map(done),
        Command::Watch(args) => watch::watch(args, admin, output).map(done),
        Command::Audit(args) => watch::audit(args, admin, output).map(done),
        Command::Switchover(args) => switchover::switchover(args, admin, output).map(done),
        Command::Fence(args) => switchover::fence(args, admin, output).map(done),
        Command::Pardon(args) => switchover::pardon(args, admin, output).map(done),
        Command::Check(args) => check::run(args, output),
        Command::Demo(args) => lab::demo(args, output),
        Command::Lab(command) => lab::lab(command, output),
        Command::Lb(options) => load_balancer(options).map(done),
        Command::SdkLoad(options) => load_sdk(options).map(done),
        Command::Bench(args) => lab::bench(args, output),
        Command::Completion(args) => completion::run(args, output).map(done),
    }?;
    // A full disk behind the redirection must not look like success.
    output.flush()?;
    Ok(code)
}
