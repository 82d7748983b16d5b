//! The deadlines of all gates, shared with the kernel through a memory-mapped BPF array.
#![expect(unsafe_code, reason = "the map's memory is shared with the kernel")]

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vnfpool_model::Time;

use crate::bpffs::PinDir;
use crate::{Fence, GATES_MAX};

const BYTES: usize = GATES_MAX * size_of::<AtomicU64>();

/// The memory-mapped deadlines. Closes every gate when its last handle goes, since from then on
/// nobody could renew a lease.
pub(crate) struct Deadlines {
    cells: NonNull<AtomicU64>,
    mapped_bytes: usize,
    taken: [AtomicBool; GATES_MAX],
    /// Its lock keeps other processes out; it has to live as long as somebody can write.
    pub(crate) pins: PinDir,
}

// SAFETY: the memory is plain atomics, mapped until `drop`, and not tied to a thread.
unsafe impl Send for Deadlines {}
// SAFETY: as above; shared access goes through atomics only.
unsafe impl Sync for Deadlines {}

/// What becomes of gates that an earlier process left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// They are closed: it was another life.
    Close,
    /// They stay as they are: it was this life.
    Keep,
}

impl Deadlines {
    /// Maps the array.
    pub(crate) fn map(
        array: BorrowedFd<'_>,
        pins: PinDir,
        before: Before,
    ) -> io::Result<Arc<Self>> {
        let mapped_bytes = BYTES.next_multiple_of(rustix::param::page_size());
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let memory = unsafe {
            mmap(
                ptr::null_mut(),
                mapped_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                array,
                0,
            )
        }?;
        let cells = NonNull::new(memory.cast())
            .ok_or_else(|| io::Error::other("the map was mapped at address 0"))?;
        let deadlines = Self {
            cells,
            mapped_bytes,
            taken: [const { AtomicBool::new(false) }; GATES_MAX],
            pins,
        };
        if before == Before::Close {
            deadlines.close_all();
        }
        Ok(Arc::new(deadlines))
    }

    /// Hands out the one writer of a gate, or none while the earlier one lives.
    pub(crate) fn take(self: &Arc<Self>, index: u8) -> Option<LeaseCell> {
        let taken = &self.taken[usize::from(index)];
        (!taken.swap(true, Ordering::AcqRel)).then(|| LeaseCell {
            deadlines: Arc::clone(self),
            index,
        })
    }

    pub(crate) fn deadline(&self, index: u8) -> Time {
        Time(self.cell(index).load(Ordering::Acquire))
    }

    pub(crate) fn close(&self, index: u8) {
        self.cell(index).store(0, Ordering::Release);
    }

    pub(crate) fn close_all(&self) {
        (0..=u8::MAX).for_each(|index| self.close(index));
    }

    fn cell(&self, index: u8) -> &AtomicU64 {
        // SAFETY: the mapping holds GATES_MAX = 256 aligned words, so every u8 is within it; it
        // lives until `drop`; the kernel only reads it, with loads of a whole word.
        unsafe { self.cells.add(usize::from(index)).as_ref() }
    }
}

impl Drop for Deadlines {
    fn drop(&mut self) {
        self.close_all();
        // SAFETY: this is the mapping made in `map`, and no reference to it outlives `self`.
        // Nothing is left to be done if unmapping fails.
        let _ = unsafe { munmap(self.cells.as_ptr().cast(), self.mapped_bytes) };
    }
}

impl fmt::Debug for Deadlines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadlines")
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}

/// The one writer of a slot's lease deadline: every operation is one atomic instruction, so it
/// may be used by a real-time thread.
///
/// Dropping it closes the gate.
pub struct LeaseCell {
    deadlines: Arc<Deadlines>,
    index: u8,
}

impl LeaseCell {
    /// The gate this cell belongs to.
    #[must_use]
    pub fn index(&self) -> u8 {
        self.index
    }
}

impl Fence for LeaseCell {
    fn open_until(&mut self, until: Time) {
        self.deadlines
            .cell(self.index)
            .store(until.0, Ordering::Release);
    }

    fn raise(&mut self, until: Time) {
        self.deadlines
            .cell(self.index)
            .fetch_max(until.0, Ordering::Release);
    }

    fn close(&mut self) {
        self.deadlines.close(self.index);
    }

    fn deadline(&self) -> Time {
        self.deadlines.deadline(self.index)
    }
}

impl Drop for LeaseCell {
    fn drop(&mut self) {
        self.close();
        self.deadlines.taken[usize::from(self.index)].store(false, Ordering::Release);
    }
}

impl fmt::Debug for LeaseCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseCell")
            .field("index", &self.index)
            .field("deadline", &self.deadline())
            .finish()
    }
}
