//! `vnfpool watch` and `vnfpool audit`: what happened and why.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vnfpool_model::{PoolHandle, SlotName};
use vnfpool_northbound::Event;
use vnfpool_northbound::client::{ClientError, Events};

use super::args::{Audit, Watch};
use super::output::{Output, clean, note, table};
use super::session::Session;

/// Prints events until interrupted. A manager that restarts is waited for.
pub(super) fn watch(args: &Watch, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let mut last = args.since;
    let open = |after| session.wait(session.client.events(after, args.pool.as_ref()));
    let mut events = open(last)?;
    loop {
        match session.wait(events.next()) {
            Ok(Some(event)) => {
                print(&event, args.output.json, output)?;
                last = Some(event.sequence);
            }
            // The manager stopped, or we were too slow: go on after what we saw.
            Ok(None) => events = reopen(&session, args, last)?,
            Err(error) => {
                note(&format!("warning: {error:#}; trying again"));
                events = reopen(&session, args, last)?;
            }
        }
    }
}

/// Asks again each second. Refusals end the wait, an absent manager does not.
fn reopen(session: &Session, args: &Watch, last: Option<u64>) -> anyhow::Result<Events> {
    loop {
        std::thread::sleep(RETRY_INTERVAL);
        match session.wait(session.client.events(last, args.pool.as_ref())) {
            Ok(events) => return Ok(events),
            Err(error) => match error.downcast_ref::<ClientError>() {
                Some(ClientError::Unreachable { .. } | ClientError::Protocol { .. }) => {}
                _ => return Err(error),
            },
        }
    }
}

fn print(event: &Event, json: bool, output: &mut Output) -> anyhow::Result<()> {
    if json {
        return output.json_line(event);
    }
    let place = place(event.pool.as_ref(), event.slot.as_ref());
    let reason = match event.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    let time = local(event.time);
    output.line(clean(&format!(
        "{time}  {place:<16} {:<14} {}{reason}",
        event.kind, event.text
    )))?;
    output.flush()
}

/// Prints the newest entries of the audit log.
pub(super) fn audit(args: &Audit, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let entries = session.wait(session.client.audit(args.lines))?;
    if args.output.json {
        return output.json(&entries);
    }
    let mut rows = table(&["TIME", "WHERE", "WHO", "WHAT", "DECISION", "REASON"]);
    for entry in &entries {
        rows.add_row([
            local(entry.time),
            place(entry.pool.as_ref(), entry.slot.as_ref()),
            clean(&entry.actor),
            clean(&entry.action),
            clean(&entry.text),
            clean(&entry.reason),
        ]);
    }
    output.table(&rows)
}

fn place(pool: Option<&PoolHandle>, slot: Option<&SlotName>) -> String {
    match (pool, slot) {
        (Some(pool), Some(slot)) => format!("{pool}/{slot}"),
        (Some(pool), None) => pool.to_string(),
        (None, _) => "-".to_owned(),
    }
}

/// A time in the reader's zone, to the millisecond.
fn local(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S%.3f")
        .to_string()
}

const RETRY_INTERVAL: Duration = Duration::from_secs(1);
