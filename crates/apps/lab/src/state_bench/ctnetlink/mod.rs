//! The kernel's connections, read and written from outside of whatever is measured.
//!
//! Attributes and message types are those of `linux/netfilter/nfnetlink_conntrack.h`.

mod flow;
mod insert;
mod listener;
mod message;
mod table;

pub(crate) use flow::CLIENT;
pub(super) use flow::{Ends, FIRST_PORT, Flow, SERVER, ports_of};
pub(super) use insert::insert;
pub(super) use listener::Listener;
pub(super) use table::{count, dump, flush};
