//! The standby's function: when its own agent holds what the active's function has put.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::json;
use vnfpool_sdk::{Client, SlotId, Table};

use super::{COMMITS, KEYS, Mark, Options, PUTS, number};
use crate::pulse::now;

/// Between two looks for a mark.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Notes when each round of puts is held here, then compares every entry of both classes with what
/// was put last; returns what it saw, as a line of JSON.
pub(super) async fn watch(
    client: &Client,
    slot: SlotId,
    options: &Options,
) -> anyhow::Result<String> {
    let puts = client.table(slot, PUTS)?;
    let mut rounds = Vec::new();
    let mut total = 0;
    for round in 0..options.rounds {
        let mark = wait_for(&puts, round).await?;
        // Changes are applied in the order in which they were put: what is before the mark is here.
        let took_ns = now().0.saturating_sub(mark.began);
        rounds.push(json!({ "count": mark.puts, "took_ns": took_ns }));
        total += mark.puts;
    }
    let current = current(&all(&puts).await?, total);
    let commits = client.table(slot, COMMITS)?;
    let mark = wait_for(&commits, 0).await?;
    let committed = put_by_callers(&all(&commits).await?);
    Ok(json!({
        "standby": {
            "puts": rounds,
            "keys": total.min(KEYS),
            "keys_current": current,
            "committed": mark.puts,
            "committed_here": committed,
        }
    })
    .to_string())
}

async fn wait_for(table: &Table, round: u32) -> anyhow::Result<Mark> {
    loop {
        if let Some(entry) = table.get(&Mark::key(round)).await? {
            return Mark::from_value(&entry.value).context("a mark that is none");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Every numbered entry: its key's number, and its value's.
async fn all(table: &Table) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut from = Bytes::new();
    loop {
        let (entries, more) = table.range(&from, &[u8::MAX], 0).await?;
        for entry in &entries {
            let key = number(&entry.key).context("a key that is no number")?;
            found.push((
                key,
                number(&entry.value).context("a value without a number")?,
            ));
        }
        match entries.last() {
            Some(last) if more => from = [last.key.as_ref(), &[0]].concat().into(),
            _ => return Ok(found),
        }
    }
}

/// How many of the keys have the value that was put last, of `total` puts to the keys in turns.
fn current(entries: &[(u64, u64)], total: u64) -> usize {
    let newest = |key: u64| {
        let last = total.checked_sub(1)?.checked_sub(key)?;
        Some(last / KEYS * KEYS + key)
    };
    let is_current = |(key, value): &&(u64, u64)| newest(*key) == Some(*value);
    entries.iter().filter(is_current).count()
}

/// How many puts of the callers are here: each numbers its own from 0.
fn put_by_callers(entries: &[(u64, u64)]) -> u64 {
    entries.iter().map(|(_, value)| value + 1).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an old value, and one for a key that was not put, do not count.
    #[test]
    fn only_the_newest_value_of_a_key_counts() {
        let total = 2 * KEYS + 2;
        let entries = [
            (0, 2 * KEYS),
            (1, 2 * KEYS + 1),
            (2, KEYS + 2),
            (3, 3),
            (KEYS, 0),
        ];
        assert_eq!(current(&entries, total), 3);
        assert_eq!(current(&[(0, 0), (1, 1)], 1), 1);
        assert_eq!(current(&[(0, 0)], 0), 0);
        assert_eq!(put_by_callers(&[(0, 9), (1, 4)]), 15);
    }
}
