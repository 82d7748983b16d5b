//! Pool files.
//!
//! ```toml
//! [pool]
//! handle = "edge"
//! function = "nat-gateway"
//! profile = "default"          # or heartbeat_ms, lease_ms, manager_lease_ms, or lease = "auto"
//! on_quorum_loss = "serve"
//! switchback = "manual"
//!
//! [state]                       # all of it may be left out
//! connections = "bounded"       # or none, eventual, commit
//! lag_ms = 1000
//! entries = 50000
//!
//! [[slot]]
//! name = "main"
//! preferred = "gw1"
//! port_blocks = { map = "inet gateway vnfpool_main", elements = ["gw1", "gw2"], blocks_each = 4 }
//!
//! [[slot.address]]
//! address = "10.1.0.254/24"
//! lan = "inside"
//! vrid = 11
//! witnesses = ["10.1.0.10"]
//! ```

use std::fmt::Write;
use std::num::NonZeroU8;

use ipnet::IpNet;
use vnfpool_model::{
    LeaseBounds, NatMap, OnQuorumLoss, PoolSpec, PortBlocks, SlotSpec, StateSpec, Switchback,
    Timing, VirtualAddress, VirtualRouterId,
};

use crate::diagnostic::Diagnostics;
use crate::rules;
use crate::table::{Source, Table};
use crate::value::Number;

/// A file that describes one pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolFile;

impl PoolFile {
    /// Parses and validates a pool file; `file_name` is only used in errors.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its place.
    pub fn parse(text: &str, file_name: &str) -> Result<PoolSpec, Diagnostics> {
        let source = Source::new(file_name, text);
        let tree = source.parse()?;
        let root = Table::root(&source, &tree);
        let spec = read_file(root);
        if let Some(spec) = &spec {
            for finding in rules::check_pool(spec) {
                source.finding(finding);
            }
        }
        source.finish(spec)
    }

    /// The pool as a file that [`PoolFile::parse`] reads back to the same value.
    #[must_use]
    pub fn render(spec: &PoolSpec) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = render_into(&mut text, spec);
        text
    }
}

/// A named set of time constants.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    Default,
    Fast,
}

/// A lease that is no number.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lease {
    Auto,
}

fn read_file(root: Table<'_>) -> Option<PoolSpec> {
    let head = root.required_table("pool").map(read_head);
    let state = root.table("state").map(read_state);
    let slots: Vec<Option<SlotSpec>> = root.tables("slot").into_iter().map(read_slot).collect();
    root.finish();
    let (head, slots) = (head??, slots.into_iter().collect::<Option<Vec<_>>>()?);
    let state = state.unwrap_or_default();
    Some(PoolSpec {
        state,
        slots,
        ..head
    })
}

fn read_state(table: Table<'_>) -> StateSpec {
    let default = StateSpec::DEFAULT;
    let connections = table.optional("connections");
    let lag_ms = table.optional::<Number<1, LAG_MS_MAX>>("lag_ms");
    let entries = table.optional::<Number<1, ENTRIES_MAX>>("entries");
    let commit_wait_ms = table.optional::<Number<1, COMMIT_WAIT_MS_MAX>>("commit_wait_ms");
    let accept_less = table.optional("accept_less");
    table.finish();
    StateSpec {
        connections: connections.unwrap_or(default.connections),
        lag_ms: lag_ms.map_or(default.lag_ms, |number| number.0),
        entries: entries.map_or(default.entries, |number| number.0),
        commit_wait_ms: commit_wait_ms.map_or(default.commit_wait_ms, |number| number.0),
        accept_less: accept_less.unwrap_or(default.accept_less),
    }
}

/// Bounds of what `[state]` may say: a successor that is further behind is none.
const LAG_MS_MAX: u32 = 60_000;
const ENTRIES_MAX: u32 = 1_000_000;
/// A packet that waits longer is sent again by its sender.
const COMMIT_WAIT_MS_MAX: u32 = 200;

fn read_head(table: Table<'_>) -> Option<PoolSpec> {
    let handle = table.required("handle");
    let function = table.required("function");
    let (timing, lease_bounds) = read_timing(&table);
    let on_quorum_loss = table.optional("on_quorum_loss");
    let switchback = table.optional("switchback");
    table.finish();
    Some(PoolSpec {
        handle: handle?,
        function: function?,
        timing,
        lease_bounds,
        on_quorum_loss: on_quorum_loss.unwrap_or_default(),
        switchback: switchback.unwrap_or_default(),
        state: StateSpec::DEFAULT,
        slots: Vec::new(),
    })
}

