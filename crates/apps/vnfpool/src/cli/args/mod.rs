//! The command line: every command, argument and help text.

mod daemons;
mod laboratory;
mod operator;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use self::daemons::{
    ElementCommand, ElementJoin, ElementRun, ManagerCommand, ManagerInit, ManagerRun,
};
pub(crate) use self::laboratory::{
    Attach, Bench, BenchCommand, BenchState, BenchTakeover, Demo, GateRules, LabCommand, LabGate,
    LabMatrix, LabRun, Profile, Rival, StateRival, StateRow, Vnf,
};
use self::laboratory::{BENCH_EXAMPLES, DEMO_EXAMPLES};
pub(crate) use self::operator::{
    Audit, Fence, Pardon, PoolApply, PoolCommand, PoolDelete, PoolShow, Status, Switchover,
    TokenCommand, TokenCreate, Watch,
};
use self::operator::{
    FENCE_EXAMPLES, PARDON_EXAMPLES, STATUS_EXAMPLES, SWITCHOVER_EXAMPLES, WATCH_EXAMPLES,
};

/// Version and commit, as `vnfpool --version` prints them.
pub(crate) const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("VNFPOOL_COMMIT"), ")");

/// Pools of network function instances that behave as one reliable function
#[derive(Debug, Parser)]
#[command(name = "vnfpool", version = VERSION, propagate_version = false, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Directory with ca.pem, cert.pem, key.pem and manager (the URL of the operator API)
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "VNFPOOL_ADMIN",
        default_value = "/etc/vnfpool/admin",
        help_heading = "Access"
    )]
    pub(crate) admin: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up or run the pool manager
    #[command(subcommand)]
    Manager(ManagerCommand),
    /// Enrol or run the agent beside one network function instance
    #[command(subcommand)]
    Element(ElementCommand),
    /// Create, change, show or delete pools
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Make one-time tokens that let an element join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show pools, slots, elements and who serves
    #[command(after_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Follow events as they happen
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(Watch),
    /// Show the newest entries of the manager's audit log
    Audit(Audit),
    /// Hand a slot over to its standby: planned, nothing lost
    #[command(after_help = SWITCHOVER_EXAMPLES)]
    Switchover(Switchover),
    /// Declare an element dead, on your word that it is off
    #[command(after_help = FENCE_EXAMPLES)]
    Fence(Fence),
    /// End the quarantine of an element that flapped
    #[command(after_help = PARDON_EXAMPLES)]
    Pardon(Pardon),
    /// Check configuration files without applying them
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Build a lab of two gateways in network namespaces and break it before your eyes
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Run single fault scenarios in the lab
    #[command(subcommand)]
    Lab(LabCommand),
    /// The example of a function with state of its own: a load balancer, for `demo --vnf lb`
    #[command(hide = true)]
    Lb(vnfpool_lb::Options),
    /// A function that loads its agent, for `bench state --only sdk`
    #[command(hide = true)]
    SdkLoad(crate::sdk_load::Options),
    /// Measure the figures of docs/performance.md beside keepalived's
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// Print a completion script for your shell
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Files to check: pool, element or manager configuration
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// How to print a result.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print JSON for machines
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  vnfpool demo                                     see it work on this machine
  vnfpool check pool.toml element.toml             check files before using them
  vnfpool pool apply -f pool.toml                  create or change a pool
  vnfpool token create --pool edge --element gw1   let an element join
  vnfpool status                                   who serves, who stands by
  vnfpool switchover edge                          hand over to the standby";

const CHECK_EXAMPLES: &str = "\
The kind of a file is recognised by what it holds. The exit code is 1 if any file has an error.

Examples:
  vnfpool check /etc/vnfpool/element.toml
  vnfpool check edge.toml dns.toml          also finds addresses used by two pools";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  vnfpool completion bash > /etc/bash_completion.d/vnfpool
  vnfpool completion zsh > \"${fpath[1]}/_vnfpool\"";
