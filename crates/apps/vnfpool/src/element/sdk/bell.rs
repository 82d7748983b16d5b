//! Wakes whoever polls.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// A descriptor that is readable once it was rung, until it is silenced; cheap, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<OwnedFd>);

impl Bell {
    /// Silent.
    ///
    /// # Errors
    /// When this process or the kernel has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Many times before anybody looks count as one.
    pub(crate) fn ring(&self) {
        // It can only fail when the counter is at its end, and then it is readable.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    /// To be called before looking, so that what comes meanwhile rings again.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