/// A profile, or single constants; those left out follow from those given: the lease is five
/// heartbeats, the manager lease one second but at least two leases.
fn read_timing(table: &Table<'_>) -> (Timing, Option<LeaseBounds>) {
    let profile = table.optional::<Profile>("profile");
    let millis = |key| {
        table
            .optional::<Number<0, { u32::MAX }>>(key)
            .map(|number| number.0)
    };
    let heartbeat = millis("heartbeat_ms");
    let lease = millis("lease_ms");
    let manager_lease = millis("manager_lease_ms");
    let (min, max) = (millis("lease_min_ms"), millis("lease_max_ms"));
    if table.has("lease") {
        // Anything but "auto" was told where it was read.
        let _ = table.optional::<Lease>("lease");
        for key in ["profile", "heartbeat_ms", "lease_ms"] {
            if table.has(key) {
                table.error(
                    key,
                    format!("{key}: `lease = \"auto\"` sets it already"),
                    Some("remove one of them; lease_min_ms and lease_max_ms are its bounds"),
                );
            }
        }
        return auto(min, max, manager_lease);
    }
    for key in ["lease_min_ms", "lease_max_ms"] {
        if table.has(key) {
            table.error(
                key,
                format!("{key}: only with `lease = \"auto\"`"),
                Some("add lease = \"auto\", or remove it"),
            );
        }
    }
    for key in ["heartbeat_ms", "lease_ms", "manager_lease_ms"] {
        if table.has("profile") && table.has(key) {
            table.error(
                key,
                format!("{key}: `profile` sets it already"),
                Some("remove one of them"),
            );
        }
    }
    match profile {
        Some(Profile::Default) => return (Timing::DEFAULT, None),
        Some(Profile::Fast) => return (Timing::FAST, None),
        None => {}
    }
    let heartbeat_interval_ms = match (heartbeat, lease) {
        (Some(heartbeat), _) => heartbeat,
        (None, Some(lease)) => (lease / LEASE_HEARTBEATS).max(1),
        (None, None) => Timing::DEFAULT.heartbeat_interval_ms,
    };
    let lease_ms = lease.unwrap_or_else(|| heartbeat_interval_ms.saturating_mul(LEASE_HEARTBEATS));
    let usual = Timing::DEFAULT
        .manager_lease_ms
        .max(lease_ms.saturating_mul(2));
    let timing = Timing {
        heartbeat_interval_ms,
        lease_ms,
        manager_lease_ms: manager_lease.unwrap_or(usual),
    };
    (timing, None)
}

/// `lease = "auto"`: it begins with the usual lease, as far as the bounds allow it.
fn auto(
    min: Option<u32>,
    max: Option<u32>,
    manager_lease: Option<u32>,
) -> (Timing, Option<LeaseBounds>) {
    let bounds = LeaseBounds {
        min_ms: min.unwrap_or(AUTO_MIN_MS),
        max_ms: max.unwrap_or_else(|| AUTO_MAX_MS.max(min.unwrap_or(0))),
    };
    // Bounds in the wrong order are found later.
    let lease_ms = Timing::DEFAULT
        .lease_ms
        .min(bounds.max_ms)
        .max(bounds.min_ms);
    let usual = Timing::DEFAULT
        .manager_lease_ms
        .max(bounds.max_ms.saturating_mul(2));
    let timing = Timing {
        heartbeat_interval_ms: (lease_ms / LEASE_HEARTBEATS).max(1),
        lease_ms,
        manager_lease_ms: manager_lease.unwrap_or(usual),
    };
    (timing, Some(bounds))
}

