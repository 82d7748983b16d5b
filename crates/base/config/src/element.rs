//! An element's configuration file.
//!
//! ```toml
//! element = "gw1"
//! pool = "edge"
//! function = "nat-gateway"
//! host = "host-1"
//! dir = "/var/lib/vnfpool/element"
//! manager = "10.9.0.10:7400"
//!
//! [[lan]]
//! name = "inside"
//! interface = "in"
//! address = "10.1.0.1"
//! ```
//!
//! All other keys have defaults; `packaging/examples/element.toml` shows every one.

mod parts;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use vnfpool_model::{ElementId, PoolHandle};

pub use parts::{
    Drain, Family, GateDriver, Health, Hooks, Lan, Path, Probe, ProbeTest, Realtime, Ruleset, Sdk,
};

use crate::diagnostic::Diagnostics;
use crate::manager::read_metrics;
use crate::table::{Source, Table};
use crate::value::{Number, Port};
use crate::{PORT_HEARTBEAT, PORT_STATE};

/// An element's configuration file.
#[derive(Clone, Copy, Debug)]
pub struct ElementFile;

/// What an element's agent needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementConfig {
    /// The element's name within its pool; must be the one in its certificate.
    pub element: ElementId,
    /// Its pool; must be the one in its certificate.
    pub pool: PoolHandle,
    /// The function it provides; the manager refuses another one than the pool's.
    pub function: String,
    /// The host it runs on: active and standby are never on one host.
    pub host: String,
    /// Further labels for placement, such as `rack`.
    pub labels: BTreeMap<String, String>,
    /// How much it can carry, relative to the other elements.
    pub capacity: u32,
    /// Where its key and certificates are.
    pub dir: PathBuf,
    /// The manager's control endpoint.
    pub manager: SocketAddr,
    /// The LANs it is on; at least one.
    pub lans: Vec<Lan>,
    /// Further paths for heartbeats and service state.
    pub paths: Vec<Path>,
    /// How the health of the function is judged.
    pub health: Health,
    /// How the function is drained before a planned handover; none: it is not.
    pub drain: Option<Drain>,
    /// The operator's commands on changes of role.
    pub hooks: Hooks,
    /// Where `/metrics` is served; none turns it off.
    pub metrics: Option<SocketAddr>,
    /// What drops packets without a lease.
    pub gate: GateDriver,
    /// Scheduling of the heartbeat thread.
    pub realtime: Realtime,
    /// Where a function registers that has its state replicated; none turns it off.
    pub sdk: Option<Sdk>,
    /// Its ports.
    pub ports: ElementPorts,
}

/// The ports of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElementPorts {
    /// UDP: heartbeats.
    pub heartbeat: u16,
    /// From element to element: UDP for keys (QUIC), TCP for service state.
    pub state: u16,
}

impl Default for ElementPorts {
    fn default() -> Self {
        Self {
            heartbeat: PORT_HEARTBEAT,
            state: PORT_STATE,
        }
    }
}

impl ElementFile {
    /// Parses and validates an element's file; `file_name` is only used in errors.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its place.
    pub fn parse(text: &str, file_name: &str) -> Result<ElementConfig, Diagnostics> {
        let source = Source::new(file_name, text);
        let tree = source.parse()?;
        let config = read_file(Table::root(&source, &tree));
        source.finish(config)
    }
}

