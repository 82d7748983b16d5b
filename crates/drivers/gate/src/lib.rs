//! The gate: a tc BPF program that drops packets of a slot once its lease is over.
//!
//! A slot's *lease deadline* is one word of a BPF map that this process has mapped into its
//! memory: renewing a lease is one atomic store ([`LeaseCell`]), and the kernel compares the word
//! with its boot-time clock for every packet of the slot. So a frozen, stopped, killed or
//! partitioned agent stops emitting by itself, packets queued in its sockets included.
//!
//! The program outlives the process: its links and maps are pinned ([`Gate::load`]), since a
//! program that vanished with a killed agent would leave the addresses behind ungated. The next
//! agent takes the pinned maps over, closed.
//!
//! Where BPF is missing, [`AddressesOnly`] adds and removes the addresses instead, and
//! [`AddressesOnly::SHORTCOMINGS`] says what it cannot promise. Both are a [`Fence`].
//!
//! What the gate cannot see: packets that already left for a queueing discipline behind it, and
//! programs that send around traffic control on purpose (`PACKET_QDISC_BYPASS`, `AF_XDP`).

mod addresses_only;
mod attach;
mod bpffs;
mod deadlines;
mod error;
mod fence;
mod gate;
mod instance;
mod keys;
mod places;
mod support;

pub use addresses_only::{AddressesOnly, SpawnError, SwitchError};
pub use attach::AttachMode;
pub use bpffs::{PinDirError, default_pin_dir};
pub use deadlines::LeaseCell;
pub use error::GateError;
pub use fence::Fence;
pub use gate::{Gate, GateCounters, GatedAddress, Leases, purge};
pub use instance::instance_name;
pub use support::{Missing, support};

/// Gates of one process: indices are 0 to 255.
pub const GATES_MAX: usize = 256;
