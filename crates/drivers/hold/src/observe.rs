//! Loads and attaches the programs of `bpf/hold.bpf.c`.
//!
//! The loader of the workspace does not know netfilter programs, so that one is loaded and attached
//! here by the system call itself, after the loader has put in the kernel's offsets and the maps.
#![expect(unsafe_code, reason = "bpf(2) takes a structure that holds pointers")]

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, fence};

use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::SocketFilter;
use aya::{Btf, Ebpf, EbpfLoader};
use aya_obj::Object;
use aya_obj::generated::bpf_insn;

use crate::error::HoldError;
use crate::queue::Queue;
use crate::rules::FAMILIES;

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hold.bpf.o"));

const OBSERVE: &str = "hold_observe";
const TELL: &str = "hold_tell";
const LICENSE: &std::ffi::CStr = c"Dual MIT/GPL";
/// Just before the rules that queue.
const PRIORITY: i32 = 299;
const POSTROUTING: u32 = 4;

/// The programs at work: records of held packets come out of the ring.
pub(crate) struct Observer {
    ring: RingBuf<MapData>,
    untold: PerCpuArray<MapData, u64>,
    armed: Array<MapData, u32>,
    /// The programs are detached when these are closed.
    _links: Vec<OwnedFd>,
    _ebpf: Ebpf,
}

impl Observer {
    /// Attaches the programs to the hook and to `queue`, in the network namespace of the calling
    /// thread, with a ring of `ring_bytes`, a power of two.
    pub(crate) fn attach(queue: &Queue, ring_bytes: u32) -> Result<Self, HoldError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("records", ring_bytes)
            .load(PROGRAM)
            .map_err(|source| HoldError::Load(Box::new(source)))?;
        let layout = |name| move || HoldError::Layout { name };
        let program = ebpf.program_mut(TELL).ok_or_else(layout(TELL))?;
        let tell: &mut SocketFilter = program.try_into().map_err(|_| layout(TELL)())?;
        tell.load()
            .and_then(|()| tell.attach(queue))
            .map_err(|source| HoldError::Attach(Box::new(source)))?;
        let notes = match ebpf.map("notes") {
            Some(Map::PerCpuArray(notes)) => notes.fd().as_fd().as_raw_fd(),
            _ => return Err(layout("notes")()),
        };
        let observe = load_observe(notes)?;
        let attach = |family: u8| attach_netfilter(observe.as_fd(), family);
        let links = FAMILIES.into_iter().map(attach).collect::<Result<_, _>>()?;
        let records = ebpf.take_map("records").ok_or_else(layout("records"))?;
        let untold = ebpf.take_map("untold").ok_or_else(layout("untold"))?;
        let armed = ebpf.take_map("armed").ok_or_else(layout("armed"))?;
        Ok(Self {
            ring: RingBuf::try_from(records).map_err(|_| layout("records")())?,
            untold: PerCpuArray::try_from(untold).map_err(|_| layout("untold")())?,
            armed: Array::try_from(armed).map_err(|_| layout("armed")())?,
            _links: links,
            _ebpf: ebpf,
        })
    }

    /// Gives the next record to `take`, if there is one.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.ring.next().map(|record| take(&record))
    }

    /// The next record comes with a message to the queue's socket. Those before did not.
    pub(crate) fn arm(&mut self) -> Result<(), HoldError> {
        let set = self.armed.set(0, 1, 0);
        set.map_err(|source| HoldError::Map {
            attempt: "write",
            name: "armed",
            source,
        })?;
        // Before the ring is looked at.
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Held packets for whose record there was no room in the ring.
    pub(crate) fn untold(&self) -> Result<u64, HoldError> {
        let per_processor = self.untold.get(&0, 0);
        let per_processor = per_processor.map_err(|source| HoldError::Map {
            attempt: "read",
            name: "untold",
            source,
        })?;
        Ok(per_processor.iter().sum())
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

/// Loads `hold_observe` as a netfilter program that writes to the map `notes`.
fn load_observe(notes: RawFd) -> Result<OwnedFd, HoldError> {
    let fit = |error: &dyn fmt::Display| HoldError::Fit {
        reason: error.to_string(),
    };
    let mut object = Object::parse(PROGRAM).map_err(|error| fit(&error))?;
    let kernel = Btf::from_sys_fs().map_err(|error| fit(&error))?;
    object.relocate_btf(&kernel).map_err(|error| fit(&error))?;
    // `hold_observe` uses `notes` and no other map; `hold_tell` is not loaded from this object.
    let maps = object.maps.clone();
    let maps = maps.iter().map(|(name, map)| (name.as_str(), notes, map));
    let sections: HashSet<usize> = object.functions.keys().map(|key| key.0).collect();
    object
        .relocate_maps(maps, &sections)
        .map_err(|error| fit(&error))?;
    object
        .relocate_calls(&sections)
        .map_err(|error| fit(&error))?;
    let layout = || HoldError::Layout { name: OBSERVE };
    let program = object.programs.get(OBSERVE).ok_or_else(layout)?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(layout)?;
    load_netfilter(&function.instructions)
}

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_NETFILTER: u32 = 32;
const BPF_NETFILTER: u32 = 45;

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to the last field that is used.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// `union bpf_attr` of `BPF_LINK_CREATE` for `BPF_NETFILTER`.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    target: u32,
    attach_type: u32,
    flags: u32,
    family: u32,
    hook: u32,
    priority: i32,
    netfilter_flags: u32,
}

fn load_netfilter(instructions: &[bpf_insn]) -> Result<OwnedFd, HoldError> {
    let mut name = [0; 16];
    name[..OBSERVE.len()].copy_from_slice(OBSERVE.as_bytes());
    let attributes = ProgramLoad {
        program_type: BPF_PROG_TYPE_NETFILTER,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr().addr() as u64,
        license: LICENSE.as_ptr().addr() as u64,
        name,
        attach_type: BPF_NETFILTER,
        ..ProgramLoad::default()
    };
    // SAFETY: the pointers in `attributes` are to as many instructions as it says and to a text
    // with its NUL; both outlive the call, which only reads them.
    let result = unsafe { bpf(BPF_PROG_LOAD, &attributes) };
    result.map_err(|source| HoldError::Netfilter {
        attempt: "load a netfilter program",
        source,
    })
}

fn attach_netfilter(program: BorrowedFd<'_>, family: u8) -> Result<OwnedFd, HoldError> {
    let attributes = LinkCreate {
        program: program.as_raw_fd(),
        target: 0,
        attach_type: BPF_NETFILTER,
        flags: 0,
        family: u32::from(family),
        hook: POSTROUTING,
        priority: PRIORITY,
        netfilter_flags: 0,
    };
    // SAFETY: there are no pointers in `attributes`.
    let result = unsafe { bpf(BPF_LINK_CREATE, &attributes) };
    result.map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => HoldError::Taken {
            place: "priority 299 of netfilter's POSTROUTING",
        },
        _ => HoldError::Netfilter {
            attempt: "attach a netfilter program to POSTROUTING",
            source,
        },
    })
}

/// # Safety
/// `attributes` is laid out as `union bpf_attr` is for `command`, which returns a descriptor, and
/// its pointers are good for what the kernel does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size` bytes at the pointer, which are those of `attributes`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match RawFd::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
