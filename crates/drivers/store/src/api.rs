//! What a store does.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::StoreError;

/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 255;
/// The longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// The most changes in one batch.
pub const CHANGES_MAX: usize = 1024;
/// The longest audit entry in bytes.
pub const AUDIT_BYTES_MAX: usize = 4096;

/// A place in the order of commits. Every record carries the version of the batch that wrote it,
/// so a key that was deleted and written again never has an old version again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value and the batch that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The batch that wrote it.
    pub version: Version,
    /// The bytes.
    pub value: Arc<[u8]>,
}

/// What has to be true of a key for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is no record.
    Absent,
    /// The record has this version.
    Version(Version),
}

/// One key's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// What has to be true before.
    pub expect: Expect,
    /// The new value, at most [`VALUE_BYTES_MAX`] bytes; `None` deletes the record.
    pub value: Option<Vec<u8>>,
}

impl Change {
    /// Writes a record if `expect` holds.
    #[must_use]
    pub fn put(key: impl Into<String>, expect: Expect, value: Vec<u8>) -> Self {
        Self {
            key: key.into(),
            expect,
            value: Some(value),
        }
    }

    /// Deletes a record if `expect` holds.
    #[must_use]
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self {
            key: key.into(),
            expect,
            value: None,
        }
    }
}

/// Changes that are made together or not at all, with what the audit log says about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes; each key at most once.
    pub changes: Vec<Change>,
    /// Entries for the audit log, at most [`AUDIT_BYTES_MAX`] bytes each.
    pub audit: Vec<Vec<u8>>,
}

impl Batch {
    /// A batch without audit entries.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        Self {
            changes,
            audit: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let invalid = |reason| Err(StoreError::Invalid { reason });
        if self.changes.len() > CHANGES_MAX || self.audit.len() > CHANGES_MAX {
            return invalid("more than 1024 changes or audit entries in one batch");
        }
        if self.audit.iter().any(|entry| entry.len() > AUDIT_BYTES_MAX) {
            return invalid("an audit entry is longer than 4096 bytes");
        }
        for change in &self.changes {
            if change.key.is_empty() || change.key.len() > KEY_BYTES_MAX {
                return invalid("a key must have 1 to 255 bytes");
            }
            let length = change.value.as_ref().map_or(0, Vec::len);
            if length > VALUE_BYTES_MAX {
                return invalid("a value is longer than 1 MiB");
            }
        }
        let mut keys: Vec<_> = self.changes.iter().map(|change| &change.key).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() != self.changes.len() {
            return invalid("a key is changed twice in one batch");
        }
        Ok(())
    }
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its place in the log, counting from 1; never used again.
    pub sequence: u64,
    /// What was appended.
    pub content: Arc<[u8]>,
}

/// Whether commits succeed.
#[derive(Clone, Debug)]
pub enum Health {
    /// The newest commit, if any, was stored.
    Ok,
    /// The newest attempt failed; the next one tries again.
    Failing(StoreError),
}

/// A durable store of versioned records.
pub trait Store: fmt::Debug + Send + Sync {
    /// The record of a key, as of the newest acknowledged commit. Never waits for the disk.
    fn read(&self, key: &str) -> Option<Record>;

    /// All records whose keys begin with `prefix`, in the order of keys. Never waits for the disk.
    fn scan(&self, prefix: &str) -> Vec<(String, Record)>;

    /// Makes several batches durable with one flush of the disk and waits for it. Each batch is
    /// judged on its own, in order, seeing those before it; the results are in the same order,
    /// each the version of its records.
    ///
    /// # Errors (of each batch)
    /// [`StoreError::Conflict`] and [`StoreError::Invalid`] concern one batch and change nothing.
    /// All others concern the disk: whether the batch has become durable is then unknown until
    /// the store has recovered (it may be found there). Read before trying again.
    fn commit(&self, batches: &[Batch]) -> Vec<Result<Version, StoreError>>;

    /// The newest `count` entries of the audit log, oldest first.
    ///
    /// # Errors
    /// The disk fails and memory does not hold as many.
    fn audit_tail(&self, count: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// The version of the newest commit that reads can see.
    fn version(&self) -> Version;

    /// Waits until [`Store::version`] is above `seen` or `timeout` is over, and returns it.
    fn wait(&self, seen: Version, timeout: Duration) -> Version;

    /// Whether commits succeed.
    fn health(&self) -> Health;

    /// Tries to write if the newest attempt has failed, so that health tells the truth without
    /// anybody having to change something. Waits for the disk. Does nothing in good health.
    ///
    /// # Errors
    /// The disk's.
    fn probe(&self) -> Result<(), StoreError>;
}
