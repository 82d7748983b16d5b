//! After a takeover: strict tracking of TCP windows again.
//!
//! A standby's kernel has seen no packets of the connections that it holds and is lenient with
//! them at first (`vnfpool_conntrack::TcpInfo::learning`). A while after the takeover it has, and
//! the lenience ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vnfpool_conntrack::{Scope, make_strict};

/// From the takeover until the end of the lenience: a sender repeats what was lost in the takeover
/// well before that, since its timer has grown for no longer than the outage.
const LENIENT_FOR: Duration = Duration::from_secs(15);

/// Between two chunks of some hundred connections, since each one is an event for the standby.
const PAUSE: Duration = Duration::from_millis(2);

/// A failed attempt is repeated after this time.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When the lenience is to end, if it has not.
#[derive(Debug, Default)]
pub(super) struct Settling {
    due: Option<Instant>,
    running: Option<std::thread::JoinHandle<bool>>,
    /// Ends what is running: there are copies in the table again, or newer connections taken over.
    stop: Arc<AtomicBool>,
}

impl Settling {
    /// This element has just become the active of a slot.
    pub(super) fn begin(&mut self) {
        self.due = Some(Instant::now() + LENIENT_FOR);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Called often; starts the work when it is due. `is_standby`: this element also holds
    /// connections for others, which stay as they are, in the same table.
    pub(super) fn run(&mut self, scope: &Scope, is_standby: bool) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            let done = running.join().unwrap_or(false);
            if !done && self.due.is_none() {
                self.due = Some(Instant::now() + RETRY_AFTER);
            }
        }
        if is_standby {
            self.stop.store(true, Ordering::Relaxed);
        }
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        if !is_due || is_standby || self.running.is_some() {
            return;
        }
        let scope = scope.clone();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        let work = move || settle(&scope, &stop);
        let started = std::thread::Builder::new()
            .name("settle".into())
            .spawn(work);
        match started {
            Ok(running) => {
                self.running = Some(running);
                self.due = None;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread that makes tracking strict");
                self.due = Some(Instant::now() + RETRY_AFTER);
            }
        }
    }
}

/// False if it has to be done again.
fn settle(scope: &Scope, stop: &AtomicBool) -> bool {
    let goes_on = || {
        std::thread::sleep(PAUSE);
        !stop.load(Ordering::Relaxed)
    };
    match make_strict(scope, goes_on) {
        Ok(_) if stop.load(Ordering::Relaxed) => false,
        Ok(connections) => {
            tracing::info!(connections, "strict tracking of connections taken over");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "connections taken over are still tracked leniently");
            false
        }
    }
}
