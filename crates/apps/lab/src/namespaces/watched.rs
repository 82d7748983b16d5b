//! Processes that somebody else has started in a laboratory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::record::{ProcessMark, Record};

/// How often it is looked at what a process has pinned.
const INTERVAL: Duration = Duration::from_millis(20);

/// A process in the laboratory's record ([`super::Lab::watch`]). What it pins is noted while it
/// runs; that goes on without this handle, until the process ends.
#[derive(Debug)]
pub struct Watched {
    process: ProcessMark,
    record: Arc<Mutex<Record>>,
}

impl Watched {
    pub(super) fn start(process: ProcessMark, record: Arc<Mutex<Record>>) -> Result<Self> {
        let watched = Self { process, record };
        let on_thread = Self {
            process: watched.process.clone(),
            record: Arc::clone(&watched.record),
        };
        std::thread::Builder::new()
            .name("watched".into())
            .spawn(move || {
                while on_thread.process.is_alive() {
                    // What cannot be written down now may be the next time.
                    let _ = on_thread.note();
                    std::thread::sleep(INTERVAL);
                }
            })
            .context("starting a thread that watches a process")?;
        Ok(watched)
    }

    /// Notes what it has pinned by now: before it is killed, since pins outlive a killed element
    /// by design.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn note(&self) -> Result<()> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.note_pins(&self.process)
    }
}
