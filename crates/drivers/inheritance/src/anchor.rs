//! Descriptors that outlive the process that opened them.
//!
//! A pair of sockets that the supervisor made and never reads: what a process sends into it is held
//! by the kernel until another process takes it out. So the sockets of datagrams go on receiving, and
//! those whose closing takes the kernel long (packet sockets: tens of milliseconds) do not hold up
//! the end of a killed process.
#![expect(unsafe_code, reason = "descriptors are inherited by their numbers")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::MemoryError;

/// The most descriptors in one bundle; the kernel's own bound is 253.
pub const BUNDLE_MAX: usize = 64;

/// Longest name of a bundle in bytes.
const NAME_BYTES_MAX: usize = 2_048;

/// The most bundles that are taken out at once.
const BUNDLES_MAX: usize = 4_096;

/// Holds bundles of descriptors for the next process.
#[derive(Debug)]
pub struct Anchor {
    send: OwnedFd,
    receive: OwnedFd,
}

/// Descriptors that were held together.
#[derive(Debug)]
pub struct Bundle {
    /// What they are.
    pub name: String,
    /// In the order in which they were given.
    pub descriptors: Vec<OwnedFd>,
}

impl Anchor {
    /// Makes an empty one; its descriptors stay open in the programs that the calling process
    /// starts from now on.
    ///
    /// # Errors
    /// [`MemoryError::Kernel`].
    pub fn create() -> Result<Self, MemoryError> {
        let pair = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::NONBLOCK,
            None,
        );
        let (send, receive) = pair.map_err(|errno| failed("make the anchor beside", errno))?;
        Ok(Self { send, receive })
    }

    /// The numbers under which another program finds it.
    #[must_use]
    pub fn numbers(&self) -> [RawFd; 2] {
        [self.send.as_raw_fd(), self.receive.as_raw_fd()]
    }

    /// Takes over what a supervisor has left open under these numbers, see
    /// [`crate::Memory::inherit`].
    ///
    /// # Errors
    /// [`MemoryError`] if there is nothing.
    pub fn inherit(numbers: [RawFd; 2]) -> Result<Self, MemoryError> {
        if numbers.iter().any(|number| *number <= 2) {
            return Err(MemoryError::Foreign);
        }
        // SAFETY: nothing here uses or closes these numbers: they were left open for us by whoever
        // started this process, which has opened nothing under them yet. If a number is not open,
        // the first use fails.
        let [send, receive] = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
        for fd in [&send, &receive] {
            fcntl_setfd(fd, FdFlags::CLOEXEC).map_err(|errno| failed("inherit", errno))?;
        }
        Ok(Self { send, receive })
    }

    /// Holds copies of `descriptors`.
    ///
    /// # Errors
    /// [`MemoryError::Kernel`] if there are too many, or too many are held already.
    pub fn hold(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), MemoryError> {
        if descriptors.len() > BUNDLE_MAX || name.len() > NAME_BYTES_MAX {
            return Err(failed("hold so many descriptors in", Errno::TOOBIG));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BUNDLE_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        let text = [IoSlice::new(name.as_bytes())];
        sendmsg(&self.send, &text, &mut ancillary, SendFlags::DONTWAIT)
            .map(|_| ())
            .map_err(|errno| failed("hold descriptors in", errno))
    }

    /// Takes everything out, oldest first.
    #[must_use]
    pub fn take_all(&self) -> Vec<Bundle> {
        std::iter::from_fn(|| self.take_one())
            .take(BUNDLES_MAX)
            .collect()
    }

    fn take_one(&self) -> Option<Bundle> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BUNDLE_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; NAME_BYTES_MAX];
        let mut text = [IoSliceMut::new(&mut name)];
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(self.receive.as_fd(), &mut text, &mut ancillary, flags).ok()?;
        let descriptors = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let descriptors = descriptors.collect::<Vec<_>>();
        let name = String::from_utf8_lossy(&name[..received.bytes.min(NAME_BYTES_MAX)]);
        (received.bytes > 0).then(|| Bundle {
            name: name.into_owned(),
            descriptors,
        })
    }
}

fn failed(attempt: &'static str, errno: Errno) -> MemoryError {
    MemoryError::Kernel {
        attempt,
        source: errno.into(),
    }
}
