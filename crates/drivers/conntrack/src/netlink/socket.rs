//! A netfilter netlink socket, non-blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Larger than any datagram of the kernel (32 KiB for dumps).
const RECEIVE_BYTES: usize = 64 * 1024;

/// A socket operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// The socket could not be had.
    #[error(
        "cannot open a conntrack netlink socket (needs CAP_NET_ADMIN and the kernel module \
         nf_conntrack_netlink): {0}"
    )]
    Open(#[source] io::Error),
    /// The kernel did not take a request.
    #[error("cannot send a request to the kernel's connection tracking: {0}")]
    Send(#[source] io::Error),
    /// The kernel's answer could not be read.
    #[error("cannot read from the kernel's connection tracking: {0}")]
    Receive(#[source] io::Error),
    /// An answer was larger than any that the kernel is known to send.
    #[error("the kernel sent a conntrack datagram of {bytes} bytes, more than the buffer holds")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// The kernel refused a whole request.
    #[error("the kernel refused to {attempt}: {error}")]
    Refused {
        /// What was asked for.
        attempt: &'static str,
        /// Its reason.
        #[source]
        error: io::Error,
    },
    /// The addresses of this machine are not known, so nothing can be judged by them.
    #[error("cannot tell this machine's own connections from the function's: {0}")]
    Addresses(#[source] io::Error),
    /// A request stayed without the answer that the kernel always gives.
    #[error("the kernel did not answer the request to {attempt}")]
    NoAnswer {
        /// What was asked for.
        attempt: &'static str,
    },
}

/// What a receive gave.
#[derive(Debug)]
pub(crate) enum Received<'a> {
    Datagram(&'a [u8]),
    /// Nothing is there at the moment.
    Empty,
    /// The kernel had to throw messages away because the socket's buffer was full.
    Overrun,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Box<[u8]>,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread, with a subscription to
    /// `groups`.
    pub(crate) fn open(groups: u32, receive_bytes: usize) -> Result<Self, NetlinkError> {
        let open = || {
            let fd = rustix::net::socket_with(
                AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(netlink::NETFILTER),
            )?;
            // Without CAP_NET_ADMIN over the machine the ordinary limit applies.
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, receive_bytes).or_else(
                |_| rustix::net::sockopt::set_socket_recv_buffer_size(&fd, receive_bytes),
            )?;
            rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
            Ok(fd)
        };
        let fd = open().map_err(|error: rustix::io::Errno| NetlinkError::Open(error.into()))?;
        Ok(Self {
            fd,
            buffer: vec![0; RECEIVE_BYTES].into_boxed_slice(),
        })
    }

    /// The port that the kernel gave the socket: events that its requests cause bear it.
    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        let port = rustix::net::getsockname(&self.fd)
            .and_then(SocketAddrNetlink::try_from)
            .map(|address| address.pid());
        port.map_err(|error| NetlinkError::Open(error.into()))
    }

    /// Subscribes to `groups` instead of those before.
    pub(crate) fn join(&self, groups: u32) -> Result<(), NetlinkError> {
        // The kernel keeps the port that the socket has only if it is named.
        let bound = || {
            let name: SocketAddrNetlink = rustix::net::getsockname(&self.fd)?.try_into()?;
            rustix::net::bind(&self.fd, &SocketAddrNetlink::new(name.pid(), groups))
        };
        bound().map_err(|error| NetlinkError::Open(error.into()))
    }

    pub(crate) fn send(&self, request: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match rustix::net::send(&self.fd, request, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(NetlinkError::Send(error.into())),
            }
        }
    }

    pub(crate) fn receive(&mut self) -> Result<Received<'_>, NetlinkError> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Ok((_, bytes)) => {
                    let datagram = self.buffer.get(..bytes);
                    let datagram = datagram.ok_or(NetlinkError::TooLong { bytes })?;
                    return Ok(Received::Datagram(datagram));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Empty),
                Err(rustix::io::Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(error) => return Err(NetlinkError::Receive(error.into())),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
