//! Where the data planes of removed slots are let go of.
//!
//! Closing their sockets and removing their addresses takes the kernel milliseconds, which the
//! heartbeats of the other slots do not have.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use super::Plane;
use crate::pulse::guard;

/// A thread without real time that drops planes. It ends when this is dropped.
pub(super) struct Retired {
    planes: SyncSender<Plane>,
    /// Planes that were handed over and are not gone yet.
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Retired {
    pub(super) fn start() -> std::io::Result<Self> {
        // As many as there can be slots.
        let (planes, retired) = sync_channel::<Plane>(vnfpool_gate::GATES_MAX);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&waiting);
        let run = move || {
            for plane in retired {
                drop(plane);
                counter.fetch_sub(1, Ordering::Release);
            }
        };
        std::thread::Builder::new()
            .name("retired".into())
            .spawn(move || guard::or_abort("retired", run))?;
        Ok(Self { planes, waiting })
    }

    /// Takes a plane whose gate is closed, without waiting.
    pub(super) fn take(&self, plane: Plane) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(plane) | TrySendError::Disconnected(plane)) =
            self.planes.try_send(plane)
        {
            drop(plane);
            self.waiting.fetch_sub(1, Ordering::Release);
        }
    }
}
