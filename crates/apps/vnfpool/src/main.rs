//! vnfpool: groups instances of one network function into a pool that behaves as one reliable
//! function (draft-zong-vnfpool-problem-statement).

mod cli;
mod command;
mod daemon;
mod element;
mod manager;
mod metrics;
mod pulse;
mod sdk_load;

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub(crate) const COMMIT: &str = env!("VNFPOOL_COMMIT");

fn main() -> std::process::ExitCode {
    cli::main()
}
