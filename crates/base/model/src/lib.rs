//! The nouns of vnfpool: pools, elements, slots, epochs, addresses.
//!
//! No IO, no clock, no async: everything here is a plain value. The words are those of the
//! draft (draft-zong-vnfpool-problem-statement §2) and of `ARCHITECTURE.md`.

mod address;
mod epoch;
mod name;
mod pool;
mod port_block;
mod state;
mod time;

pub use address::{LanName, MacAddr, VirtualAddress, VirtualRouterId};
pub use epoch::{Epoch, Incarnation, PairRole};
pub use name::{ElementId, NameError, PoolHandle, SlotName};
pub use pool::{
    LeaseBounds, OnQuorumLoss, Pace, PoolSpec, Role, SlotId, SlotSpec, Switchback, Timing,
};
pub use port_block::{BlockTurn, NatMap, PortBlocks};
pub use state::{StateLevel, StateSpec};
pub use time::Time;
