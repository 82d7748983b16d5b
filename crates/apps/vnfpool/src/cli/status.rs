//! `vnfpool status`.

mod handovers;
mod state;
mod waits;

use std::path::Path;

use anyhow::bail;
use vnfpool_northbound::{
    ElementStatus, PoolStatus, PortBlocksStatus, QuarantineStatus, SlotStatus,
};

use super::args::Status;
use super::output::{Output, clean, table};
use super::session::Session;

/// Prints pools, slots and elements.
pub(super) fn run(args: &Status, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let mut status = session.wait(session.client.status())?;
    if let Some(wanted) = &args.pool {
        status.pools.retain(|pool| pool.handle == *wanted);
        if status.pools.is_empty() {
            bail!("there is no pool '{wanted}'");
        }
    }
    if args.output.json {
        return output.json(&status);
    }
    let manager = &status.manager;
    output.line(clean(&format!(
        "manager {}  {} ({})  up {}  store {}",
        manager.id,
        manager.version,
        manager.commit,
        duration(manager.uptime_s),
        manager.store
    )))?;
    if status.pools.is_empty() {
        return output.line("no pools: create one with `vnfpool pool apply -f FILE`");
    }
    for pool in &status.pools {
        output.line("")?;
        print_pool(pool, output)?;
    }
    Ok(())
}

fn print_pool(pool: &PoolStatus, output: &mut Output) -> anyhow::Result<()> {
    let on_quorum_loss = match pool.on_quorum_loss {
        vnfpool_model::OnQuorumLoss::Serve => "serve",
        vnfpool_model::OnQuorumLoss::Stop => "stop",
    };
    let closing = if pool.closing { "  BEING DELETED" } else { "" };
    output.line(clean(&format!(
        "pool {}  {}  profile {}  on quorum loss {on_quorum_loss}{closing}",
        pool.handle, pool.function, pool.profile
    )))?;
    let mut slots = table(&["SLOT", "EPOCH", "ACTIVE", "STANDBY", "STATE", "ADDRESSES"]);
    for slot in &pool.slots {
        slots.add_row(slot_row(slot));
    }
    output.table(&slots)?;
    for slot in &pool.slots {
        if let (Some(reason), Some(lease), Some(heartbeat)) =
            (&slot.lease_reason, slot.lease_ms, slot.heartbeat_ms)
        {
            output.line(clean(&format!(
                "  {}: lease {lease} ms, heartbeat {heartbeat} ms; {reason}",
                slot.name
            )))?;
        }
    }
    for slot in &pool.slots {
        if let Some(blocks) = &slot.port_blocks {
            output.line(clean(&port_blocks_line(slot, blocks)))?;
        }
    }
    state::print(pool, output)?;
    for slot in &pool.slots {
        for remark in waits::remarks(pool, slot) {
            output.line(clean(&remark))?;
        }
    }
    let header = [
        "ELEMENT", "ROLE", "STATE", "HOST", "SYNC", "HEARD", "GATE", "REALTIME", "VERSION",
    ];
    let mut elements = table(&header);
    for element in &pool.elements {
        elements.add_row(element_row(element));
    }
    if pool.elements.is_empty() {
        output.line("no elements: let one join with `vnfpool token create`")?;
    } else {
        output.table(&elements)?;
    }
    for element in &pool.elements {
        for fault in &element.faults {
            output.line(clean(&format!("  {}: {fault}", element.id)))?;
        }
        for quarantine in &element.quarantines {
            output.line(clean(&quarantine_line(element, quarantine)))?;
        }
        for trouble in handovers::remarks(element) {
            output.line(clean(&trouble))?;
        }
    }
    Ok(())
}

fn slot_row(slot: &SlotStatus) -> [String; 6] {
    let name = |element: &Option<vnfpool_model::ElementId>| {
        element
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string)
    };
    let state = match (slot.active.is_some(), slot.armed, slot.unconfirmed) {
        (_, _, true) => "UNCONFIRMED",
        (true, true, false) => "armed",
        (true, false, false) => "NOT ARMED",
        (false, _, false) => "NOT SERVED",
    };
    let addresses: Vec<String> = slot.addresses.iter().map(ToString::to_string).collect();
    [
        slot.name.to_string(),
        slot.epoch.clone(),
        name(&slot.active),
        name(&slot.standby),
        state.to_owned(),
        addresses.join(" "),
    ]
}

fn element_row(element: &ElementStatus) -> [String; 9] {
    let quarantined = !element.quarantines.is_empty();
    let state = match (element.incarnation, element.able) {
        (None, _) => "ABSENT",
        (Some(_), true) if quarantined => "QUARANTINE",
        (Some(_), true) => "able",
        (Some(_), false) => "NOT ABLE",
    };
    let sync = match (element.in_sync, element.sync_lag_ms) {
        (true, Some(lag)) => format!("{lag} ms"),
        (true, None) => "yes".to_owned(),
        (false, _) => "-".to_owned(),
    };
    let heard = element
        .last_heard_ms
        .map_or_else(|| "never".to_owned(), ago);
    [
        element.id.to_string(),
        element.role.to_string(),
        state.to_owned(),
        clean(&element.host),
        sync,
        heard,
        clean(&element.gate_driver),
        clean(&element.realtime),
        clean(&element.version),
    ]
}

fn quarantine_line(element: &ElementStatus, quarantine: &QuarantineStatus) -> String {
    let QuarantineStatus {
        slot,
        reason,
        until,
        at_latest,
    } = quarantine;
    format!(
        "  {}: in quarantine for slot {slot} until {until} if it is steady, at the latest until \
         {at_latest}: {reason}",
        element.id
    )
}

fn port_blocks_line(slot: &SlotStatus, blocks: &PortBlocksStatus) -> String {
    let each = blocks.in_map.iter().map(|(element, block)| {
        let in_use = if slot.active.as_ref() == Some(element) {
            " (in use)"
        } else {
            ""
        };
        format!("{element} {block}{in_use}")
    });
    let each: Vec<_> = each.collect();
    let each = match each.is_empty() {
        true => "none is set".to_owned(),
        false => each.join(", "),
    };
    format!("  {}: of {} port blocks {each}", slot.name, blocks.count)
}

fn ago(milliseconds: u64) -> String {
    match milliseconds {
        0..10_000 => format!("{milliseconds} ms ago"),
        _ => format!("{} ago", duration(milliseconds / 1_000)),
    }
}

/// The two largest units of a time.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let texts = [0, 59, 60, 3_599, 3_600, 90_061].map(duration);
        assert_eq!(texts, ["0s", "59s", "1m 0s", "59m 59s", "1h 0m", "1d 1h"]);
    }
}
