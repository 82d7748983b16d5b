//! Telling a LAN where a virtual address is now.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use vnfpool_model::VirtualAddress;

use crate::frames::{ArpOperation, gratuitous_arp, unsolicited_advertisement};
use crate::packet::{PacketSocket, Receive};

/// Why an announcement could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// No socket on this interface.
    #[error("cannot open a packet socket on interface #{ifindex}: CAP_NET_RAW is needed")]
    Open {
        /// The interface.
        ifindex: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Dropped on its way out: by the gate, which is closed, or by a full queue.
    #[error("the announcement of {address} was dropped: the gate is closed or a queue is full")]
    Dropped {
        /// The address.
        address: IpAddr,
    },
    /// The kernel refused.
    #[error("cannot announce {address}")]
    Send {
        /// The address.
        address: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Announces virtual addresses on one LAN. Neither blocks nor allocates after construction; when
/// and how often is the caller's to decide.
#[derive(Debug)]
pub struct Announcer {
    socket: PacketSocket,
}

impl AsFd for Announcer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Announcer {
    /// Opens a socket on the LAN's parent interface.
    ///
    /// # Errors
    /// [`AnnounceError::Open`].
    pub fn new(parent_ifindex: u32) -> Result<Self, AnnounceError> {
        let socket = PacketSocket::open(parent_ifindex, Receive::Nothing);
        let socket = socket.map_err(|source| AnnounceError::Open {
            ifindex: parent_ifindex,
            source,
        })?;
        Ok(Self { socket })
    }

    /// Announces an address once, from its virtual MAC: a gratuitous ARP request and reply (hosts
    /// differ in which they heed), or an unsolicited neighbor advertisement.
    ///
    /// # Errors
    /// [`AnnounceError::Dropped`] if the gate is closed, else [`AnnounceError::Send`].
    pub fn announce(&self, address: &VirtualAddress) -> Result<(), AnnounceError> {
        let mac = address.mac();
        let address = address.address.addr();
        let sent = match address {
            IpAddr::V4(v4) => {
                let send = |operation| self.socket.send(&gratuitous_arp(mac, v4, operation));
                send(ArpOperation::Request).and_then(|()| send(ArpOperation::Reply))
            }
            IpAddr::V6(v6) => self.socket.send(&unsolicited_advertisement(mac, v6)),
        };
        sent.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::EAGAIN) => AnnounceError::Dropped { address },
            _ => AnnounceError::Send { address, source },
        })
    }
}