fn read_file(root: Table<'_>) -> Option<ElementConfig> {
    let element = root.required("element");
    let pool = root.required("pool");
    let function = root.required::<String>("function");
    let host = root.required("host");
    let rack = root.optional("rack");
    let capacity = root.optional::<Number<1, 1_000_000>>("capacity");
    let dir = root.required("dir");
    let manager = root.required::<SocketAddr>("manager");
    let ports = read_ports(&root);
    let lans: Vec<Option<Lan>> = root
        .tables("lan")
        .into_iter()
        .map(parts::read_lan)
        .collect();
    let paths: Vec<Option<Path>> = root
        .tables("path")
        .into_iter()
        .map(parts::read_path)
        .collect();
    let health = root.table("health").map(parts::read_health);
    let drain = root.table("drain").map(parts::read_drain);
    let hooks = root.table("hooks").map(parts::read_hooks);
    let metrics = root.table("metrics").and_then(read_metrics);
    let gate = root.table("gate").map(parts::read_gate);
    let realtime = root.table("realtime").map(parts::read_realtime);
    let sdk = root.table("sdk").and_then(parts::read_sdk);
    let labels = read_labels(&root, rack);
    if let Some(function) = &function
        && let Err(error) = PoolHandle::new(function.as_str())
    {
        root.error("function", format!("function: {error}"), None);
    }
    if let Some(manager) = &manager
        && (manager.ip().is_unspecified() || manager.port() == 0)
    {
        let message = format!("manager: {manager} cannot be reached");
        root.error(
            "manager",
            message,
            Some("give the address and control port of the manager"),
        );
    }
    check_uniqueness(&root, &lans, &paths);
    root.finish();
    Some(ElementConfig {
        element: element?,
        pool: pool?,
        function: function?,
        host: host?,
        labels,
        capacity: capacity.map_or(DEFAULT_CAPACITY, |number| number.0),
        dir: dir?,
        manager: manager?,
        lans: lans.into_iter().collect::<Option<_>>()?,
        paths: paths.into_iter().collect::<Option<_>>()?,
        health: health.unwrap_or_default(),
        drain: match drain {
            Some(read) => Some(read?),
            None => None,
        },
        hooks: hooks.unwrap_or_default(),
        metrics,
        gate: gate.unwrap_or_default(),
        realtime: realtime.unwrap_or_default(),
        sdk,
        ports,
    })
}

fn read_ports(root: &Table<'_>) -> ElementPorts {
    let ports = ElementPorts {
        heartbeat: root
            .optional::<Port>("port_heartbeat")
            .map_or(PORT_HEARTBEAT, Port::to_u16),
        state: root
            .optional::<Port>("port_state")
            .map_or(PORT_STATE, Port::to_u16),
    };
    if ports.heartbeat == ports.state {
        let key = if root.has("port_state") {
            "port_state"
        } else {
            "port_heartbeat"
        };
        let message = format!(
            "{key}: heartbeats and service state cannot share port {}",
            ports.state
        );
        root.error(key, message, None);
    }
    ports
}

fn read_labels(root: &Table<'_>, rack: Option<String>) -> BTreeMap<String, String> {
    let mut labels = root
        .table("labels")
        .map(|table| table.texts())
        .unwrap_or_default();
    if let Some(rack) = rack
        && labels.insert("rack".to_owned(), rack).is_some()
    {
        root.error(
            "rack",
            "rack: [labels] sets it already",
            Some("remove one of them"),
        );
    }
    labels
}

/// One interface, one name, one address each: a path counted twice would hide a broken one.
fn check_uniqueness(root: &Table<'_>, lans: &[Option<Lan>], paths: &[Option<Path>]) {
    if lans.is_empty() {
        let help = "add [[lan]] with name, interface and address for each LAN of a virtual address";
        root.error("lan", "an element needs at least one [[lan]]", Some(help));
    }
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut interfaces: BTreeMap<&str, String> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, String> = BTreeMap::new();
    for (index, lan) in lans.iter().enumerate() {
        let Some(lan) = lan else { continue };
        let owner = format!("LAN '{}'", lan.name);
        let path = format!("lan.{index}");
        if names.insert(&lan.name, owner.clone()).is_some() {
            root.contradiction(
                &format!("{path}.name"),
                format!("name: {owner} is there twice"),
            );
        }
        if let Some(other) = interfaces.insert(&lan.interface, owner.clone()) {
            let message = format!("interface: '{}' already belongs to {other}", lan.interface);
            root.contradiction(&format!("{path}.interface"), message);
        }
        if let Some(other) = addresses.insert(lan.address, owner) {
            let message = format!("address: {} already belongs to {other}", lan.address);
            root.contradiction(&format!("{path}.address"), message);
        }
    }
    for (index, path) in paths.iter().enumerate() {
        let Some(path) = path else { continue };
        let owner = format!("path '{}'", path.name);
        if let Some(other) = names.insert(&path.name, owner.clone()) {
            let message = format!("name: '{}' already names {other}", path.name);
            root.contradiction(&format!("path.{index}.name"), message);
        }
        if let Some(other) = addresses.insert(path.address, owner) {
            let message = format!("address: {} already belongs to {other}", path.address);
            root.contradiction(&format!("path.{index}.address"), message);
        }
    }
}

const DEFAULT_CAPACITY: u32 = 100;
