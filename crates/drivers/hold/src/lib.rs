//! Holds the first packets of connections until the agent lets them go.
//!
//! A pool at the level `commit` promises that no packet of a connection leaves before the successor
//! holds the connection's entry. So the kernel queues the packets of connections that are not in
//! its own table yet (NFQUEUE, after source translation), and the agent releases each one when the
//! entry is where it has to be. All other packets pass by without a stop.
//!
//! ```text
//! POSTROUTING  srcnat 100 | 299 hold_observe | 300 table vnfpool-hold | conntrack confirms
//!                           notes the entry    queues, if not confirmed
//!                                 |                    |
//!                                 +----> hold_tell <---+  number of the packet, entry
//!                                            |
//!   agent   Holder::read  <----- ring -------+
//!           Holder::release_through ----> netlink ----> the packets go on
//! ```
//!
//! What fails, fails open: a full queue lets packets pass (and counts them), and so does the rule
//! when nobody has the queue. When the process ends, the kernel removes the rules and programs by
//! itself; the packets that are in the queue at that moment are lost, as packets may be.
//!
//! Everything works on the network namespace of the thread that opens it and needs CAP_NET_ADMIN,
//! CAP_BPF and CAP_PERFMON. The decision 0024 has the reasons and figures.

mod connection;
mod error;
mod holder;
mod netlink;
mod observe;
mod queue;
mod rules;

pub use connection::{Connection, Tuple};
pub use error::HoldError;
pub use holder::{Held, Holder, Options, QUEUE_LENGTH_MAX, Statistics};
