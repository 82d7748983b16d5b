//! A function that loads the SDK's way to a successor, for `vnfpool bench state`: it puts into a
//! `bounded` class, commits a `commit` class, and says what it saw.
//!
//! One runs beside each agent of a pool. Each waits for SIGUSR1; then the active's one puts and
//! commits, and the standby's one notes when its own agent holds what was put, and that it is the same.
//! Both learn from each other by entries alone (`Mark`). Each prints one line of JSON, and stays: the
//! end of a function is a fault of its element.

mod active;
mod standby;
mod standing;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use vnfpool_sdk::{Class, ConnectError, Function, Level};

use self::standing::{Place, Standing};

/// The class of puts, and that of commits.
const PUTS: &str = "load-puts";
const COMMITS: &str = "load-commits";

/// As many keys as a busy function has, so that tables do not grow without end.
const KEYS: u64 = 100_000;

/// Between two attempts to reach an agent that is starting, and how long it may take.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// What to do, and beside which agent.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// The agent's socket
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Rounds of puts, then of commits
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The length of a round
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    round_ms: u32,
    /// Callers that commit over the one connection
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    callers: u32,
}

impl Options {
    const fn round(&self) -> Duration {
        Duration::from_millis(self.round_ms as u64)
    }
}

/// Runs until it is killed.
///
/// # Errors
/// When the agent does not take the function, or a measurement cannot be gone on with.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    // Before everything: the signal must not kill a process that is starting.
    let mut begin = signal(SignalKind::user_defined1()).context("wait for SIGUSR1")?;
    let (client, events) = connect(&options).await?;
    let mut standing = Standing::follow(client.clone(), events);
    begin.recv().await;
    let said = match standing.place().await? {
        Place::Active(_) => active::load(&client, &mut standing, &options).await?,
        Place::Standby(slot) => standby::watch(&client, slot, &options).await?,
    };
    crate::cli::say(&said)?;
    standing.ended().await
}

async fn connect(options: &Options) -> anyhow::Result<(vnfpool_sdk::Client, vnfpool_sdk::Events)> {
    let function = || {
        Function::new("load", "1")
            .class(Class::new(PUTS, Level::bounded(), 1))
            .class(Class::new(COMMITS, Level::commit(), 1))
    };
    let give_up = tokio::time::Instant::now() + CONNECT_LIMIT;
    loop {
        match vnfpool_sdk::connect(&options.socket, function()).await {
            Ok(connected) => return Ok(connected),
            Err(ConnectError::Connect { .. }) if tokio::time::Instant::now() < give_up => {
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The value of put `number`: none is like the one before, which need not be sent.
fn value(number: u64) -> [u8; 64] {
    let mut value = [7; 64];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

/// Which put a value is of.
fn number(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// What the active says at the end of a round, behind everything that it has put in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Puts of the round, or of all rounds of commits.
    puts: u64,
    /// When it began: nanoseconds of `CLOCK_BOOTTIME`, which both functions read on one machine.
    began: u64,
}

impl Mark {
    /// Its key, after every numbered one; shorter than those.
    fn key(round: u32) -> [u8; 5] {
        let mut key = [u8::MAX; 5];
        key[1..].copy_from_slice(&round.to_be_bytes());
        key
    }

    fn to_value(self) -> [u8; 16] {
        let mut value = [0; 16];
        value[..8].copy_from_slice(&self.puts.to_be_bytes());
        value[8..].copy_from_slice(&self.began.to_be_bytes());
        value
    }

    fn from_value(value: &[u8]) -> Option<Self> {
        let began = value.get(8..)?;
        Some(Self {
            puts: number(value)?,
            began: number(began)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mark = Mark {
            puts: 1 << 40,
            began: 7,
        };
        assert_eq!(Mark::from_value(&mark.to_value()), Some(mark));
        assert_eq!(Mark::from_value(&mark.to_value()[..15]), None);
        assert!(Mark::key(0).as_slice() > (KEYS - 1).to_be_bytes().as_slice());
        assert!(Mark::key(1) > Mark::key(0));
    }
}
