//! Learning at once when an interface loses or regains its carrier.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::{Socket, SocketAddr};

use crate::links::{self, LinkError};
use crate::netlink;

const RTNLGRP_LINK: u32 = 1;

/// Why interfaces cannot be watched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkWatchError {
    /// The subscription failed.
    #[error("cannot subscribe to changes of interfaces")]
    Subscribe(#[source] io::Error),
    /// Reading failed.
    #[error("cannot read changes of interfaces")]
    Receive(#[source] io::Error),
    /// The state could not be read.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// An interface that can carry traffic from now on, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// The interface.
    pub ifindex: u32,
    /// Whether it exists, is turned on and has carrier.
    pub is_usable: bool,
}

/// Watches some interfaces of this network namespace.
#[derive(Debug)]
pub struct LinkWatch {
    socket: Socket,
    /// Whether each interface was usable when we last looked.
    usable: BTreeMap<u32, bool>,
    /// At most one entry per interface for each message that is read.
    pending: VecDeque<LinkChange>,
}

impl LinkWatch {
    /// Begins to watch; the state at the beginning is reported as the first changes.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn open(ifindexes: &[u32]) -> Result<Self, LinkWatchError> {
        let subscribe = || {
            let mut socket = Socket::new(netlink::ROUTE)?;
            socket.bind(&SocketAddr::new(0, 0))?;
            socket.add_membership(RTNLGRP_LINK)?;
            socket.set_non_blocking(true)?;
            Ok(socket)
        };
        let mut watch = Self {
            socket: subscribe().map_err(LinkWatchError::Subscribe)?,
            usable: BTreeMap::new(),
            pending: VecDeque::new(),
        };
        // After the subscription, so that nothing falls in between.
        for &ifindex in ifindexes {
            let is_usable = current(ifindex)?;
            watch.usable.insert(ifindex, is_usable);
            watch.pending.push_back(LinkChange { ifindex, is_usable });
        }
        Ok(watch)
    }

    /// Whether an interface was usable when we last looked; false for one that is not watched.
    #[must_use]
    pub fn is_usable(&self, ifindex: u32) -> bool {
        self.usable.get(&ifindex).copied().unwrap_or_default()
    }

    /// The next change, or none if there is nothing more now. Never blocks.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn poll(&mut self) -> Result<Option<LinkChange>, LinkWatchError> {
        while self.pending.is_empty() {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => self.read(&datagram),
                // The kernel had to drop messages: look for ourselves.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.look()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkWatchError::Receive(error)),
            }
        }
        Ok(self.pending.pop_front())
    }

    fn read(&mut self, datagram: &[u8]) {
        for message in netlink::messages(datagram) {
            if let Some(ifindex) = links::parse_removed(&message) {
                self.note(ifindex, false);
            } else if let Some(link) = links::parse(&message) {
                self.note(link.ifindex, link.has_carrier);
            }
        }
    }

    fn look(&mut self) -> Result<(), LinkWatchError> {
        let ifindexes: Vec<u32> = self.usable.keys().copied().collect();
        for ifindex in ifindexes {
            let is_usable = current(ifindex)?;
            self.note(ifindex, is_usable);
        }
        Ok(())
    }

    fn note(&mut self, ifindex: u32, is_usable: bool) {
        let Some(before) = self.usable.get_mut(&ifindex) else {
            return;
        };
        if *before != is_usable {
            *before = is_usable;
            self.pending.push_back(LinkChange { ifindex, is_usable });
        }
    }
}

fn current(ifindex: u32) -> Result<bool, LinkError> {
    match links::by_index(ifindex) {
        Ok(link) => Ok(link.has_carrier),
        Err(LinkError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for LinkWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
