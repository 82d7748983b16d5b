//! Measures the SDK's way to a successor: puts of a `bounded` class, commits of a `commit` class.
//!
//! ```text
//! cargo run --release -p vnfpool-sdk --example bench -- /run/vnfpool/sdk.sock [seconds] [callers]
//! ```
//!
//! Registers with the agent of a pool's active element and prints one JSON object. It needs a
//! successor whose function has registered the same classes: start it there as well, where it waits.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a program that prints figures"
)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vnfpool_sdk::{Active, Class, Client, Event, Events, Function, Level, Role, Table};

const BOUNDED: &str = "bench-bounded";
const COMMIT: &str = "bench-commit";

/// As many keys as a busy function has, so that tables do not grow without end.
const KEYS: u64 = 100_000;

/// A value that differs from the one before: what is the same already need not be sent.
fn value(number: u64) -> [u8; 64] {
    let mut value = [7; 64];
    value[..8].copy_from_slice(&number.to_be_bytes());
    value
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let socket = args
        .next()
        .ok_or("usage: bench SOCKET [SECONDS] [CALLERS]")?;
    let seconds = args.next().map_or(Ok(5), |seconds| seconds.parse())?;
    let callers = args.next().map_or(Ok(32), |callers| callers.parse())?;
    let function = Function::new("bench", "1")
        .class(Class::new(BOUNDED, Level::bounded(), 1))
        .class(Class::new(COMMIT, Level::commit(), 1));
    let (client, mut events) = vnfpool_sdk::connect(socket, function).await?;
    let active = wait_for_successor(&mut events).await.ok_or("turned away")?;
    let lowered = Arc::new(AtomicU32::new(0));
    tokio::spawn(watch_levels(events, Arc::clone(&lowered)));
    let time = Duration::from_secs(seconds);
    let puts = puts_per_s(&client, active, time).await?;
    let (commits, micros) = commits_per_s(&client, active, time, callers).await?;
    let at = |share: f64| micros[(micros.len() as f64 * share) as usize];
    println!(
        "{{\"puts_per_s\": {puts:.0}, \"commits_per_s\": {commits:.0}, \"callers\": {callers}, \
         \"commit_p50_us\": {}, \"commit_p99_us\": {}, \"levels_lowered\": {}}}",
        at(0.5),
        at(0.99),
        lowered.load(Ordering::Relaxed)
    );
    Ok(())
}

/// The epoch in which both classes are held as demanded.
async fn wait_for_successor(events: &mut Events) -> Option<Active> {
    let mut active = None;
    let mut held = 0;
    while held < 2 {
        match events.next().await? {
            Event::Role(Role::Active(now)) => active = Some(now),
            Event::Level { reason, .. } if reason.is_empty() => held += 1,
            other => eprintln!("{other:?}"),
        }
    }
    active
}

/// Counts how often a level was not held: figures with any are not those of the level.
async fn watch_levels(mut events: Events, lowered: Arc<AtomicU32>) {
    while let Some(event) = events.next().await {
        match event {
            Event::Level { reason, .. } if reason.is_empty() => {}
            Event::Role(Role::Active(_)) => {}
            other => {
                eprintln!("{other:?}");
                lowered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Puts until the time is over, and until the successor has all of them.
async fn puts_per_s(
    client: &Client,
    active: Active,
    time: Duration,
) -> Result<f64, Box<dyn Error>> {
    let table = client.table(active.slot, BOUNDED)?;
    let began = Instant::now();
    let mut puts = 0u64;
    while began.elapsed() < time {
        for _ in 0..1_000 {
            let key = (puts % KEYS).to_be_bytes();
            table.put(active, &key, &value(puts), None).await?;
            puts += 1;
        }
    }
    // Taken by the agent; all but the level's bound is at the successor.
    table.get(b"-").await?;
    Ok(puts as f64 / began.elapsed().as_secs_f64())
}

/// Commits of many callers over one connection, each of a put of its own; their times in order.
async fn commits_per_s(
    client: &Client,
    active: Active,
    time: Duration,
    callers: u64,
) -> Result<(f64, Vec<u128>), Box<dyn Error>> {
    let table = client.table(active.slot, COMMIT)?;
    let began = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| tokio::spawn(call(table.clone(), active, caller, began, time)))
        .collect();
    let mut micros = Vec::new();
    for caller in callers {
        micros.extend(caller.await??);
    }
    let commits = micros.len() as f64 / began.elapsed().as_secs_f64();
    micros.sort_unstable();
    Ok((commits, micros))
}

async fn call(
    table: Table,
    active: Active,
    caller: u64,
    began: Instant,
    time: Duration,
) -> Result<Vec<u128>, String> {
    let mut micros = Vec::new();
    while began.elapsed() < time {
        let at = Instant::now();
        let put = table
            .put(
                active,
                &caller.to_be_bytes(),
                &value(micros.len() as u64),
                None,
            )
            .await;
        put.map_err(|error| error.to_string())?;
        table.commit().await.map_err(|error| error.to_string())?;
        micros.push(at.elapsed().as_micros());
    }
    Ok(micros)
}