fn read_slot(table: Table<'_>) -> Option<SlotSpec> {
    let name = table.required("name");
    let preferred = table.optional("preferred");
    let is_preferred_wrong = table.has("preferred") && preferred.is_none();
    let port_blocks = table.table("port_blocks").map(read_port_blocks);
    let addresses: Option<Vec<VirtualAddress>> = table
        .tables("address")
        .into_iter()
        .map(read_address)
        .collect::<Vec<_>>()
        .into_iter()
        .collect();
    table.finish();
    if is_preferred_wrong {
        return None;
    }
    Some(SlotSpec {
        name: name?,
        addresses: addresses?,
        preferred,
        port_blocks: match port_blocks {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

fn read_port_blocks(table: Table<'_>) -> Option<PortBlocks> {
    let map = table.required("map");
    let elements = table.required("elements");
    let each = table.optional::<Number<2, BLOCKS_EACH_MAX>>("blocks_each");
    table.finish();
    let blocks_each = each.map_or(BLOCKS_EACH, |each| u16::from(each.to_u8()));
    Some(PortBlocks {
        map: map?,
        elements: elements?,
        blocks_each,
    })
}

fn read_address(table: Table<'_>) -> Option<VirtualAddress> {
    let address = table.required::<IpNet>("address");
    let lan = table.required("lan");
    let vrid = table.required::<Number<1, 255>>("vrid");
    let witnesses = table.optional("witnesses");
    table.finish();
    Some(VirtualAddress {
        address: address?,
        lan: lan?,
        vrid: VirtualRouterId(NonZeroU8::new(vrid?.to_u8())?),
        witnesses: witnesses.unwrap_or_default(),
    })
}

fn render_into(text: &mut String, spec: &PoolSpec) -> std::fmt::Result {
    let on_quorum_loss = match spec.on_quorum_loss {
        OnQuorumLoss::Serve => "serve",
        OnQuorumLoss::Stop => "stop",
    };
    let switchback = match spec.switchback {
        Switchback::Manual => "manual",
        Switchback::Auto => "auto",
    };
    writeln!(text, "[pool]")?;
    writeln!(text, "handle = {}", quoted(spec.handle.as_str()))?;
    writeln!(text, "function = {}", quoted(&spec.function))?;
    match (spec.lease_bounds, spec.timing) {
        (Some(bounds), timing) => {
            writeln!(text, "lease = \"auto\"")?;
            writeln!(text, "lease_min_ms = {}", bounds.min_ms)?;
            writeln!(text, "lease_max_ms = {}", bounds.max_ms)?;
            writeln!(text, "manager_lease_ms = {}", timing.manager_lease_ms)?;
        }
        (None, Timing::DEFAULT) => writeln!(text, "profile = \"default\"")?,
        (None, Timing::FAST) => writeln!(text, "profile = \"fast\"")?,
        (None, timing) => {
            writeln!(text, "heartbeat_ms = {}", timing.heartbeat_interval_ms)?;
            writeln!(text, "lease_ms = {}", timing.lease_ms)?;
            writeln!(text, "manager_lease_ms = {}", timing.manager_lease_ms)?;
        }
    }
    writeln!(text, "on_quorum_loss = \"{on_quorum_loss}\"")?;
    writeln!(text, "switchback = \"{switchback}\"")?;
    if spec.state != StateSpec::DEFAULT {
        let state = spec.state;
        writeln!(text, "\n[state]")?;
        writeln!(text, "connections = \"{}\"", state.connections.as_str())?;
        writeln!(text, "lag_ms = {}", state.lag_ms)?;
        writeln!(text, "entries = {}", state.entries)?;
        writeln!(text, "commit_wait_ms = {}", state.commit_wait_ms)?;
        writeln!(text, "accept_less = {}", state.accept_less)?;
    }
    for slot in &spec.slots {
        writeln!(text, "\n[[slot]]")?;
        writeln!(text, "name = {}", quoted(slot.name.as_str()))?;
        if let Some(preferred) = &slot.preferred {
            writeln!(text, "preferred = {}", quoted(preferred.as_str()))?;
        }
        if let Some(blocks) = &slot.port_blocks {
            let NatMap {
                family,
                table,
                name,
            } = &blocks.map;
            let elements: Vec<_> = blocks.elements.iter().map(|e| quoted(e.as_str())).collect();
            writeln!(
                text,
                "port_blocks = {{ map = {}, elements = [{}], blocks_each = {} }}",
                quoted(&format!("{family} {table} {name}")),
                elements.join(", "),
                blocks.blocks_each
            )?;
        }
        for address in &slot.addresses {
            writeln!(text, "\n[[slot.address]]")?;
            writeln!(text, "address = \"{}\"", address.address)?;
            writeln!(text, "lan = {}", quoted(&address.lan))?;
            writeln!(text, "vrid = {}", address.vrid)?;
            if !address.witnesses.is_empty() {
                let list: Vec<String> = address
                    .witnesses
                    .iter()
                    .map(|witness| format!("\"{witness}\""))
                    .collect();
                writeln!(text, "witnesses = [{}]", list.join(", "))?;
            }
        }
    }
    Ok(())
}

/// A text as a TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Bounds of `lease = "auto"` where the file has none.
const AUTO_MIN_MS: u32 = 20;
const AUTO_MAX_MS: u32 = 250;

/// Blocks of an element where the file does not say.
const BLOCKS_EACH: u16 = 4;
const BLOCKS_EACH_MAX: u32 = 64;

/// Heartbeats in a lease when only one of the two is given.
const LEASE_HEARTBEATS: u32 = 5;
