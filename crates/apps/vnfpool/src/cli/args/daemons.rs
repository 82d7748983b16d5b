//! `vnfpool manager`, `vnfpool element`: the two daemons and how they are set up.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum ManagerCommand {
    /// Make the certificate authority, the manager's and the first operator's certificate
    #[command(after_help = MANAGER_INIT_EXAMPLES)]
    Init(ManagerInit),
    /// Run the manager in the foreground
    #[command(after_help = MANAGER_RUN_EXAMPLES)]
    Run(ManagerRun),
}

/// Arguments of `vnfpool manager init`.
#[derive(Debug, Args)]
pub(crate) struct ManagerInit {
    /// The manager's directory; must not hold a manager yet
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Trust domain of every identity, for example example.org
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) trust_domain: String,
    /// Address where elements and operators reach the manager; may be given several times
    #[arg(long = "address", value_name = "IP", required = true)]
    pub(crate) addresses: Vec<IpAddr>,
    /// Name of this manager
    #[arg(long, value_name = "ID", default_value = "manager")]
    pub(crate) id: String,
}

/// Arguments of `vnfpool manager run`.
#[derive(Debug, Args)]
pub(crate) struct ManagerRun {
    /// The directory that `vnfpool manager init` made
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ElementCommand {
    /// Enrol this element with a one-time token
    #[command(after_help = ELEMENT_JOIN_EXAMPLES)]
    Join(ElementJoin),
    /// Run the element's agent in the foreground, once: `supervise` also starts it again
    #[command(after_help = ELEMENT_RUN_EXAMPLES)]
    Run(ElementRun),
    /// Run the element's agent, and start it again at once when it is killed or crashes
    #[command(after_help = ELEMENT_SUPERVISE_HELP)]
    Supervise(ElementRun),
}

/// Arguments of `vnfpool element join`.
#[derive(Debug, Args)]
pub(crate) struct ElementJoin {
    /// Directory for the element's key and certificates
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The token that `vnfpool token create` printed
    #[arg(
        long,
        value_name = "TOKEN",
        env = "VNFPOOL_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: String,
    /// The manager's control endpoint
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) manager: SocketAddr,
}

/// Arguments of `vnfpool element run`.
#[derive(Debug, Args)]
pub(crate) struct ElementRun {
    /// The element's configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/vnfpool/element.toml")]
    pub(crate) config: PathBuf,
}

const MANAGER_INIT_EXAMPLES: &str = "\
Examples:
  vnfpool manager init --dir /var/lib/vnfpool/manager --trust-domain example.org --address 10.9.0.10";

const MANAGER_RUN_EXAMPLES: &str = "\
Examples:
  vnfpool manager run --dir /var/lib/vnfpool/manager";

const ELEMENT_JOIN_EXAMPLES: &str = "\
Examples:
  vnfpool element join --dir /var/lib/vnfpool/element --token vnfpool1.… --manager 10.9.0.10:7400";

const ELEMENT_SUPERVISE_HELP: &str = "\
The agent that is started again goes on with the slots where the former one was, within the lease:
nothing moves. The same when SIGHUP replaces it, for example by a new version of the program.

Examples:
  vnfpool element supervise --config /etc/vnfpool/element.toml
  systemctl reload vnfpool-element     # after an upgrade";

const ELEMENT_RUN_EXAMPLES: &str = "\
Examples:
  vnfpool element run --config /etc/vnfpool/element.toml";
