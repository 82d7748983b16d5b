//! The laboratory's network: namespaces, wires, the gateways' rules, and their clean removal.

mod faults;
mod lab;
mod namespace;
mod record;
mod rtnl;
mod ruleset;
mod topology;
mod watched;

pub(crate) use faults::Wire;
pub(crate) use lab::write_sysctls;
pub use lab::{Lab, Stale};
pub use namespace::Namespace;
pub(crate) use record::{ProcessMark, Record};
pub(crate) use rtnl::interface_index;
pub use ruleset::TABLE;
pub(crate) use ruleset::ruleset;
pub(crate) use ruleset::{BLOCK_MAP, BLOCKS_EACH};
pub(crate) use topology::MONITOR_MAC;
pub use topology::{
    Gateway, SERVER_V4, SERVER_V6, VIP_INSIDE_V4, VIP_INSIDE_V6, VIP_OUTSIDE_V4, VIP_OUTSIDE_V6,
};
pub use watched::Watched;
