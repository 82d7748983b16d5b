//! The store in one file of one process.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::api::{AuditEntry, Batch, Health, Record, Store, Version};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::lock::{FileLock, take_directory};
use crate::memory::{Memory, Plan};

const STORE_FILE: &str = "store.redb";

/// A [`Store`] in the file `store.redb` of a directory, by way of `redb`.
///
/// All records are held in memory too, so reads never wait for the disk and go on when it fails.
pub struct RedbStore {
    /// Taken for the whole of a commit, so there is one at a time.
    disk: Mutex<Disk>,
    /// Taken for writing only for the moment in which a durable commit becomes visible.
    memory: RwLock<Memory>,
    health: Mutex<Health>,
    changed: (Mutex<Version>, Condvar),
    _lock: FileLock,
}

impl std::fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbStore")
            .field("version", &self.version())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl RedbStore {
    /// Opens the store of `dir`, or makes directory and store.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it; [`StoreError::Corrupt`] or
    /// [`StoreError::Format`] if the file cannot be understood; otherwise the disk's.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| StoreError::from_io(dir, source))?;
        let lock = take_directory(dir)?;
        Self::start(Disk::new(dir.join(STORE_FILE)), lock)
    }

    pub(crate) fn start(mut disk: Disk, lock: FileLock) -> Result<Self, StoreError> {
        disk.create_if_missing()?;
        let memory = disk.open()?;
        Ok(Self {
            disk: Mutex::new(disk),
            changed: (Mutex::new(memory.version), Condvar::new()),
            memory: RwLock::new(memory),
            health: Mutex::new(Health::Ok),
            _lock: lock,
        })
    }

    fn recover(&self, disk: &mut Disk) -> Result<(), StoreError> {
        if disk.is_open() {
            return Ok(());
        }
        let memory = disk.open()?;
        tracing::info!(version = memory.version.0, "opened the store again");
        let version = memory.version;
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = memory;
        self.announce(version);
        Ok(())
    }

    fn announce(&self, version: Version) {
        *lock(&self.changed.0) = version;
        self.changed.1.notify_all();
    }

    fn fail(&self, error: &StoreError) {
        let mut health = lock(&self.health);
        // A failing disk is asked again with every commit: say it once.
        if matches!(*health, Health::Ok) {
            tracing::error!(%error, "the store fails; reads go on from memory");
        }
        *health = Health::Failing(error.clone());
    }

    fn succeed(&self) {
        let mut health = lock(&self.health);
        if matches!(*health, Health::Failing(_)) {
            tracing::info!("the store works again");
        }
        *health = Health::Ok;
    }
}

impl Store for RedbStore {
    fn read(&self, key: &str) -> Option<Record> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        memory.records.get(key).cloned()
    }

    fn scan(&self, prefix: &str) -> Vec<(String, Record)> {
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        memory.scan(prefix)
    }

    fn commit(&self, batches: &[Batch]) -> Vec<Result<Version, StoreError>> {
        let mut disk = lock(&self.disk);
        // First, so that batches are judged by what is durable, not by what memory believes.
        if let Err(error) = self.recover(&mut disk) {
            self.fail(&error);
            return batches.iter().map(|_| Err(error.clone())).collect();
        }
        let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
        let mut plan = memory.plan(batches);
        if plan.is_empty() {
            // Nothing to write, so nothing is said about the disk either. An accepted batch
            // without changes has the version that there is.
            let version = memory.version;
            return plan
                .results
                .into_iter()
                .map(|result| result.map(|_| version))
                .collect();
        }
        let written = disk.write(&plan, &memory);
        drop(memory);
        match written {
            Ok(audit_first) => {
                let results = std::mem::take(&mut plan.results);
                let version = plan.version;
                self.memory
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .apply(plan, audit_first);
                self.succeed();
                self.announce(version);
                results
            }
            Err(error) => {
                self.fail(&error);
                plan.failed(&error)
            }
        }
    }

    fn audit_tail(&self, count: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let from_memory = |memory: &Memory| {
            let skip = memory.audit.len().saturating_sub(count);
            memory.audit.iter().skip(skip).cloned().collect()
        };
        {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            let all = memory.audit_next - memory.audit_first;
            if count <= memory.audit.len() || all == memory.audit.len() as u64 {
                return Ok(from_memory(&memory));
            }
        }
        match lock(&self.disk).audit_tail(count) {
            Some(entries) => entries,
            None => match &*lock(&self.health) {
                Health::Failing(error) => Err(error.clone()),
                Health::Ok => Ok(Vec::new()),
            },
        }
    }

    fn version(&self) -> Version {
        *lock(&self.changed.0)
    }

    fn wait(&self, seen: Version, timeout: Duration) -> Version {
        let (version, changed) = &self.changed;
        let (version, _timeout) = changed
            .wait_timeout_while(lock(version), timeout, |version| *version <= seen)
            .unwrap_or_else(PoisonError::into_inner);
        *version
    }

    fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    fn probe(&self) -> Result<(), StoreError> {
        let mut disk = lock(&self.disk);
        if matches!(*lock(&self.health), Health::Ok) {
            return Ok(());
        }
        let tried = self.recover(&mut disk).and_then(|()| {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            // Writes the version that there is once more: a whole commit, with its flush.
            let plan = Plan {
                version: memory.version,
                ..Plan::default()
            };
            disk.write(&plan, &memory)
        });
        match tried {
            Ok(_) => {
                self.succeed();
                Ok(())
            }
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }
}

/// A poisoned lock is used all the same: what it guards is replaced as a whole, never half.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
