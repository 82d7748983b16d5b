//! The addresses of this machine, as they are whenever somebody asks.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use netlink_sys::{Socket, SocketAddr};

use crate::addresses;
use crate::links::{self, LinkError};
use crate::netlink;

const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// How often addresses are read again that changed while they were read.
const ATTEMPTS: usize = 16;

/// Why the addresses of this machine are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressWatchError {
    /// The subscription failed.
    #[error("cannot subscribe to changes of addresses")]
    Subscribe(#[source] io::Error),
    /// Changes could not be read.
    #[error("cannot read changes of addresses")]
    Receive(#[source] io::Error),
    /// The addresses could not be read.
    #[error("cannot list the addresses of this machine")]
    List(#[source] io::Error),
    /// The virtual devices could not be read.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There is no moment to read them at.
    #[error("the addresses of this machine change faster than they can be read")]
    Restless,
}

/// Watches the addresses of all interfaces of this network namespace, but for those on the virtual
/// devices of an owner ([`crate::VirtualDevice::mark`]). To be asked from threads of the same
/// namespace only.
#[derive(Debug)]
pub struct AddressWatch {
    socket: Socket,
    owner: String,
    /// Something may have changed since they were read.
    is_stale: bool,
}

impl AddressWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(owner: &str) -> Result<Self, AddressWatchError> {
        let subscribe = || {
            let mut socket = Socket::new(netlink::ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(RTNLGRP_IPV4_IFADDR)?;
            socket.add_membership(RTNLGRP_IPV6_IFADDR)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            socket: subscribe().map_err(AddressWatchError::Subscribe)?,
            owner: owner.to_owned(),
            is_stale: true,
        })
    }

    /// The addresses, if they may have changed since the last call that gave some. Costs one call
    /// of the kernel when they have not.
    ///
    /// # Errors
    /// What the kernel refused; the next call tries again.
    pub fn news(&mut self) -> Result<Option<HashSet<IpAddr>>, AddressWatchError> {
        if !self.has_changed()? && !self.is_stale {
            return Ok(None);
        }
        self.is_stale = true;
        for _ in 0..ATTEMPTS {
            let found = self.read()?;
            // A change in the middle may have hidden some.
            if !self.has_changed()? {
                self.is_stale = false;
                return Ok(Some(found));
            }
        }
        Err(AddressWatchError::Restless)
    }

    fn read(&self) -> Result<HashSet<IpAddr>, AddressWatchError> {
        // A virtual device that comes or goes meanwhile is in one of the two lists.
        let before = links::with_alias(&self.owner)?;
        let all = addresses::list_all().map_err(AddressWatchError::List)?;
        let after = links::with_alias(&self.owner)?;
        let is_virtual = |ifindex| {
            let mut devices = before.iter().chain(&after);
            devices.any(|device| device.ifindex == ifindex)
        };
        // An address may also be on a device of somebody else: there it moves as well.
        let moving: HashSet<IpAddr> = all
            .iter()
            .filter(|(ifindex, _)| is_virtual(*ifindex))
            .map(|(_, net)| net.addr())
            .collect();
        let own = all.iter().map(|(_, net)| net.addr());
        Ok(own.filter(|address| !moving.contains(address)).collect())
    }

    /// Takes what the kernel has told since the last call.
    fn has_changed(&mut self) -> Result<bool, AddressWatchError> {
        let mut has_changed = false;
        loop {
            match self.socket.recv_from_full() {
                Ok(_) => has_changed = true,
                // The kernel had to drop messages.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => has_changed = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(has_changed),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_stale = true;
                    return Err(AddressWatchError::Receive(error));
                }
            }
        }
    }
}
