//! The tables of an element's configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use vnfpool_model::{LanName, PoolHandle};

use crate::table::Table;
use crate::value::Number;

/// A LAN that carries virtual addresses, as this element is connected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lan {
    /// The LAN's label, the same on every element.
    pub name: LanName,
    /// This element's interface on it, at most 15 bytes.
    pub interface: String,
    /// This element's own address on it.
    pub address: IpAddr,
}

/// A further path for heartbeats, such as a link between the gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Its label, the same on every element.
    pub name: String,
    /// This element's own address on it.
    pub address: IpAddr,
}

/// How the health of the function is judged; every part is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The kernel must forward these families.
    pub forwarding: Vec<Family>,
    /// This nftables table must be there.
    pub ruleset: Option<Ruleset>,
    /// These interfaces must be up, with carrier.
    pub interfaces: Vec<String>,
    /// A command that tries the function.
    pub probe: Option<Probe>,
    /// The function is the process whose number this file holds.
    pub pid_file: Option<PathBuf>,
}

/// An address family that the kernel forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// An nftables table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its name.
    pub table: String,
}

/// A test of the function, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is done.
    pub test: ProbeTest,
    /// Time from one start to the next.
    pub interval: Duration,
    /// When it counts as failed.
    pub timeout: Duration,
}

/// What a probe does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeTest {
    /// A program and its arguments, which exits 0 while the function works.
    Command(Vec<String>),
    /// A question to the function's control socket.
    Socket {
        /// The Unix socket.
        socket: PathBuf,
        /// The line that is sent.
        send: String,
        /// What the answer contains while the function works.
        expect: String,
    },
}

/// What is said to the function's control socket around a planned handover, so that it ends what it
/// can end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The Unix socket.
    pub socket: PathBuf,
    /// The line that is sent before.
    pub begin: String,
    /// The line that is sent afterwards, whether it was handed over or not.
    pub end: String,
    /// The time between `begin` and the handover.
    pub time: Duration,
}

/// Commands on changes of role: ordered, one at a time, never in the way of a takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments when the element became active; empty for none.
    pub on_active: Vec<String>,
    /// The same when it became standby.
    pub on_standby: Vec<String>,
    /// The same when its function failed.
    pub on_fault: Vec<String>,
    /// When a command is ended.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            on_active: Vec::new(),
            on_standby: Vec::new(),
            on_fault: Vec::new(),
            timeout: HOOK_TIMEOUT,
        }
    }
}

/// What drops packets to and from virtual addresses without a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateDriver {
    /// A program in the kernel's packet path.
    #[default]
    Bpf,
    /// Adding and removing the addresses, where BPF is missing; a frozen agent keeps them.
    Addresses,
}

impl GateDriver {
    /// The driver in one word, as the file and `status` print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Addresses => "addresses",
        }
    }
}

/// The socket at which a function registers that has its state replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdk {
    /// Where it is, an absolute path.
    pub socket: PathBuf,
    /// Its permissions.
    pub mode: u32,
    /// This user owns it and may connect, beside root and the agent's own.
    pub uid: Option<u32>,
    /// The same for this group.
    pub gid: Option<u32>,
    /// Without a registered function this element could not serve.
    pub required: bool,
}

impl Default for Sdk {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(SDK_SOCKET),
            mode: 0o600,
            uid: None,
            gid: None,
            required: true,
        }
    }
}

/// Scheduling of the heartbeat thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Realtime {
    /// Whether to ask for `SCHED_FIFO` and locked memory.
    pub enabled: bool,
    /// The priority, 1 to 99.
    pub priority: u8,
}

impl Default for Realtime {
    fn default() -> Self {
        Self {
            enabled: true,
            priority: REALTIME_PRIORITY,
        }
    }
}

pub(super) fn read_lan(table: Table<'_>) -> Option<Lan> {
    let name = table.required::<String>("name");
    let interface = table.required::<String>("interface");
    let address = table.required::<IpAddr>("address");
    check_label(&table, name.as_deref());
    if let Some(interface) = &interface {
        check_interface(&table, "interface", interface);
    }
    check_own_address(&table, address);
    table.finish();
    Some(Lan {
        name: name?,
        interface: interface?,
        address: address?,
    })
}

pub(super) fn read_path(table: Table<'_>) -> Option<Path> {
    let name = table.required::<String>("name");
    let address = table.required::<IpAddr>("address");
    check_label(&table, name.as_deref());
    check_own_address(&table, address);
    table.finish();
    Some(Path {
        name: name?,
        address: address?,
    })
}

pub(super) fn read_health(table: Table<'_>) -> Health {
    let health = Health {
        forwarding: table.optional("forwarding").unwrap_or_default(),
        ruleset: table.optional("ruleset"),
        interfaces: table.optional("interfaces").unwrap_or_default(),
        probe: table.table("probe").and_then(read_probe),
        pid_file: table.optional("pid_file"),
    };
    for interface in &health.interfaces {
        check_interface(&table, "interfaces", interface);
    }
    table.finish();
    health
}

fn read_probe(table: Table<'_>) -> Option<Probe> {
    let test = match table.has("socket") {
        true => read_socket_test(&table),
        false => read_command_test(&table),
    };
    let interval = millis::<1, 3_600_000>(&table, "interval_ms").unwrap_or(PROBE_INTERVAL);
    let timeout = millis::<1, 3_600_000>(&table, "timeout_ms").unwrap_or(PROBE_TIMEOUT);
    table.finish();
    Some(Probe {
        test: test?,
        interval,
        timeout,
    })
}

