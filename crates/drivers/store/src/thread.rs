//! A thread of its own for commits, so that nobody else waits for the disk.

use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel,
};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::api::{Batch, Health, Store, Version};
use crate::error::StoreError;

/// Batches that may wait. More means that the disk has stood still for seconds: refuse then,
/// rather than answer from a queue that grows.
pub const QUEUE_MAX: usize = 1024;
/// Batches in one flush.
const GROUP_MAX: usize = 128;
/// How often a failing store is tried again while nothing is submitted.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Called on the store's thread with the caller's token and the outcome. It must not block.
pub type Completion = Box<dyn Fn(u64, Result<Version, StoreError>) + Send>;

/// Commits batches in the order in which they were submitted. Whatever waits while the disk is
/// busy goes into the next flush together.
#[derive(Debug)]
pub struct StoreThread {
    queue: Option<SyncSender<(u64, Batch)>>,
    thread: Option<JoinHandle<()>>,
}

impl StoreThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system allows no further thread.
    pub fn spawn(store: Arc<dyn Store>, completed: Completion) -> std::io::Result<Self> {
        let (queue, submitted) = sync_channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("store".into())
            .spawn(move || run(&*store, &submitted, &completed))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Queues a batch and returns at once. The completion is called exactly once for each batch
    /// that was accepted here.
    ///
    /// # Errors
    /// [`SubmitError`]; the completion is not called then.
    pub fn submit(&self, token: u64, batch: Batch) -> Result<(), SubmitError> {
        let queue = self.queue.as_ref().ok_or(SubmitError::Stopped)?;
        queue.try_send((token, batch)).map_err(|error| match error {
            TrySendError::Full(_) => SubmitError::QueueFull,
            TrySendError::Disconnected(_) => SubmitError::Stopped,
        })
    }
}

impl Drop for StoreThread {
    /// Commits what is queued, then ends the thread.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

/// Why a batch was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The disk does not keep up.
    #[error("the store's queue is full: the disk does not keep up")]
    QueueFull,
    /// The thread has ended.
    #[error("the store's thread has ended")]
    Stopped,
}

/// The next submission; `None` if there was none while the store is failing. It is asked again
/// then, so that it recovers although nobody changes anything.
fn next(
    store: &dyn Store,
    submitted: &Receiver<(u64, Batch)>,
) -> Result<Option<(u64, Batch)>, RecvError> {
    if matches!(store.health(), Health::Ok) {
        return submitted.recv().map(Some);
    }
    match submitted.recv_timeout(PROBE_INTERVAL) {
        Ok(submission) => Ok(Some(submission)),
        Err(RecvTimeoutError::Timeout) => {
            // The store has logged the failure and reports it by its health.
            let _health = store.probe();
            Ok(None)
        }
        Err(RecvTimeoutError::Disconnected) => Err(RecvError),
    }
}

fn run(store: &dyn Store, submitted: &Receiver<(u64, Batch)>, completed: &Completion) {
    let mut tokens = Vec::with_capacity(GROUP_MAX);
    let mut batches = Vec::with_capacity(GROUP_MAX);
    loop {
        let (token, batch) = match next(store, submitted) {
            Ok(Some(submission)) => submission,
            Ok(None) => continue,
            Err(RecvError) => return,
        };
        tokens.push(token);
        batches.push(batch);
        while batches.len() < GROUP_MAX {
            match submitted.try_recv() {
                Ok((token, batch)) => {
                    tokens.push(token);
                    batches.push(batch);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let results = store.commit(&batches);
        batches.clear();
        for (token, result) in tokens.drain(..).zip(results) {
            completed(token, result);
        }
    }
}
