//! An example of a network function whose state outlives its instance: a load balancer for TCP in user
//! space (IPv4), as a pool.
//!
//! ```text
//!                            +------------------ lb -------------------+
//!  client --service:port--> TUN --> table: flow known? --> its backend  \
//!                            |          no: Maglev, put, commit          +--> TUN --> backend
//!                            |                                           |
//!  client <--service:port-- TUN <-- from a backend: the flow's service --+ <-- backend
//! ```
//!
//! It forwards packets and terminates nothing: of a connection only the choice of its backend is kept,
//! one entry in the class `flows`. The first packet of a connection leaves when the successor has the entry;
//! so whoever takes over sends every later one to the same backend, whatever the set of backends is by then.
//!
//! * [`maglev`]: which backend a new flow gets;
//! * [`packet`]: what is read from a packet and written into it;
//! * [`balancer`]: both, with the table: packets in, packets out, no IO;
//! * [`keeper`]: its flows and those of the agent are kept alike, by the SDK;
//! * [`run`]: the TUN device, the SDK, the health of the backends.

pub mod balancer;
pub mod keeper;
pub mod maglev;
pub mod packet;
mod probe;
mod service;
mod tun;

pub use service::{Options, run};
