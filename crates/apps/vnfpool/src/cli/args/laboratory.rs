//! `vnfpool demo`, `vnfpool lab`, `vnfpool bench`: what needs no pool of one's own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `vnfpool demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Print one JSON object a step
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave the lab up at the end and print how to look around
    #[arg(long)]
    pub(crate) keep: bool,
    /// Timing profile of the pool
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub(crate) profile: Profile,
    /// The network function
    #[arg(long, value_enum, default_value_t = Vnf::Gateway)]
    pub(crate) vnf: Vnf,
    /// Where to write the HTML report
    #[arg(long, value_name = "FILE", default_value = "vnfpool-demo.html")]
    pub(crate) report: PathBuf,
}

/// What the demonstrated pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Vnf {
    /// NAT and filter in the kernel
    Gateway,
    /// The same, and a load balancer in user space whose table the agents replicate
    Lb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LabCommand {
    /// Run one scenario several times and print what was measured
    #[command(after_help = LAB_RUN_EXAMPLES)]
    Run(LabRun),
    /// Run every scenario, ours and the rival's, and draw one table
    #[command(after_help = LAB_MATRIX_EXAMPLES)]
    Matrix(LabMatrix),
    /// Measure what the gate costs: packets forwarded in a second, with it and without
    #[command(after_help = LAB_GATE_EXAMPLES)]
    Gate(LabGate),
    /// List the scenarios
    List,
    /// Remove what an interrupted run left behind
    Clean,
}

/// Arguments of `vnfpool lab run`.
#[derive(Debug, Args)]
pub(crate) struct LabRun {
    /// The scenario; `vnfpool lab list` names them
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenario: String,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Timing profile of the pool
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub(crate) profile: Profile,
    /// Run the same scenario with another system as well; may be given twice
    #[arg(long, value_enum)]
    pub(crate) rival: Vec<Rival>,
    /// The rival's advert interval: 10 ms is the least its protocol allows, 1000 ms its default
    #[arg(
        long,
        value_name = "MS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(10..=40_950)
    )]
    pub(crate) advert_ms: u32,
    /// Leave the lab up if a run fails, or moves where nothing was broken, and print where its logs
    /// are
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Arguments of `vnfpool lab matrix`.
#[derive(Debug, Args)]
pub(crate) struct LabMatrix {
    /// Only these scenarios; `vnfpool lab list` names them
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Only a few short scenarios: a minute together
    #[arg(long, conflicts_with = "scenarios")]
    pub(crate) smoke: bool,
    /// Runs of each scenario
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: u32,
    /// Leave the rival out
    #[arg(long)]
    pub(crate) without_rival: bool,
    /// Timing profile of the pool
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub(crate) profile: Profile,
    /// Print JSON, one object a scenario and system, as soon as each is measured
    #[arg(long)]
    pub(crate) json: bool,
    /// Write the table as a page, anew after each scenario
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "vnfpool-matrix.html"
    )]
    pub(crate) html: Option<PathBuf>,
    /// Write the table in Markdown, anew after each scenario
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "vnfpool-matrix.md"
    )]
    pub(crate) markdown: Option<PathBuf>,
}

/// Arguments of `vnfpool lab gate`.
#[derive(Debug, Args)]
pub(crate) struct LabGate {
    /// Pairs of intervals, one with the gate and one without
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) pairs: u32,
    /// The length of an interval
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    pub(crate) interval_ms: u32,
    /// What the gateway does beside forwarding
    #[arg(long, value_enum, default_value_t = GateRules::Nat)]
    pub(crate) rules: GateRules,
    /// How the gate is attached; without it, the best way this kernel knows
    #[arg(long, value_enum)]
    pub(crate) attach: Option<Attach>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a gateway does with a packet beside forwarding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GateRules {
    /// Connection tracking, a strict filter and NAT, as the lab's gateways
    Nat,
    /// Nothing: bare forwarding, in which the gate weighs most
    None,
}

/// A way of attaching the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    /// tcx links (Linux 6.6 and newer)
    Tcx,
    /// Filters of the clsact queueing discipline
    Clsact,
}

/// Arguments of `vnfpool bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: Option<BenchCommand>,
    #[command(flatten)]
    pub(crate) takeover: BenchTakeover,
}

/// What to measure instead of takeovers.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure state replication beside conntrackd's: rate, lag, resynchronisation, memory, …
    #[command(after_help = BENCH_STATE_EXAMPLES)]
    State(BenchState),
}

/// Arguments of `vnfpool bench state`.
#[derive(Debug, Args)]
pub(crate) struct BenchState {
    /// Only this row; may be given several times
    #[arg(long, value_enum, value_name = "ROW")]
    pub(crate) only: Vec<StateRow>,
    /// Who is measured beside vnfpool
    #[arg(long, value_enum, default_value_t = StateRival::Conntrackd)]
    pub(crate) rival: StateRival,
    /// Resynchronisations and takeovers of each system; without it 3 and 5
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: Option<u32>,
    /// Small sizes: to see that it works, not to judge by
    #[arg(long)]
    pub(crate) quick: bool,
    /// Print JSON, one object a row and system
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to write the tables in Markdown, anew after each row
    #[arg(long, value_name = "FILE", default_value = "vnfpool-bench-state.md")]
    pub(crate) report: PathBuf,
}

