//! Why the gate could not do something.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;

use vnfpool_model::MacAddr;

use crate::bpffs::PinDirError;
use crate::support::Missing;

/// Why the gate could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// There is no gate of an earlier process to go on with.
    #[error("there is no gate of an earlier process to go on with")]
    NothingLeft,
    /// This machine or process cannot run the gate.
    #[error("the gate cannot work here: {0}")]
    Missing(#[from] Missing),
    /// The pins' directory.
    #[error(transparent)]
    PinDir(#[from] PinDirError),
    /// The program could not be loaded.
    #[error("cannot load the gate's program into the kernel")]
    Load(#[source] Box<EbpfError>),
    /// A part of the program is not what this version expects.
    #[error("the gate's '{name}' is not what this version of the program expects")]
    Layout {
        /// Name of the program or map.
        name: &'static str,
    },
    /// Attaching failed.
    #[error("cannot attach the gate to '{interface}'")]
    Attach {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The link is of an unexpected kind.
    #[error("cannot keep the gate's link to '{interface}'")]
    Link {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: LinkError,
    },
    /// The link could not be pinned.
    #[error("cannot pin the gate's link to '{interface}'")]
    Pin {
        /// The interface.
        interface: String,
        /// Why.
        #[source]
        source: PinError,
    },
    /// There is no such interface.
    #[error("cannot find the interface '{interface}'")]
    Interface {
        /// Its name.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The deadlines could not be mapped.
    #[error("cannot map the lease deadlines into memory")]
    Mmap(#[source] io::Error),
    /// A map operation failed.
    #[error("cannot {action} the gate's maps")]
    Map {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: MapError,
    },
    /// A virtual address, MAC or device belongs to another gate.
    #[error("gate {index} cannot have an address, MAC or device that gate {owner} has already")]
    Taken {
        /// The gate that asked.
        index: u8,
        /// The gate that has it.
        owner: u8,
    },
    /// A MAC is not of a virtual router.
    #[error("the gate cannot have the MAC {mac}: it is none of a virtual router (RFC 9568)")]
    NotVirtual {
        /// The MAC.
        mac: MacAddr,
    },
    /// The gate has a writer already.
    #[error("the lease of gate {index} has its one writer already")]
    WriterTaken {
        /// The gate.
        index: u8,
    },
}
