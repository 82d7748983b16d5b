//! Why packets could not be held.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Why packets could not be held.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HoldError {
    /// A netlink socket failed.
    #[error("cannot {attempt} netfilter over netlink (needs CAP_NET_ADMIN)")]
    Socket {
        /// What was to be done.
        attempt: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refused to {attempt}: {source}")]
    Refused {
        /// What was asked for.
        attempt: &'static str,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// Another process holds packets in this network namespace.
    #[error(
        "{place} is taken already: another agent holds packets in this network namespace, or \
         somebody else made something there (remove it)"
    )]
    Taken {
        /// What two cannot have.
        place: &'static str,
    },
    /// The options cannot be met.
    #[error("cannot hold packets: {0}")]
    Options(&'static str),
    /// The program could not be loaded.
    #[error("cannot load the program that observes held packets into the kernel")]
    Load(#[source] Box<EbpfError>),
    /// The program that observes packets could not be fitted to this kernel.
    #[error("the program that observes held packets does not fit this kernel's types: {reason}")]
    Fit {
        /// The loader's reason.
        reason: String,
    },
    /// The program could not be attached to the queue.
    #[error("cannot attach the program that tells of held packets")]
    Attach(#[source] Box<ProgramError>),
    /// The kernel refused the netfilter program.
    #[error(
        "the kernel refused to {attempt} (needs Linux 6.4 or newer with \
         CONFIG_NETFILTER_BPF_LINK=y, CAP_BPF and CAP_PERFMON): {source}"
    )]
    Netfilter {
        /// What was asked for.
        attempt: &'static str,
        /// Its reason.
        #[source]
        source: io::Error,
    },
    /// A map of the program is not what this version expects.
    #[error("'{name}' of the program is not what this version expects")]
    Layout {
        /// Name of the map or program.
        name: &'static str,
    },
    /// A map could not be read or written.
    #[error("cannot {attempt} the map '{name}'")]
    Map {
        /// What was to be done.
        attempt: &'static str,
        /// Its name.
        name: &'static str,
        /// The kernel's reason.
        #[source]
        source: MapError,
    },
}