fn read_command_test(table: &Table<'_>) -> Option<ProbeTest> {
    let command = table.required::<Vec<String>>("command");
    if command.as_ref().is_some_and(Vec::is_empty) {
        table.error(
            "command",
            "command: expected a program and its arguments",
            None,
        );
    }
    command.map(ProbeTest::Command)
}

fn read_socket_test(table: &Table<'_>) -> Option<ProbeTest> {
    if table.has("command") {
        table.error(
            "command",
            "command: a probe with a socket has none",
            Some("remove one of them"),
        );
    }
    let (socket, send, expect) = (
        table.required("socket"),
        read_line(table, "send"),
        read_line(table, "expect"),
    );
    Some(ProbeTest::Socket {
        socket: socket?,
        send: send?,
        expect: expect?,
    })
}

pub(super) fn read_drain(table: Table<'_>) -> Option<Drain> {
    let socket = table.required("socket");
    let (begin, end) = (read_line(&table, "begin"), read_line(&table, "end"));
    let time = millis::<1, DRAIN_MS_MAX>(&table, "time_ms").unwrap_or(DRAIN_TIME);
    table.finish();
    Some(Drain {
        socket: socket?,
        begin: begin?,
        end: end?,
        time,
    })
}

/// What is a line of text on a socket.
fn read_line(table: &Table<'_>, key: &'static str) -> Option<String> {
    let line = table.required::<String>(key)?;
    if line.contains(['\n', '\r']) {
        table.error(key, format!("{key}: expected a single line"), None);
    }
    Some(line)
}

pub(super) fn read_hooks(table: Table<'_>) -> Hooks {
    let command = |key| {
        let command: Option<Vec<String>> = table.optional(key);
        command.unwrap_or_default()
    };
    let hooks = Hooks {
        on_active: command("on_active"),
        on_standby: command("on_standby"),
        on_fault: command("on_fault"),
        timeout: millis::<1, 600_000>(&table, "timeout_ms").unwrap_or(HOOK_TIMEOUT),
    };
    table.finish();
    hooks
}

pub(super) fn read_gate(table: Table<'_>) -> GateDriver {
    let driver = table.optional("driver");
    table.finish();
    driver.unwrap_or_default()
}

pub(super) fn read_realtime(table: Table<'_>) -> Realtime {
    let priority = |number: Number<1, 99>| number.to_u8();
    let realtime = Realtime {
        enabled: table.optional("enabled").unwrap_or(true),
        priority: table
            .optional("priority")
            .map_or(REALTIME_PRIORITY, priority),
    };
    table.finish();
    realtime
}

pub(super) fn read_sdk(table: Table<'_>) -> Option<Sdk> {
    let socket = table.optional::<PathBuf>("socket");
    if socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
        let help = "the function finds it by this path, from wherever it was started";
        table.error("socket", "socket: expected an absolute path", Some(help));
    }
    let default = Sdk::default();
    let uid = table.optional::<Number<0, 0xffff_fffe>>("uid");
    let gid = table.optional::<Number<0, 0xffff_fffe>>("gid");
    let mode = table.optional::<Number<0, 0o777>>("mode");
    // Who is named here shall get in.
    let mode_default = if gid.is_some() { 0o660 } else { default.mode };
    let sdk = Sdk {
        socket: socket.unwrap_or(default.socket),
        mode: mode.map_or(mode_default, |mode| mode.0),
        uid: uid.map(|uid| uid.0),
        gid: gid.map(|gid| gid.0),
        required: table.optional("required").unwrap_or(default.required),
    };
    table.finish();
    Some(sdk)
}

fn millis<const MIN: u32, const MAX: u32>(
    table: &Table<'_>,
    key: &'static str,
) -> Option<Duration> {
    let number = table.optional::<Number<MIN, MAX>>(key)?;
    Some(Duration::from_millis(u64::from(number.0)))
}

fn check_label(table: &Table<'_>, name: Option<&str>) {
    if let Some(Err(error)) = name.map(PoolHandle::new) {
        table.error("name", format!("name: {error}"), None);
    }
}

fn check_own_address(table: &Table<'_>, address: Option<IpAddr>) {
    let is_unusable = |ip: &IpAddr| ip.is_unspecified() || ip.is_multicast();
    if let Some(address) = address.filter(is_unusable) {
        let message = format!("address: {address} is no address of an interface");
        table.error("address", message, None);
    }
}

/// The kernel's rules for interface names (`dev_valid_name`).
fn check_interface(table: &Table<'_>, key: &str, name: &str) {
    let is_valid = (1..=INTERFACE_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if !is_valid {
        let message = format!(
            "{key}: expected the name of an interface, at most {INTERFACE_BYTES_MAX} characters \
             without space, '/' and ':', found \"{}\"",
            name.escape_debug()
        );
        table.error(key, message, None);
    }
}

/// `IFNAMSIZ` without the closing zero.
const INTERFACE_BYTES_MAX: usize = 15;
const HOOK_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// An operator waits for a switchover no longer than that and some seconds.
const DRAIN_MS_MAX: u32 = 3_000;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const SDK_SOCKET: &str = "/run/vnfpool/sdk.sock";
const REALTIME_PRIORITY: u8 = 40;
