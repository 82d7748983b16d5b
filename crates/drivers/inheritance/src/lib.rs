//! Memory that outlives the process that wrote it, for the next process of the same life.
//!
//! A supervisor makes the memory ([`Memory::create`]) and hands its descriptor to every process
//! that it starts. It has no name in any file system, nobody else gets it, and it is gone with
//! its last holder: so there is nothing stale to find after a reboot.
//!
//! The memory consists of cells. A cell holds one value, is written as a whole, and survives the
//! death of its writer at any instruction: a value is written into the half that is not in use and
//! then published with one store. Beside it, an [`Anchor`] holds open descriptors.

mod anchor;
mod cell;
mod memory;

pub use anchor::{Anchor, BUNDLE_MAX, Bundle};
pub use cell::{Cell, TooLong};
pub use memory::{CellName, Memory, MemoryError, SLOTS_MAX};

#[cfg(test)]
mod tests;
