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
//! Not replicated: counters, expectations and the master of a related connection (it becomes an
//! ordinary connection), synproxy state, security context, and everything within [`Scope`]'s
//! exclusions.

mod dump;
mod entry;
mod event;
mod inject;
mod netlink;
mod scope;
mod settings;
mod settle;
mod sink;
mod source;
mod tuple;

pub mod codec;

#[cfg(test)]
mod proptests;
#[cfg(test)]
mod testing;

pub use dump::{Dump, DumpProgress, Family, Fetcher, dump_all};
pub use entry::{
    Entry, EntryError, HELPER_NAME_BYTES_MAX, HelperName, ProtocolState, SctpInfo, SeqAdjust,
    Status, TcpInfo, Translation, tcp_flags, tcp_state,
};
pub use event::{
    EVENT_BUFFER_BYTES, EVENTS_PER_READ_MAX, Event, EventSource, EventSourceKind, REST,
    ReadOutcome, RingError,
};
pub use inject::{BATCH_OPERATIONS_MAX, Failure, InjectStats, Injector};
pub use netlink::parse::ParseError;
pub use netlink::socket::NetlinkError;
pub use scope::Scope;
pub use settings::{SettingError, enable_events, tcp_is_strict};
pub use settle::make_strict;
pub use sink::{Sink, SinkError};
pub use source::Source;
pub use tuple::{Key, Layer4, Tuple, TupleError, Zone, ZoneDirection, protocol};
