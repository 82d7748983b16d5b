//! The active's function: rounds of puts, then of commits.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use vnfpool_lab::Spread;
use vnfpool_sdk::{Active, Client, CommitError, Table};

use super::standing::{Place, Standing};
use super::{COMMITS, KEYS, Mark, Options, PUTS, value};
use crate::pulse::now;

/// Puts between two looks at the clock.
const PUTS_AT_ONCE: u64 = 256;
/// After each round the standby gets what is still on its way.
const PAUSE: Duration = Duration::from_millis(100);
/// Puts and commits; returns what it saw, as a line of JSON.
pub(super) async fn load(
    client: &Client,
    standing: &mut Standing,
    options: &Options,
) -> anyhow::Result<String> {
    let troubles = standing.troubles();
    let active = async |standing: &mut Standing| match standing.place().await? {
        Place::Active(active) => Ok(active),
        Place::Standby(_) => Err(anyhow::anyhow!("the element is not the active any more")),
    };
    let mut puts = 0;
    for round in 0..options.rounds {
        let active = active(standing).await?;
        let table = client.table(active.slot, PUTS)?;
        puts = put(&table, active, round, puts, options.round()).await?;
        tokio::time::sleep(PAUSE).await;
    }
    let began = now().0;
    let mut rounds = Vec::new();
    let mut callers: Vec<Caller> = (0..options.callers).map(Caller::new).collect();
    for _ in 0..options.rounds {
        let active = active(standing).await?;
        let table = client.table(active.slot, COMMITS)?;
        let (back, took_ns) = commit(&table, active, callers, options.round()).await?;
        let before: usize = rounds.iter().map(|(commits, _)| *commits).sum();
        callers = back;
        let all: usize = callers.iter().map(|caller| caller.nanos.len()).sum();
        rounds.push((all - before, took_ns));
        tokio::time::sleep(PAUSE).await;
    }
    let active = active(standing).await?;
    let table = client.table(active.slot, COMMITS)?;
    let puts = callers.iter().map(|caller| caller.puts).sum();
    let mark = Mark { puts, began };
    table
        .put(active, &Mark::key(0), &mark.to_value(), None)
        .await?;
    let rounds: Vec<_> = rounds
        .into_iter()
        .map(|(commits, took_ns)| json!({ "count": commits, "took_ns": took_ns }))
        .collect();
    Ok(json!({
        "active": {
            "commits": rounds,
            "commit_ms": spread(&callers),
            "not_held": callers.iter().map(|caller| caller.not_held).sum::<u64>(),
            "troubles": standing.troubles() - troubles,
        }
    })
    .to_string())
}

/// One round of puts, numbered from `first`; returns the next number.
async fn put(
    table: &Table,
    active: Active,
    round: u32,
    first: u64,
    time: Duration,
) -> anyhow::Result<u64> {
    let (began, at) = (now().0, Instant::now());
    let mut next = first;
    while at.elapsed() < time {
        for _ in 0..PUTS_AT_ONCE {
            let key = (next % KEYS).to_be_bytes();
            table.put(active, &key, &value(next), None).await?;
            next += 1;
        }
    }
    let mark = Mark {
        puts: next - first,
        began,
    };
    table
        .put(active, &Mark::key(round), &mark.to_value(), None)
        .await?;
    Ok(next)
}

/// One of those who commit.
#[derive(Debug)]
struct Caller {
    key: [u8; 8],
    puts: u64,
    /// How long each commit took that was held.
    nanos: Vec<u64>,
    /// Commits of which the agent said that the level was lowered.
    not_held: u64,
}

impl Caller {
    fn new(number: u32) -> Self {
        Self {
            key: u64::from(number).to_be_bytes(),
            puts: 0,
            nanos: Vec::new(),
            not_held: 0,
        }
    }

    /// Puts and commits until the time is over; a commit is timed with the put before it.
    async fn run(
        mut self,
        table: Table,
        active: Active,
        began: Instant,
        time: Duration,
    ) -> anyhow::Result<Self> {
        while began.elapsed() < time {
            let at = Instant::now();
            let value = value(self.puts);
            table.put(active, &self.key, &value, None).await?;
            self.puts += 1;
            match table.commit().await {
                Ok(()) => {
                    let nanos = u64::try_from(at.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    self.nanos.push(nanos);
                }
                Err(CommitError::NotHeld { .. }) => self.not_held += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self)
    }
}

/// One round of commits; returns the callers, and how long it took.
async fn commit(
    table: &Table,
    active: Active,
    callers: Vec<Caller>,
    time: Duration,
) -> anyhow::Result<(Vec<Caller>, u64)> {
    let began = Instant::now();
    let running: Vec<_> = callers
        .into_iter()
        .map(|caller| tokio::spawn(caller.run(table.clone(), active, began, time)))
        .collect();
    let mut back = Vec::new();
    for caller in running {
        back.push(caller.await.context("a caller panicked")??);
    }
    let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok((back, took_ns))
}

/// Of all commits of all callers; nothing without any.
#[expect(
    clippy::cast_precision_loss,
    reason = "nanoseconds of seconds, far below 2^53"
)]
fn spread(callers: &[Caller]) -> Option<Spread> {
    let nanos = callers.iter().flat_map(|caller| &caller.nanos);
    Spread::of(nanos.map(|nanos| *nanos as f64 / 1e6))
}