/// A row of `vnfpool bench state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateRow {
    /// New connections a second of which the standby misses none
    Rate,
    /// Processor time of 100,000 connections
    Cpu,
    /// From a packet at the active until its entry is in the standby's kernel
    Lag,
    /// 500,000 entries, brought to a standby that has nothing
    Resync,
    /// The silent death of an active with 500,000 entries, and with none
    Takeover,
    /// Memory above the kernel's own
    Memory,
    /// 300,000 new entries at once: what is missing, how long, and what is said about it
    Burst,
    /// What the level `commit` adds to first packets, and its rate of new connections, beside `bounded`
    Commit,
    /// A function's own state: puts that the standby holds, and commits, a second
    Sdk,
}

/// Who is measured beside vnfpool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateRival {
    /// conntrackd, with an external cache and without, installed on demand
    Conntrackd,
    /// Nobody
    None,
}

/// Arguments of `vnfpool bench` without a command: takeovers.
#[derive(Debug, Args)]
pub(crate) struct BenchTakeover {
    /// Runs of each scenario; without it 20 where a figure is promised, fewer elsewhere
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) runs: Option<u32>,
    /// Only these scenarios
    #[arg(value_name = "SCENARIO")]
    pub(crate) scenarios: Vec<String>,
    /// Leave the rival out
    #[arg(long)]
    pub(crate) without_rival: bool,
    /// Print JSON, one object a scenario
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to write the tables in Markdown, anew after each scenario
    #[arg(long, value_name = "FILE", default_value = "vnfpool-bench.md")]
    pub(crate) report: PathBuf,
}

/// The time constants of the lab's pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Heartbeat 10 ms, lease 50 ms
    Default,
    /// Heartbeat 5 ms, lease 25 ms
    Fast,
    /// Follows what is measured, from 20 to 250 ms
    Auto,
    /// As default; first packets wait until the successor holds their connection
    Commit,
}

/// A system to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rival {
    /// keepalived with conntrackd, real-time scheduled, installed on demand
    Keepalived,
    /// The same scheduled as any other process, as its package comes
    KeepalivedOrdinary,
}

pub(super) const DEMO_EXAMPLES: &str = "\
Needs root: it makes network namespaces, and removes them at the end. The exit code is 1 if a
connection was lost or an address had two owners.

Examples:
  vnfpool demo
  vnfpool demo --vnf lb
  vnfpool demo --keep --profile fast";

const LAB_RUN_EXAMPLES: &str = "\
Examples:
  vnfpool lab run silent --runs 20 --json
  vnfpool lab run freeze --profile fast --rival keepalived
  vnfpool lab run silent --rival keepalived --advert-ms 1000
  vnfpool lab run load-long --rival keepalived --rival keepalived-ordinary     half an hour";

const LAB_MATRIX_EXAMPLES: &str = "\
Needs root: it makes network namespaces, and removes them at the end, also after Ctrl-C. The exit
code is 1 if vnfpool had two owners or a stale frame in any run, lost a connection that has to live,
moved where nothing was broken, was not ready again after a fault, or could not be measured. What the
rival does is never a failure. A scenario that takes ten minutes (load-long) runs only by name.

Examples:
  vnfpool lab matrix --json --html                      everything: about an hour
  vnfpool lab matrix --smoke --without-rival            a minute
  vnfpool lab matrix silent freeze --runs 5 --html=two.html";

const LAB_GATE_EXAMPLES: &str = "\
Needs root: it makes three network namespaces in a row, and removes them at the end, also after Ctrl-C.
One thread sends 64-byte frames through a gateway as fast as it can, all on one processor; the gate is
put in place and taken away in turns, its lease renewed as the agent does. It takes two intervals a
pair, a minute by default. The exit code is 1 if the closed gate forwards anything, or if nothing could
be measured; the cost itself is never a failure.

Examples:
  vnfpool lab gate
  vnfpool lab gate --rules none --json
  vnfpool lab gate --attach clsact --pairs 100 --interval-ms 500";

pub(super) const BENCH_EXAMPLES: &str = "\
Some hours in all. load-long alone is ten minutes of mixed load for each of four systems (vnfpool in
two profiles, keepalived real-time scheduled and not): 40 minutes, 20 without the rival.

Examples:
  vnfpool bench
  vnfpool bench silent freeze --runs 5
  vnfpool bench load-long --without-rival
  vnfpool bench state                                   state replication, beside conntrackd";

const BENCH_STATE_EXAMPLES: &str = "\
Needs root: it makes network namespaces, raises the kernel's limits of connection tracking, and restores
them at the end, also after Ctrl-C. Leave the machine alone meanwhile: generator, forwarding and both
ends share its processors. The exit code is 1 if a row could not be measured.

Examples:
  vnfpool bench state
  vnfpool bench state --only rate --only lag --rival none
  vnfpool bench state --quick --json                    a minute, to see that it works";
