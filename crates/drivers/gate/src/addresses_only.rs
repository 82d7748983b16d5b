//! A fence without BPF: adds and removes the addresses.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vnfpool_model::Time;

use crate::Fence;

/// Why addresses could not be added or removed, as whoever does it says.
pub type SwitchError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no such fence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The addresses that may be configured could not be removed.
    #[error("cannot remove the virtual addresses before the slot starts")]
    Close(#[source] SwitchError),
    /// There is no thread to add and remove them.
    #[error("cannot start the thread that adds and removes addresses")]
    Thread(#[source] std::io::Error),
}

/// How often a failed change is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Adds the addresses of a slot while its lease runs and removes them when it ends.
///
/// A thread of its own does the work, so that opening and closing never block the caller; a
/// closed fence may therefore leave the addresses in place for a moment.
/// [`AddressesOnly::SHORTCOMINGS`] says what else this cannot promise.
pub struct AddressesOnly {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

impl AddressesOnly {
    /// What an operator has to know about this driver, in one line.
    pub const SHORTCOMINGS: &'static str = "without the BPF gate a frozen agent keeps its \
        addresses, packets already queued still leave after the lease is over, and a takeover \
        waits for the addresses to be added";

    /// Removes the addresses, and then starts the worker: as long as an earlier life's addresses
    /// are there, nobody has this fence and says that it is closed.
    ///
    /// `switch(true)` has to add all addresses of the slot, `switch(false)` to remove them. After
    /// the first time it is called from the worker only, and again after a failure. `report` is
    /// told of failures.
    ///
    /// # Errors
    /// [`SpawnError::Close`] if the addresses could not be removed, [`SpawnError::Thread`].
    pub fn spawn(
        mut switch: impl FnMut(bool) -> Result<(), SwitchError> + Send + 'static,
        report: impl FnMut(SwitchError) + Send + 'static,
    ) -> Result<Self, SpawnError> {
        switch(false).map_err(SpawnError::Close)?;
        let shared = Arc::new(Shared::default());
        let worker = Worker {
            shared: Arc::clone(&shared),
            switch: Box::new(switch),
            report: Box::new(report),
            present: Some(false),
        };
        let worker = thread::Builder::new()
            .name("addresses".into())
            .spawn(move || worker.run())
            .map_err(SpawnError::Thread)?;
        Ok(Self {
            shared,
            worker: Some(worker),
        })
    }

    /// Whether the addresses are configured, as far as the worker has got.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.shared.present.load(Ordering::Acquire)
    }
}

impl Fence for AddressesOnly {
    fn open_until(&mut self, until: Time) {
        let before = self.shared.deadline.swap(until.0, Ordering::AcqRel);
        // A mere renewal needs no wake-up: the worker reads the deadline when its timer ends.
        if before == 0 || until.0 < before || !self.is_present() {
            self.shared.wake();
        }
    }

    fn raise(&mut self, until: Time) {
        if until > self.deadline() {
            self.open_until(until);
        }
    }

    fn close(&mut self) {
        self.open_until(Time::ZERO);
    }

    fn deadline(&self) -> Time {
        Time(self.shared.deadline.load(Ordering::Acquire))
    }
}

impl Drop for AddressesOnly {
    /// Waits until the addresses are gone, or could not be removed.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.close();
        self.shared.wake();
        if let Some(worker) = self.worker.take() {
            // A panic of the worker has been printed by its own thread.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for AddressesOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressesOnly")
            .field("deadline", &self.deadline())
            .field("present", &self.is_present())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    deadline: AtomicU64,
    present: AtomicBool,
    stop: AtomicBool,
    /// Whether something changed since the worker last looked.
    changed: Mutex<bool>,
    condition: Condvar,
}

impl Shared {
    fn wake(&self) {
        *self.lock() = true;
        self.condition.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, or for `timeout`.
    fn wait(&self, timeout: Option<Duration>) {
        let changed = self.lock();
        let mut changed = match timeout {
            Some(timeout) => {
                self.condition
                    .wait_timeout_while(changed, timeout, |changed| !*changed)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .condition
                .wait_while(changed, |changed| !*changed)
                .unwrap_or_else(PoisonError::into_inner),
        };
        *changed = false;
    }
}

struct Worker {
    shared: Arc<Shared>,
    switch: Box<dyn FnMut(bool) -> Result<(), SwitchError> + Send>,
    report: Box<dyn FnMut(SwitchError) + Send>,
    /// What is configured; none if a failure leaves that open.
    present: Option<bool>,
}

impl Worker {
    fn run(mut self) {
        loop {
            let stop = self.shared.stop.load(Ordering::Acquire);
            let deadline = Time(self.shared.deadline.load(Ordering::Acquire));
            let now = now();
            let wanted = now < deadline && !stop;
            if self.present != Some(wanted) {
                self.present = match (self.switch)(wanted) {
                    Ok(()) => Some(wanted),
                    Err(error) => {
                        (self.report)(error);
                        None
                    }
                };
                let maybe_present = self.present != Some(false);
                self.shared.present.store(maybe_present, Ordering::Release);
                if stop {
                    return;
                }
                // The deadline may have passed meanwhile.
                if self.present.is_some() {
                    continue;
                }
            }
            if stop {
                return;
            }
            let timeout = match self.present {
                None => Some(RETRY),
                Some(true) => Some(deadline.since(now)),
                Some(false) => None,
            };
            self.shared.wait(timeout);
        }
    }
}

/// The boot-time clock.
fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = |value: i64| u64::try_from(value).unwrap_or(0);
    Time(nanos(now.tv_sec) * 1_000_000_000 + nanos(now.tv_nsec))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Goal: addresses follow the lease. Method: record the calls; the renewal is far in the
    /// future, so only closing can be what removes them.
    #[test]
    fn addresses_follow_the_lease() {
        let (calls, seen) = mpsc::channel();
        let mut fence = AddressesOnly::spawn(
            move |present| Ok(calls.send(present)?),
            |error| panic!("{error}"),
        )
        .unwrap();
        assert!(!seen.recv().unwrap(), "closes first");
        fence.open_until(now().after(Duration::from_secs(3600)));
        assert!(seen.recv().unwrap());
        fence.raise(now().after(Duration::from_secs(7200)));
        fence.close();
        assert!(!seen.recv().unwrap());
        // A deadline by itself removes them too.
        fence.raise(now().after(Duration::from_millis(20)));
        assert!(seen.recv().unwrap());
        assert!(!seen.recv().unwrap());
        drop(fence);
        assert!(seen.try_recv().is_err(), "already removed");
    }

    /// Goal: a fence exists only with the addresses gone.
    #[test]
    fn addresses_that_cannot_be_removed_are_no_fence() {
        let spawned = AddressesOnly::spawn(|_| Err("busy".into()), |error| panic!("{error}"));
        assert!(matches!(spawned, Err(SpawnError::Close(error)) if error.to_string() == "busy"));
    }

    /// Goal: a failed change is reported and tried again until it works.
    #[test]
    fn failures_are_tried_again() {
        let (calls, seen) = mpsc::channel();
        let (reports, reported) = mpsc::channel();
        let mut failures = 2;
        let mut fence = AddressesOnly::spawn(
            move |present| {
                calls.send(present)?;
                if present && failures > 0 {
                    failures -= 1;
                    return Err("busy".into());
                }
                Ok(())
            },
            move |error| reports.send(error.to_string()).unwrap(),
        )
        .unwrap();
        fence.open_until(now().after(Duration::from_secs(3600)));
        assert!(!seen.recv().unwrap(), "closes first");
        for _ in 0..3 {
            assert!(seen.recv().unwrap());
        }
        assert_eq!(
            reported.iter().take(2).collect::<Vec<_>>(),
            ["busy", "busy"]
        );
    }
}
