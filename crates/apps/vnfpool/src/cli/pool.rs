//! `vnfpool pool`.

use std::path::Path;

use vnfpool_config::{PoolFile, advice};
use vnfpool_model::{PoolSpec, Timing};

use super::args::{PoolApply, PoolCommand, PoolDelete, PoolShow};
use super::file;
use super::output::{Output, note, table};
use super::session::Session;

/// Runs a command of `vnfpool pool`.
pub(super) fn run(command: &PoolCommand, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    match command {
        PoolCommand::Apply(args) => apply(args, admin, output),
        PoolCommand::List(args) => list(args.json, admin, output),
        PoolCommand::Show(args) => show(args, admin, output),
        PoolCommand::Delete(args) => delete(args, admin, output),
    }
}

fn apply(args: &PoolApply, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let text = file::read(&args.file)?;
    // The manager checks again; here the errors can show the line.
    let pool = PoolFile::parse(&text, &file::name(&args.file))?;
    for warning in advice(&pool) {
        note(&format!("warning: {warning}"));
    }
    let session = Session::open(admin)?;
    let applied = session.wait(session.client.apply_pool(&pool))?;
    if args.output.json {
        return output.json(&applied);
    }
    let what = match (applied.created, applied.changed) {
        (true, _) => "created",
        (false, true) => "changed",
        (false, false) => "unchanged",
    };
    output.line(format!("pool '{}' {what}", applied.handle))
}

fn list(json: bool, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let pools = session.wait(session.client.pools())?;
    if json {
        return output.json(&pools);
    }
    if pools.is_empty() {
        return output.line("no pools: create one with `vnfpool pool apply -f FILE`");
    }
    let mut rows = table(&["POOL", "FUNCTION", "PROFILE", "SLOTS", "ADDRESSES"]);
    for pool in &pools {
        rows.add_row([
            pool.handle.to_string(),
            pool.function.clone(),
            profile(pool),
            pool.slots.len().to_string(),
            addresses(pool),
        ]);
    }
    output.table(&rows)
}

fn show(args: &PoolShow, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let pool = session.wait(session.client.pool(&args.handle))?;
    if args.output.json {
        return output.json(&pool);
    }
    output.bytes(PoolFile::render(&pool).as_bytes())
}

fn delete(args: &PoolDelete, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    session.wait(session.client.delete_pool(&args.handle))?;
    if args.output.json {
        return output.json(&serde_json::json!({"handle": args.handle, "deleted": true}));
    }
    output.line(format!("pool '{}' deleted", args.handle))
}

/// A profile by name, or its constants.
fn profile(pool: &PoolSpec) -> String {
    if let Some(bounds) = pool.lease_bounds {
        return format!("auto, {} to {} ms", bounds.min_ms, bounds.max_ms);
    }
    match pool.timing {
        Timing::DEFAULT => "default".to_owned(),
        Timing::FAST => "fast".to_owned(),
        Timing {
            heartbeat_interval_ms,
            lease_ms,
            ..
        } => format!("heartbeat {heartbeat_interval_ms} ms, lease {lease_ms} ms"),
    }
}

/// The first addresses of a pool, and how many more there are.
fn addresses(pool: &PoolSpec) -> String {
    let all = || pool.slots.iter().flat_map(|slot| &slot.addresses);
    let shown: Vec<String> = all()
        .take(ADDRESSES_SHOWN)
        .map(|address| address.address.to_string())
        .collect();
    let shown = shown.join(" ");
    match all().count().saturating_sub(ADDRESSES_SHOWN) {
        0 => shown,
        more => format!("{shown} +{more}"),
    }
}

const ADDRESSES_SHOWN: usize = 4;
