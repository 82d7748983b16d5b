//! The manager's configuration file, written by `vnfpool manager init`.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnostic::Diagnostics;
use crate::pool::quoted;
use crate::table::{Source, Table};
use crate::value::{Number, Port};
use crate::{PORT_CONTROL, PORT_OPERATOR};

/// A manager's configuration file.
#[derive(Clone, Copy, Debug)]
pub struct ManagerFile;

/// What a manager needs to know before it has read its store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerConfig {
    /// Its name: the last part of its identity.
    pub id: String,
    /// The trust domain of every identity, such as `example.org`.
    pub trust_domain: String,
    /// Where elements and operators reach it; at least one.
    pub addresses: Vec<IpAddr>,
    /// Where its keys and its store are; none means the directory of this file.
    pub dir: Option<PathBuf>,
    /// Its ports.
    pub ports: ManagerPorts,
    /// Where `/metrics` is served; none turns it off.
    pub metrics: Option<SocketAddr>,
    /// How a silent machine is switched off; none leaves that to the operator.
    pub fencing: Option<Fencing>,
}

/// A command that switches a silent element's machine off and proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// The program, an absolute path; it gets no arguments.
    pub command: PathBuf,
    /// When it is ended and counts as failed, 1 to 300 s.
    pub timeout: Duration,
    /// Run it also when nobody is there to take the slot over.
    pub without_spare: bool,
}

/// The ports of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerPorts {
    /// UDP: control endpoint for elements (QUIC).
    pub control: u16,
    /// TCP: operator API (HTTPS).
    pub operator: u16,
}

impl Default for ManagerPorts {
    fn default() -> Self {
        Self {
            control: PORT_CONTROL,
            operator: PORT_OPERATOR,
        }
    }
}

impl ManagerFile {
    /// Parses and validates a manager's file; `file_name` is only used in errors.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its place.
    pub fn parse(text: &str, file_name: &str) -> Result<ManagerConfig, Diagnostics> {
        let source = Source::new(file_name, text);
        let tree = source.parse()?;
        let config = read_file(Table::root(&source, &tree));
        source.finish(config)
    }

    /// The configuration as a file that [`ManagerFile::parse`] reads back to the same value.
    #[must_use]
    pub fn render(config: &ManagerConfig) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = render_into(&mut text, config);
        text
    }
}

fn read_file(root: Table<'_>) -> Option<ManagerConfig> {
    let id = if root.has("id") {
        root.optional("id")
    } else {
        Some(DEFAULT_ID.to_owned())
    };
    let trust_domain = root.required::<String>("trust_domain");
    let addresses = root.required::<Vec<IpAddr>>("addresses");
    let dir = root.optional("dir");
    let ports = ManagerPorts {
        control: root
            .optional::<Port>("port_control")
            .map_or(PORT_CONTROL, Port::to_u16),
        operator: root
            .optional::<Port>("port_operator")
            .map_or(PORT_OPERATOR, Port::to_u16),
    };
    let metrics = root.table("metrics").and_then(read_metrics);
    let fencing = root.table("fencing").and_then(read_fencing);
    if let Some(id) = &id
        && let Err(error) = vnfpool_model::ElementId::new(id.as_str())
    {
        root.error("id", format!("id: {error}"), None);
    }
    if let Some(domain) = &trust_domain
        && !is_trust_domain(domain)
    {
        let message = "trust_domain: expected a-z, 0-9, '-', '_' and '.', like example.org";
        root.error("trust_domain", message, None);
    }
    if let Some(addresses) = &addresses {
        check_addresses(&root, addresses);
    }
    root.finish();
    Some(ManagerConfig {
        id: id?,
        trust_domain: trust_domain?,
        addresses: addresses?,
        dir,
        ports,
        metrics,
        fencing,
    })
}

/// The table `[metrics]` of either daemon.
pub(crate) fn read_metrics(table: Table<'_>) -> Option<SocketAddr> {
    let listen = table.required("listen");
    table.finish();
    listen
}

fn read_fencing(table: Table<'_>) -> Option<Fencing> {
    let command = table.required::<PathBuf>("command");
    if command
        .as_ref()
        .is_some_and(|command| !command.is_absolute())
    {
        let help = "the manager has no shell and no search path for it; it gets no arguments";
        table.error("command", "command: expected an absolute path", Some(help));
    }
    let timeout = table
        .optional::<Number<1, 300>>("timeout_s")
        .map_or(FENCING_TIMEOUT_S, |seconds| seconds.0);
    let without_spare = table.optional("without_spare").unwrap_or(false);
    table.finish();
    Some(Fencing {
        command: command?,
        timeout: Duration::from_secs(timeout.into()),
        without_spare,
    })
}

fn check_addresses(root: &Table<'_>, addresses: &[IpAddr]) {
    if addresses.is_empty() {
        root.error(
            "addresses",
            "addresses: expected at least one address",
            None,
        );
    }
    for address in addresses {
        if address.is_unspecified() || address.is_multicast() {
            let message = format!("addresses: {address} is nowhere an element could reach");
            let help = "give the addresses that elements and operators use";
            root.error("addresses", message, Some(help));
        }
    }
}

/// A SPIFFE trust domain: at most 255 of `a-z 0-9 - _ .`.
fn is_trust_domain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(allowed)
}

fn render_into(text: &mut String, config: &ManagerConfig) -> std::fmt::Result {
    let addresses: Vec<String> = config
        .addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    writeln!(text, "id = {}", quoted(&config.id))?;
    writeln!(text, "trust_domain = {}", quoted(&config.trust_domain))?;
    writeln!(text, "addresses = [{}]", addresses.join(", "))?;
    if let Some(dir) = &config.dir {
        writeln!(text, "dir = {}", quoted(&dir.to_string_lossy()))?;
    }
    writeln!(text, "port_control = {}", config.ports.control)?;
    writeln!(text, "port_operator = {}", config.ports.operator)?;
    if let Some(listen) = config.metrics {
        writeln!(text, "\n[metrics]\nlisten = \"{listen}\"")?;
    }
    if let Some(fencing) = &config.fencing {
        let command = quoted(&fencing.command.to_string_lossy());
        writeln!(text, "\n[fencing]\ncommand = {command}")?;
        writeln!(text, "timeout_s = {}", fencing.timeout.as_secs())?;
        writeln!(text, "without_spare = {}", fencing.without_spare)?;
    }
    Ok(())
}

const DEFAULT_ID: &str = "manager";

/// How long a fencing command may take, in seconds, when the file does not say.
const FENCING_TIMEOUT_S: u32 = 30;
