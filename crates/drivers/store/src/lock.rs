//! One process per directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::StoreError;

/// The file that a store locks.
pub(crate) const LOCK_FILE: &str = "store.lock";

/// Why a lock cannot be had.
#[derive(Debug)]
pub enum LockRefusal {
    /// Another process has it: this one, if it could write that down.
    Taken(Option<u32>),
    /// The file system refused.
    Io(io::Error),
}

/// A file that is locked until this is dropped or the process ends, however it ends. The file
/// holds the owner's process id, for the message to others.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks `path`; makes the file if there is none.
    ///
    /// # Errors
    /// [`LockRefusal`].
    pub fn take(path: &Path) -> Result<Self, LockRefusal> {
        let mut writer = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(LockRefusal::Io)?;
        // Held read-only: an open writer would keep the file system from being remounted.
        let file = File::open(path).map_err(LockRefusal::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockRefusal::Taken(holder(&file))),
            Err(TryLockError::Error(source)) => return Err(LockRefusal::Io(source)),
        }
        // Only for the message to others; on a full disk it may stay empty.
        let _named = writer
            .set_len(0)
            .and_then(|()| writeln!(writer, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

/// Locks a store's directory.
pub(crate) fn take_directory(dir: &Path) -> Result<FileLock, StoreError> {
    let path = dir.join(LOCK_FILE);
    FileLock::take(&path).map_err(|refusal| match refusal {
        LockRefusal::Taken(holder) => StoreError::Locked { holder, path },
        LockRefusal::Io(source) => StoreError::from_io(&path, source),
    })
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
