//! The ring buffer's memory, shared with the kernel.
#![expect(unsafe_code, reason = "the ring's memory is shared with the kernel")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The kernel's header of a record: length with two flags, and a number that is its own.
const HEADER_BYTES: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// Largest record that is handed out, in bytes.
pub(super) const RECORD_BYTES_MAX: usize = 1032;

/// The consumer's end of a BPF ring buffer.
#[derive(Debug)]
pub(super) struct Ring {
    consumer: Mapping,
    /// The producer's position, and from the second page on the data.
    producer: Mapping,
    page_bytes: usize,
    data_bytes: usize,
    /// Position up to which records were handed out; the kernel is told by [`Ring::release`].
    position: u64,
    /// A record that goes over the end of the data, in one piece.
    joined: Box<[u8; RECORD_BYTES_MAX]>,
}

impl Ring {
    /// Maps a ring buffer map of `data_bytes`, a power of two of at least a page.
    pub(super) fn map(map: BorrowedFd<'_>, data_bytes: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let consumer = Mapping::new(map, 0, page_bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        let producer = Mapping::new(map, page_bytes, page_bytes + data_bytes, ProtFlags::READ)?;
        let position = consumer.word(0).load(Ordering::Acquire);
        Ok(Self {
            consumer,
            producer,
            page_bytes,
            data_bytes,
            position,
            joined: Box::new([0; RECORD_BYTES_MAX]),
        })
    }

    /// The next record, or none at the end and before a record that is still being written.
    /// [`Ring::advance`] goes past it.
    pub(super) fn peek(&mut self) -> Option<Record<'_>> {
        while self.position != self.producer.word(0).load(Ordering::Acquire) {
            let at = self.offset(self.position);
            let header = self.producer.half_word(self.page_bytes + at);
            let header = header.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let length = usize::try_from(header & !DISCARDED).unwrap_or(usize::MAX);
            let end = self.position + to_u64((HEADER_BYTES + length).next_multiple_of(8));
            if header & DISCARDED == 0 && length <= RECORD_BYTES_MAX {
                let bytes = self.bytes(at + HEADER_BYTES, length);
                return Some(Record { bytes, end });
            }
            self.position = end;
        }
        None
    }

    /// Goes on at `end` of a record that [`Ring::peek`] gave.
    pub(super) fn advance(&mut self, end: u64) {
        debug_assert!(end > self.position);
        self.position = end;
    }

    /// Gives the room of everything before the position back to the kernel.
    pub(super) fn release(&mut self) {
        self.consumer
            .word(0)
            .store(self.position, Ordering::Release);
    }

    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    fn offset(&self, position: u64) -> usize {
        let mask = to_u64(self.data_bytes) - 1;
        usize::try_from(position & mask).expect("below data_bytes, which is a usize")
    }

    fn bytes(&mut self, at: usize, length: usize) -> &[u8] {
        let at = at % self.data_bytes;
        let before_end = length.min(self.data_bytes - at);
        if before_end == length {
            return self.producer.bytes(self.page_bytes + at, length);
        }
        let (first, second) = self.joined[..length].split_at_mut(before_end);
        first.copy_from_slice(self.producer.bytes(self.page_bytes + at, before_end));
        let rest = length - before_end;
        second.copy_from_slice(self.producer.bytes(self.page_bytes, rest));
        &self.joined[..length]
    }
}

/// A record of the ring.
#[derive(Debug)]
pub(super) struct Record<'a> {
    /// What the program wrote.
    pub(super) bytes: &'a [u8],
    /// The position behind it.
    pub(super) end: u64,
}

/// What reader and program say to each other, in a memory-mapped BPF array.
#[derive(Debug)]
pub(super) struct Shared(Mapping);

impl Shared {
    /// Maps the array.
    pub(super) fn map(array: BorrowedFd<'_>) -> io::Result<Self> {
        let bytes = rustix::param::page_size();
        Mapping::new(array, 0, bytes, ProtFlags::READ | ProtFlags::WRITE).map(Self)
    }

    /// Changes that found no room in the ring.
    pub(super) fn lost(&self) -> u64 {
        self.0.word(0).load(Ordering::Acquire)
    }

    /// Asks for the bell, or no more. After asking, look at ring and losses once more: what came
    /// before is not rung for.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.0.word(8).store(u64::from(asleep), Ordering::Release);
        if asleep {
            // Seen before the next look, or both sides could miss each other.
            fence(Ordering::SeqCst);
        }
    }
}

/// Memory of a BPF map.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is not tied to a thread. The writable part is used through atomics only, the
// rest only where the kernel has ended its writing.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, at: usize, bytes: usize, access: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                bytes,
                access,
                MapFlags::SHARED,
                map,
                to_u64(at),
            )
        }?;
        let start = NonNull::new(start.cast())
            .ok_or_else(|| io::Error::other("the map was mapped at address 0"))?;
        Ok(Self { start, bytes })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.bytes);
        // SAFETY: within the mapping, which lives as long as `self`, and aligned, since it starts
        // at a page; the kernel writes it with stores of a whole word.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    fn half_word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.bytes);
        // SAFETY: as in `word`.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    /// Bytes of a record that the kernel has submitted and that was not given back yet: nobody
    /// writes them.
    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        assert!(at <= self.bytes && length <= self.bytes - at);
        // SAFETY: within the mapping, which lives as long as `self`; the kernel writes here again
        // only after `release`, which needs the borrow of the whole ring to be over.
        unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr(), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`, and no reference to it outlives `self`.
        // Nothing is left to be done if unmapping fails.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("no machine has more than 64 bits")
}
