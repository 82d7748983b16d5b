//! The memory as a whole: made, handed on, divided into cells.
#![expect(unsafe_code, reason = "the memory is shared with later processes")]

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::cell::{CELL_HEADER_BYTES, Cell};

/// The most slots that have a cell.
pub const SLOTS_MAX: usize = 256;

const HEADER_BYTES: usize = 4096;
const SETUP_BYTES: usize = 512 * 1024;
const KEYS_BYTES: usize = 64 * 1024;
const SLOT_BYTES: usize = 16 * 1024;
const CELLS: usize = 2 + SLOTS_MAX;
/// Most of it is never touched, and takes no memory.
const BYTES: usize = HEADER_BYTES + SETUP_BYTES + KEYS_BYTES + SLOTS_MAX * SLOT_BYTES;

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellName {
    /// What changes seldom.
    Setup,
    /// The keys of datagrams.
    Keys,
    /// The machine of the slot with this index.
    Slot(u8),
}

impl CellName {
    fn place(self) -> (usize, usize, usize) {
        let keys_at = HEADER_BYTES + SETUP_BYTES;
        match self {
            Self::Setup => (0, HEADER_BYTES, SETUP_BYTES),
            Self::Keys => (1, keys_at, KEYS_BYTES),
            Self::Slot(index) => {
                let index = usize::from(index);
                (
                    2 + index,
                    keys_at + KEYS_BYTES + index * SLOT_BYTES,
                    SLOT_BYTES,
                )
            }
        }
    }
}

/// Why the memory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The kernel refused.
    #[error("cannot {attempt} the memory that outlives a process")]
    Kernel {
        /// What was tried.
        attempt: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The descriptor is of something else, or of another program version's memory.
    #[error("the inherited descriptor is not the memory of this program")]
    Foreign,
}

/// The memory, mapped.
#[derive(Clone, Debug)]
pub struct Memory {
    mapping: Arc<Mapping>,
}

impl Memory {
    /// Makes the memory, empty. The descriptor stays open in the programs that the calling process
    /// starts from now on.
    ///
    /// # Errors
    /// [`MemoryError::Kernel`].
    pub fn create() -> Result<OwnedFd, MemoryError> {
        let failed = |errno: rustix::io::Errno| MemoryError::Kernel {
            attempt: "make",
            source: errno.into(),
        };
        let fd = memfd_create("vnfpool-inheritance", MemfdFlags::empty()).map_err(failed)?;
        let length = u64::try_from(BYTES).unwrap_or(u64::MAX);
        ftruncate(&fd, length).map_err(failed)?;
        Ok(fd)
    }

    /// Maps the memory whose descriptor a supervisor has left open under this number. To be called
    /// once, before this process opens anything.
    ///
    /// # Errors
    /// As [`Memory::adopt`].
    pub fn inherit(number: RawFd) -> Result<Self, MemoryError> {
        if number <= 2 {
            return Err(MemoryError::Foreign);
        }
        // SAFETY: nothing here uses or closes this number: it was left open for us by whoever
        // started this process, which has opened nothing under it yet. If the number is not open,
        // the first use fails.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        Self::adopt(fd)
    }

    /// Maps inherited memory; programs that this process starts do not inherit it.
    ///
    /// # Errors
    /// [`MemoryError::Foreign`] if it is not that, else what the kernel refused.
    pub fn adopt(fd: OwnedFd) -> Result<Self, MemoryError> {
        let failed = |errno: rustix::io::Errno| MemoryError::Kernel {
            attempt: "map",
            source: errno.into(),
        };
        fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(failed)?;
        let length = fstat(&fd).map_err(failed)?.st_size;
        if usize::try_from(length) != Ok(BYTES) {
            return Err(MemoryError::Foreign);
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let memory = unsafe {
            mmap(
                ptr::null_mut(),
                BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                fd.as_fd(),
                0,
            )
        }
        .map_err(failed)?;
        let base = NonNull::new(memory.cast()).ok_or(MemoryError::Foreign)?;
        let mapping = Arc::new(Mapping {
            base,
            taken: [const { AtomicBool::new(false) }; CELLS],
        });
        Ok(Self { mapping })
    }

    /// The one writer of a cell; none while an earlier one lives.
    #[must_use]
    pub fn cell(&self, name: CellName) -> Option<Cell> {
        let (number, at, bytes) = name.place();
        let taken = self.mapping.taken[number].swap(true, Ordering::AcqRel);
        (!taken).then(|| Cell::new(Arc::clone(&self.mapping), number, at, bytes))
    }

    /// Forgets everything, at once and for every later process: what is here must not be used, or
    /// a new life begins.
    pub fn forget(&self) {
        for name in [CellName::Setup, CellName::Keys] {
            self.mapping
                .publication(name.place().1)
                .store(0, Ordering::Release);
        }
        for index in 0..=u8::MAX {
            let (_, at, _) = CellName::Slot(index).place();
            self.mapping.publication(at).store(0, Ordering::Release);
        }
    }
}

/// The memory as this process sees it.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    taken: [AtomicBool; CELLS],
}

// SAFETY: the memory is mapped until `drop`, and not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: what is shared between threads are the publications, which are atomics, and the flags;
// the rest of a cell is accessed by its one writer only.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// What says which half of the cell at `at` is in use, and how often it was written.
    pub(crate) fn publication(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(8) && at + CELL_HEADER_BYTES <= BYTES,
            "cells are aligned"
        );
        // SAFETY: within the mapping and aligned, as asserted; it lives as long as `self`, and
        // this word is only ever accessed as an atomic.
        unsafe { self.base.add(at).cast().as_ref() }
    }

    /// Copies `bytes` to `at`.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= BYTES, "within the memory");
        // SAFETY: within the mapping, as asserted; `bytes` is memory of ours and cannot overlap;
        // only the cell's one writer comes here, and readers of other processes are dead or not yet
        // there.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(at).as_ptr(), bytes.len());
        }
    }

    /// Copies `length` bytes from `at`.
    pub(crate) fn read(&self, at: usize, length: usize) -> Vec<u8> {
        assert!(at + length <= BYTES, "within the memory");
        let mut bytes = vec![0; length];
        // SAFETY: as for `write`, in the other direction.
        unsafe {
            ptr::copy_nonoverlapping(self.base.add(at).as_ptr(), bytes.as_mut_ptr(), length);
        }
        bytes
    }

    pub(crate) fn release(&self, number: usize) {
        self.taken[number].store(false, Ordering::Release);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `adopt`, and no reference to it outlives `self`.
        // Nothing is left to be done if unmapping fails.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), BYTES) };
    }
}
