//! Datagrams over every path there is, for a thread of its own.
//!
//! A *path* is a way to the other nodes: the management network, the link between the gateways,
//! each LAN of a virtual address. Every message is sent over all paths that both sides have;
//! the first copy that arrives is used, the others fall to the replay window. So losing one NIC
//! is never "all gone".
//!
//! Nothing here blocks but [`Poller::wait`], nothing logs.

mod paths;
mod poller;

pub use paths::{BindError, DATAGRAM_BYTES_MAX, PathCounters, PathSpec, Paths, PeerPath, Received};
pub use poller::{Interest, Poller, PollerError, Waker};
