//! The durable store of pool state.
//!
//! A store keeps versioned records under short keys (`pool/edge`, `slot/7`, `token/ab12…`) and an
//! audit log. Changes are compare-and-swap, several in one batch, all or nothing, and on disk
//! before they are acknowledged: a manager never answers before its record is (DESIGN: "persist
//! before send").
//!
//! - [`Store`] is the trait; [`RedbStore`] keeps it in one file of one process.
//! - [`StoreThread`] carries commits out on a thread of its own and groups what is waiting into
//!   one flush of the disk.
//! - [`encode_record`] and [`decode_record`] put a version byte in front of every value.
//!
//! When the disk fails (full, read-only, broken) every commit fails with an error that names the
//! cause, reads go on from memory, and each further commit first opens the file again: the store
//! recovers by itself as soon as the disk does.

mod api;
mod disk;
mod error;
mod lock;
mod memory;
mod record;
mod redb_store;
mod thread;

pub use api::{
    AUDIT_BYTES_MAX, AuditEntry, Batch, CHANGES_MAX, Change, Expect, Health, KEY_BYTES_MAX, Record,
    Store, VALUE_BYTES_MAX, Version,
};
pub use disk::AUDIT_ENTRIES_MAX;
pub use error::StoreError;
pub use lock::{FileLock, LockRefusal};
pub use record::{RecordError, decode_record, encode_record, record_version};
pub use redb_store::RedbStore;
pub use thread::{Completion, QUEUE_MAX, StoreThread, SubmitError};

#[cfg(test)]
mod tests;
