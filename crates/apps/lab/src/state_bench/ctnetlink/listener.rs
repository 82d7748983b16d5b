//! When new entries appear in a kernel.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use super::message::{Answer, Connection, answers, original};
use crate::clock::{self, Nanos};
use crate::namespaces::Namespace;

/// `NFNLGRP_CONNTRACK_NEW`
const GROUP_NEW: u32 = 1;
/// How often the thread looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(50);

/// Notes the moment at which entries to one destination port appear.
#[derive(Debug)]
pub(in super::super) struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// The socket overflowed or broke: entries may have been missed.
    deaf: AtomicBool,
    /// Source port and moment.
    seen: Mutex<Vec<(u16, Nanos)>>,
}

impl Listener {
    /// Listens in `namespace` to new entries with the destination port `port`.
    pub(in super::super) fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let mut connection = namespace.run(|| {
            let connection = Connection::open()?;
            connection.listen(GROUP_NEW, PATIENCE)?;
            Ok(connection)
        })?;
        let shared = Arc::new(Shared::default());
        let on_thread = Arc::clone(&shared);
        let thread = namespace.spawn_measuring("ct-events", move || {
            while !on_thread.stop.load(Ordering::Relaxed) {
                match connection.receive() {
                    Ok(datagram) => on_thread.note(datagram, port),
                    Err(error) if is_silence(&error) => {}
                    Err(_) => on_thread.deaf.store(true, Ordering::Relaxed),
                }
            }
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// What has appeared since the last call: source ports and moments.
    pub(in super::super) fn take(&self) -> Vec<(u16, Nanos)> {
        std::mem::take(&mut *self.shared.seen())
    }

    /// Whether events were lost on the way to the listener.
    pub(in super::super) fn is_deaf(&self) -> bool {
        self.shared.deaf.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Vec<(u16, Nanos)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, datagram: &[u8], port: u16) {
        let at = clock::now();
        for answer in answers(datagram) {
            if let Answer::Entry(attributes) = answer
                && let Some((_, ends)) = original(attributes)
                && ends.target.1 == port
            {
                self.seen().push((ends.source.1, at));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::TimedOut
    )
}
