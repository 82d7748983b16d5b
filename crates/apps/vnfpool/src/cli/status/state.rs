//! The part of `vnfpool status` about the replication of service state.

use vnfpool_northbound::{ClassStatus, DowngradeStatus, PoolStatus, SlotStatus};

use super::{ago, clean, table};
use crate::cli::output::Output;

/// Prints each class of each slot at each standby, and below them what is not as it should be.
pub(super) fn print(pool: &PoolStatus, output: &mut Output) -> anyhow::Result<()> {
    let header = [
        "SLOT", "CLASS", "LEVEL", "STANDBY", "SYNC", "ENTRIES", "OVERRUNS", "EVENTS",
    ];
    let mut classes = table(&header);
    let mut lines = Vec::new();
    let each = pool
        .slots
        .iter()
        .flat_map(|slot| slot.state.iter().map(move |class| (slot, class)));
    for (slot, class) in each {
        classes.add_row(row(slot, class));
        lines.extend(remarks(slot, class));
    }
    if pool.slots.iter().any(|slot| !slot.state.is_empty()) {
        output.table(&classes)?;
    }
    lines.iter().try_for_each(|line| output.line(clean(line)))
}

fn row(slot: &SlotStatus, class: &ClassStatus) -> [String; 8] {
    let standby = class.standby.as_ref();
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let sync = match (class.in_sync, standby) {
        (true, _) => "yes",
        (false, Some(_)) => "NO",
        (false, None) => "-",
    };
    [
        slot.name.to_string(),
        clean(&class.class),
        clean(&level(class)),
        or_none(standby.map(ToString::to_string)),
        sync.to_owned(),
        class.entries.to_string(),
        class.overruns.to_string(),
        clean(&or_none(class.event_source.clone())),
    ]
}

/// The level now, and the demanded one if it is another.
fn level(class: &ClassStatus) -> String {
    let demanded = &class.demanded;
    match &class.level {
        Some(level) if level == demanded => level.clone(),
        Some(level) => format!("{level} OF {demanded}"),
        // Nobody is asked to hold it.
        None if demanded == "none" => demanded.clone(),
        None => format!("- OF {demanded}"),
    }
}

fn remarks(slot: &SlotStatus, class: &ClassStatus) -> Vec<String> {
    let at = class.standby.as_ref();
    let at = at.map_or_else(String::new, |standby| format!(" at {standby}"));
    let what = format!("  {}: {}{at}", slot.name, class.class);
    let mut lines = Vec::new();
    if let Some(reason) = &class.reason {
        let verdict = match &class.agreed {
            Some(agreed) => format!("{agreed} instead of {}", class.demanded),
            None => "NOT HELD".to_owned(),
        };
        lines.push(format!("{what}: {verdict}: {reason}"));
    }
    if let Some(one) = &class.downgrade {
        let began = ago(one.began_ms);
        lines.push(format!(
            "{what}: DOWNGRADED to {} {began}: {}",
            one.level, one.reason
        ));
    }
    if let Some(one) = &class.last_downgrade {
        lines.push(format!("{what}: {}", past(one, class.downgrades)));
    }
    if class.overruns > 0 {
        lines.push(format!("{what}: {}", overruns(class)));
    }
    if let Some(reason) = &class.fallback_reason {
        lines.push(format!(
            "{what}: events do not come through a ring: {reason}"
        ));
    }
    lines
}

fn past(one: &DowngradeStatus, count: u64) -> String {
    let lasted = one.lasted_ms.unwrap_or_default();
    let began = ago(one.began_ms);
    let unheld = match one.unheld {
        Some(packets @ 1..) => format!("; {packets} first packets did not wait"),
        _ => String::new(),
    };
    format!(
        "downgrades: {count}, the last one to {}, began {began}, for {lasted} ms{unheld}: {}",
        one.level, one.reason
    )
}

fn overruns(class: &ClassStatus) -> String {
    let lost = match class.changes_lost {
        0 => "changes lost".to_owned(),
        lost => format!("{lost} changes lost"),
    };
    let when = class
        .overrun_ms
        .map_or_else(String::new, |at| format!(" {}", ago(at)));
    let repaired = match class.repaired_ms {
        Some(at) => format!("repaired {}", ago(at)),
        None => "NOT REPAIRED YET".to_owned(),
    };
    format!(
        "overruns: {}, {lost}; the last one{when}, {repaired}",
        class.overruns
    )
}
