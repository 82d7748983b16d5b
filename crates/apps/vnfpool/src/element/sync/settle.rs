//! After a takeover: strict tracking of TCP windows again.
//!
//! A standby's kernel has seen no packets of the connections that it holds and is lenient with
//! them at first (`vnfpool_conntrack::TcpInfo::learning`). After the takeover the table is looked
//! through again and again: connections with which the kernel is in step become strict, and those
//! that a blind reset was about to end in the meantime are restored, until none is left to learn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vnfpool_conntrack::{Scope, Settled};

/// From the takeover until the first look, and between two: less than the 10 s that the kernel
/// gives a connection after a reset.
const PERIOD: Duration = Duration::from_secs(4);

/// How long it is looked at that pace. What is idle for longer is looked at every
/// [`PERIOD_IDLE`], for the time that a look takes with a full table.
const BRISK_FOR: Duration = Duration::from_secs(120);
const PERIOD_IDLE: Duration = Duration::from_secs(60);

/// Between two chunks of some hundred connections, since each one is an event for the standby.
const PAUSE: Duration = Duration::from_millis(2);

/// When the lenience is to end, if it has not.
#[derive(Debug, Default)]
pub(super) struct Settling {
    due: Option<Instant>,
    begun: Option<Instant>,
    running: Option<std::thread::JoinHandle<bool>>,
    /// Ends what is running: there are copies in the table again, or newer connections taken over.
    stop: Arc<AtomicBool>,
}

impl Settling {
    /// This element has just become the active of a slot.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.begun = Some(now);
        self.due = Some(now + PERIOD);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Called often; starts the work when it is due. `is_standby`: this element also holds
    /// connections for others, which stay as they are, in the same table.
    pub(super) fn run(&mut self, scope: &Scope, is_standby: bool) {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            let done = running.join().unwrap_or(false);
            if !done && self.due.is_none() {
                let brisk = self.begun.is_some_and(|begun| begun.elapsed() < BRISK_FOR);
                self.due = Some(Instant::now() + if brisk { PERIOD } else { PERIOD_IDLE });
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
                self.due = Some(Instant::now() + PERIOD);
            }
        }
    }
}

/// False if it has to be done again.
fn settle(scope: &Scope, stop: &AtomicBool) -> bool {
    let goes_on = |changed| {
        if changed > 0 {
            std::thread::sleep(PAUSE);
        }
        !stop.load(Ordering::Relaxed)
    };
    match vnfpool_conntrack::settle(scope, goes_on) {
        Ok(settled) => {
            let Settled {
                made_strict,
                restored,
                learning,
            } = settled;
            if made_strict > 0 || restored > 0 {
                tracing::info!(
                    made_strict,
                    restored,
                    learning,
                    "strict tracking of connections taken over"
                );
            }
            learning == 0 && !stop.load(Ordering::Relaxed)
        }
        Err(error) => {
            tracing::warn!(%error, "connections taken over are still tracked leniently");
            false
        }
    }
}
