//! What can go wrong with a store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::Version;

/// Why a commit or an opening failed. Cheap to clone: a group of batches may fail together.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The expectation of a change does not hold; nothing was changed.
    #[error("'{key}' was changed in between: read it again")]
    Conflict {
        /// The first key whose expectation does not hold.
        key: String,
        /// The version it has; `None` if there is no record.
        found: Option<Version>,
    },
    /// The batch breaks a bound; nothing was changed.
    #[error("the batch is not allowed: {reason}")]
    Invalid {
        /// Which bound.
        reason: &'static str,
    },
    /// The disk, or a quota, is full.
    #[error("cannot write {}: the disk is full (free some space; the store goes on by itself)", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The file system is read-only, or the file may not be written.
    #[error("cannot write {}: it is read-only (remount or permit; the store goes on by itself)", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// Another failure of the disk.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The file is no store, or damaged.
    #[error("{} is damaged or no store: {detail} (restore it from a backup, or move it away to start anew)", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a newer version of the program.
    #[error("{} has store format {found}, this program knows up to {known}: upgrade the program", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The newest known.
        known: u64,
    },
    /// Another process has the store.
    #[error("{} is held by another process{}: only one manager may run on a directory", path.display(), holder.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, as it has written there.
        holder: Option<u32>,
    },
}

impl StoreError {
    /// Whether the disk is at fault, not the batch: the same batch may succeed later.
    #[must_use]
    pub fn is_disk(&self) -> bool {
        !matches!(self, Self::Conflict { .. } | Self::Invalid { .. })
    }

    pub(crate) fn from_io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full {
                    path,
                    source: Arc::new(source),
                }
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Self::ReadOnly {
                path,
                source: Arc::new(source),
            },
            // So says the library of a file that it has not written.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Corrupt {
                path,
                detail: source.to_string(),
            },
            _ => Self::Io {
                path,
                source: Arc::new(source),
            },
        }
    }

    pub(crate) fn from_redb(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source) => Self::from_io(path, source),
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked {
                path: path.to_owned(),
                holder: None,
            },
            redb::Error::UpgradeRequired(found) => Self::Format {
                path: path.to_owned(),
                found: u64::from(found),
                known: crate::disk::FORMAT,
            },
            // The reason was reported by the operation before; the file is opened again anyway.
            redb::Error::PreviousIo => Self::Io {
                path: path.to_owned(),
                source: Arc::new(std::io::Error::other("an operation before this one failed")),
            },
            other => Self::Corrupt {
                path: path.to_owned(),
                detail: other.to_string(),
            },
        }
    }
}
