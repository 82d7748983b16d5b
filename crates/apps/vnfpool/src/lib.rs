//! vnfpool: groups instances of one network function into a pool that behaves as one reliable
//! function (draft-zong-vnfpool-problem-statement).
//!
//! A library with nothing to call but the program itself, so that the fuzzers (`testing/fuzz`) reach what
//! is in it.

mod cli;
mod command;
mod daemon;
mod element;
mod manager;
mod metrics;
mod pulse;
mod sdk_load;

#[cfg(feature = "fuzz")]
pub use element::{Around, talk};

/// The version of the program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, or `unknown`.
pub(crate) const COMMIT: &str = env!("VNFPOOL_COMMIT");

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> std::process::ExitCode {
    cli::main()
}
