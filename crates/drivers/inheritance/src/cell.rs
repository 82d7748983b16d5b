//! One value that survives the death of its writer.
//!
//! ```text
//!  0            8           16           24             +half          +2*half
//! +------------+-----------+------------+--------------+--------------+
//! | publication| length 0  | length 1   | half 0       | half 1       |
//! +------------+-----------+------------+--------------+--------------+
//! ```
//! The publication counts the writes: 0 for none, else its lowest bit says which half is in use.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::memory::Mapping;

pub(crate) const CELL_HEADER_BYTES: usize = 24;

/// A value does not fit into its cell; the cell holds nothing now, rather than an older value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value of {length} bytes does not fit into a cell of {capacity}")]
pub struct TooLong {
    /// Its length.
    pub length: usize,
    /// The longest that fits.
    pub capacity: usize,
}

/// The one writer of a cell. Writing takes no lock, no allocation and no system call.
#[derive(Debug)]
pub struct Cell {
    mapping: Arc<Mapping>,
    number: usize,
    at: usize,
    capacity: usize,
}

impl Cell {
    pub(crate) fn new(mapping: Arc<Mapping>, number: usize, at: usize, bytes: usize) -> Self {
        Self {
            mapping,
            number,
            at,
            capacity: (bytes - CELL_HEADER_BYTES) / 2,
        }
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// [`TooLong`]; the cell is empty then.
    pub fn write(&mut self, value: &[u8]) -> Result<(), TooLong> {
        if value.len() > self.capacity {
            self.clear();
            return Err(TooLong {
                length: value.len(),
                capacity: self.capacity,
            });
        }
        let publication = self.mapping.publication(self.at);
        let count = publication.load(Ordering::Relaxed).wrapping_add(1).max(1);
        let half = usize::from(count % 2 == 1);
        let length = u64::try_from(value.len()).unwrap_or_default();
        self.mapping
            .write(self.at + 8 * (1 + half), &length.to_ne_bytes());
        self.mapping.write(self.half_at(half), value);
        // A process that dies in between has published the former value, and this one is whole
        // before it is published.
        fence(Ordering::Release);
        publication.store(count, Ordering::Release);
        Ok(())
    }

    /// The value; none if there is none.
    #[must_use]
    pub fn read(&self) -> Option<Vec<u8>> {
        let count = self.mapping.publication(self.at).load(Ordering::Acquire);
        if count == 0 {
            return None;
        }
        let half = usize::from(count % 2 == 1);
        let length = self.mapping.read(self.at + 8 * (1 + half), 8);
        let length = u64::from_ne_bytes(length.try_into().ok()?);
        let length = usize::try_from(length)
            .ok()
            .filter(|n| *n <= self.capacity)?;
        Some(self.mapping.read(self.half_at(half), length))
    }

    /// Forgets the value.
    pub fn clear(&mut self) {
        self.mapping
            .publication(self.at)
            .store(0, Ordering::Release);
    }

    fn half_at(&self, half: usize) -> usize {
        self.at + CELL_HEADER_BYTES + half * self.capacity
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.mapping.release(self.number);
    }
}
