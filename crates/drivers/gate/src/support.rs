//! What a machine and a process need to run the gate.

use std::fs;

use aya::maps::{Array, MapError};

/// Something that the gate needs and this machine or process lacks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// A capability of this process.
    #[error(
        "the capability {capability} is missing: run as root, or add it to AmbientCapabilities= \
         of the service"
    )]
    Capability {
        /// For example `CAP_BPF`.
        capability: &'static str,
    },
    /// A feature of the kernel.
    #[error("this kernel lacks {feature}: use Linux {since} or newer with {option}=y")]
    Kernel {
        /// The feature in words.
        feature: &'static str,
        /// The first kernel that has it.
        since: &'static str,
        /// The configuration option that turns it on.
        option: &'static str,
    },
}

/// Says whether the gate can work here.
///
/// # Errors
/// The first thing that is missing, in one line.
pub fn support() -> Result<(), Missing> {
    let capabilities = effective_capabilities();
    let has = |bit: u32| capabilities & (1 << bit) != 0;
    for (bits, capability) in [
        (&[CAP_NET_ADMIN][..], "CAP_NET_ADMIN"),
        (&[CAP_BPF, CAP_SYS_ADMIN][..], "CAP_BPF"),
    ] {
        if !bits.iter().any(|&bit| has(bit)) {
            return Err(Missing::Capability { capability });
        }
    }
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems.lines().any(|line| line.ends_with("\tbpf")) {
        return Err(Missing::Kernel {
            feature: "the BPF file system",
            since: "5.8",
            option: "CONFIG_BPF_SYSCALL",
        });
    }
    let probe: Result<Array<_, u64>, MapError> = Array::create(1, BPF_F_MMAPABLE);
    probe.map(drop).map_err(|_| Missing::Kernel {
        feature: "memory-mapped BPF arrays",
        since: "5.8",
        option: "CONFIG_BPF_SYSCALL",
    })
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The bits of `CapEff`; none if `/proc` does not say.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).unwrap_or(0)
}
