//! Listening to a LAN: whether its witnesses answer, and whether somebody else announces a virtual
//! address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use vnfpool_model::MacAddr;

use crate::addresses::{self, AddressError};
use crate::frames::{self, Statement};
use crate::links::Interface;
use crate::packet::{PacketSocket, Receive};

/// More frames than this are not looked at in one [`Witness::poll`], whatever they are.
const FRAMES_PER_POLL_MAX: usize = 256;

/// Why a LAN cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// No socket on this interface.
    #[error("cannot open a packet socket on '{interface}': CAP_NET_RAW is needed")]
    Open {
        /// The interface.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The interface's own addresses are needed to ask with.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no address of the witness's family to ask with.
    #[error("cannot ask for {target} on '{interface}', which has no address of that family")]
    NoSource {
        /// The interface.
        interface: String,
        /// Who was to be asked for.
        target: IpAddr,
    },
    /// The question could not be sent.
    #[error("cannot ask for {target} on '{interface}'")]
    Send {
        /// The interface.
        interface: String,
        /// Who was to be asked for.
        target: IpAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The socket failed, for example because the interface went down or away.
    #[error("cannot listen on '{interface}'")]
    Receive {
        /// The interface.
        interface: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Something heard on a LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sighting {
    /// Somebody answered a question of this interface: the LAN works in both directions.
    Answer {
        /// Who answered.
        ip: IpAddr,
    },
    /// Somebody else says that a virtual address is his.
    ForeignAnnouncement {
        /// The address.
        vip: IpAddr,
        /// From where.
        mac: MacAddr,
    },
}

/// A probe of one LAN, by ARP and neighbor discovery from the parent's own addresses.
///
/// It hears what the gate drops, so a standby hears the announcements of the active.
#[derive(Debug)]
pub struct Witness {
    socket: PacketSocket,
    interface: Interface,
    source_v4: Option<Ipv4Addr>,
    source_v6: Option<Ipv6Addr>,
    virtual_addresses: Vec<IpAddr>,
}

impl Witness {
    /// Listens on a LAN's parent interface, for announcements of `virtual_addresses` among others.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(parent: &Interface, virtual_addresses: &[IpAddr]) -> Result<Self, WitnessError> {
        let own = addresses::list(parent)?;
        let own = || own.iter().map(ipnet::IpNet::addr);
        let v6 = || {
            own().filter_map(|address| match address {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            })
        };
        let socket = PacketSocket::open(parent.ifindex, Receive::NeighborTraffic);
        let socket = socket.map_err(|source| WitnessError::Open {
            interface: parent.name.clone(),
            source,
        })?;
        Ok(Self {
            socket,
            interface: parent.clone(),
            source_v4: own().find_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            source_v6: v6()
                .find(|address| address.is_unicast_link_local())
                .or_else(|| v6().next()),
            virtual_addresses: virtual_addresses.to_vec(),
        })
    }

    /// Asks for a witness; its answer comes out of [`Witness::poll`].
    ///
    /// # Errors
    /// [`WitnessError::NoSource`] without an own address of that family, else
    /// [`WitnessError::Send`].
    pub fn probe(&self, target: IpAddr) -> Result<(), WitnessError> {
        let mac = self.interface.mac;
        let sent = match (target, self.source_v4, self.source_v6) {
            (IpAddr::V4(target), Some(own), _) => {
                self.socket.send(&frames::arp_request(mac, own, target))
            }
            (IpAddr::V6(target), _, Some(own)) => {
                self.socket.send(&frames::solicitation(mac, own, target))
            }
            _ => {
                return Err(WitnessError::NoSource {
                    interface: self.interface.name.clone(),
                    target,
                });
            }
        };
        sent.map_err(|source| WitnessError::Send {
            interface: self.interface.name.clone(),
            target,
            source,
        })
    }

    /// The next thing heard, or none if there is nothing more now. Never blocks.
    ///
    /// # Errors
    /// [`WitnessError::Receive`]; the socket goes on working when the interface comes back.
    pub fn poll(&self) -> Result<Option<Sighting>, WitnessError> {
        let mut buffer = [0; frames::NEIGHBOR_BYTES];
        for _ in 0..FRAMES_PER_POLL_MAX {
            let frame = self.socket.receive(&mut buffer);
            let frame = frame.map_err(|source| WitnessError::Receive {
                interface: self.interface.name.clone(),
                source,
            })?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            if let Some(sighting) = frames::parse(frame).and_then(|said| self.judge(said)) {
                return Ok(Some(sighting));
            }
        }
        Ok(None)
    }

    fn judge(&self, said: Statement) -> Option<Sighting> {
        if self.virtual_addresses.contains(&said.address) {
            return Some(Sighting::ForeignAnnouncement {
                vip: said.address,
                mac: said.mac,
            });
        }
        // An answer to somebody else says nothing about what this interface can send.
        (said.answer_for == Some(self.interface.mac))
            .then_some(Sighting::Answer { ip: said.address })
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Witness {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_fd().as_raw_fd()
    }
}
