//! Kernel connection tracking: events, dump and injection over ctnetlink.
//!
//! ```text
//! active:   Source (EventSource, Dump, Fetcher, codec) --> inputs of statesync's Sender
//! standby:  actions of statesync's Receiver --> Sink (codec, Injector) --> the kernel's table
//! ```
//!
//! Events come through a ring buffer in shared memory where the machine allows that, else through
//! the queue of a netlink socket (`event/mod.rs`).
//!
//! Everything works on the network namespace of the thread that opens it, needs CAP_NET_ADMIN
//! there, and blocks for no longer than the kernel takes to answer. What an entry holds is
//! [`Entry`]; how translation, TCP windows and timeouts carry over is said at the functions of
//! [`Injector`] and in `netlink/build.rs`.
//!
//! What helpers expect is in [`expectation`]; [`Source`] and [`Sink`] carry it after its masters.
//!
//! Not replicated: counters, synproxy state, security context, expectations in other zones than
//! the default one, the master of a related connection if it is not in the other table before it
//! (then it is an ordinary connection until it changes), and everything within [`Scope`]'s
//! exclusions.

mod dump;
mod entry;
mod event;
mod inject;
mod netlink;
mod reset;
mod scope;
mod settings;
mod settle;
mod sink;
mod source;
mod tuple;
mod wakeup;

pub mod codec;
pub mod expectation;

#[cfg(feature = "fuzz")]
pub mod fuzz;
#[cfg(test)]
mod proptests;
#[cfg(test)]
mod testing;

pub use dump::{Dump, DumpProgress, Family, Fetcher, dump_all};
pub use entry::{
    Entry, EntryError, HELPER_NAME_BYTES_MAX, HelperName, Name, ProtocolState, SctpInfo, SeqAdjust,
    Status, TcpInfo, Translation, tcp_flags, tcp_state,
};
pub use event::{
    EVENT_BUFFER_BYTES, EVENTS_PER_READ_MAX, Event, EventSource, EventSourceKind, ReadOutcome,
    RingError,
};
pub use inject::{BATCH_OPERATIONS_MAX, Failure, InjectStats, Injector};
pub use netlink::parse::ParseError;
pub use netlink::socket::NetlinkError;
pub use reset::ResetGuard;
pub use scope::{OwnAddresses, Scope};
pub use settings::{SettingError, enable_events, tcp_is_strict};
pub use settle::{Settled, settle};
pub use sink::{Sink, SinkError, SinkFailure};
pub use source::Source;
pub use tuple::{Key, Layer4, Tuple, TupleError, Zone, ZoneDirection, has_ports, protocol};
