//! What an operator says to a manager: pools, tokens, status, events, switchovers.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use vnfpool_model::{ElementId, PoolHandle, SlotName};

use super::OutputArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Create a pool from a file, or change it to what the file says
    #[command(after_help = POOL_APPLY_EXAMPLES)]
    Apply(PoolApply),
    /// List all pools
    List(OutputArgs),
    /// Show one pool
    Show(PoolShow),
    /// Delete a pool: its elements close first, and say so
    Delete(PoolDelete),
}

#[derive(Debug, Args)]
pub(crate) struct PoolApply {
    /// The pool file; - reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PoolShow {
    /// The pool's handle
    #[arg(value_name = "POOL")]
    pub(crate) handle: PoolHandle,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PoolDelete {
    /// The pool's handle
    #[arg(value_name = "POOL")]
    pub(crate) handle: PoolHandle,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a token that lets one element join one pool, once
    #[command(after_help = TOKEN_EXAMPLES)]
    Create(TokenCreate),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// The pool to join
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: PoolHandle,
    /// The name that the element will have
    #[arg(long, value_name = "ELEMENT")]
    pub(crate) element: ElementId,
    /// How long the token can be used: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = crate::cli::token::parse_ttl)]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Only this pool
    #[arg(value_name = "POOL")]
    pub(crate) pool: Option<PoolHandle>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Only events of this pool
    #[arg(value_name = "POOL")]
    pub(crate) pool: Option<PoolHandle>,
    /// Begin after this event instead of with the next one
    #[arg(long, value_name = "SEQUENCE")]
    pub(crate) since: Option<u64>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// How many entries, newest last
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 50)]
    pub(crate) lines: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Switchover {
    /// The pool's handle
    #[arg(value_name = "POOL")]
    pub(crate) pool: PoolHandle,
    /// The element that shall serve; the armed standby if left out
    #[arg(long, value_name = "ELEMENT")]
    pub(crate) to: Option<ElementId>,
    /// The slot; may be left out when the pool has one
    #[arg(long, value_name = "SLOT")]
    pub(crate) slot: Option<SlotName>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Fence {
    /// The pool's handle
    #[arg(value_name = "POOL")]
    pub(crate) pool: PoolHandle,
    /// The element that is certainly off
    #[arg(value_name = "ELEMENT")]
    pub(crate) element: ElementId,
    /// Confirm that the element is switched off and cannot come back by itself
    #[arg(long, required = true)]
    pub(crate) it_is_off: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Pardon {
    /// The pool's handle
    #[arg(value_name = "POOL")]
    pub(crate) pool: PoolHandle,
    /// The element that may be armed again
    #[arg(value_name = "ELEMENT")]
    pub(crate) element: ElementId,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const POOL_APPLY_EXAMPLES: &str = "\
Examples:
  vnfpool pool apply -f edge.toml
  sed 's/manual/auto/' edge.toml | vnfpool pool apply -f -     # its switchback";

const TOKEN_EXAMPLES: &str = "\
The token is printed on one line. It works once, for this element only, until it expires.

Examples:
  vnfpool token create --pool edge --element gw1
  vnfpool token create --pool edge --element gw2 --ttl 15m";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  vnfpool status
  vnfpool status edge --json | jq '.pools[].slots[].active'";

pub(super) const WATCH_EXAMPLES: &str = "\
Examples:
  vnfpool watch
  vnfpool watch edge --json --since 0";

pub(super) const SWITCHOVER_EXAMPLES: &str = "\
The command ends when the new active serves, or says why it was refused.

Examples:
  vnfpool switchover edge
  vnfpool switchover edge --to gw1";

pub(super) const FENCE_EXAMPLES: &str = "\
The manager never replaces a silent pair on its own, since both may still serve. This command is
your word that the element is off. If it is not, two elements may serve the same address.

Examples:
  vnfpool fence edge gw1 --it-is-off";

pub(super) const PARDON_EXAMPLES: &str = "\
An element that loses its place again and again is not armed for some minutes. When you know why it
did, and that it is over, this gives it a clean slate at once.

Examples:
  vnfpool pardon edge gw1";
