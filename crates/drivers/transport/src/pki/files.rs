//! Files that appear whole or not at all and are never overwritten.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::PkiError;

/// The largest file that is read; a certificate has about 1 KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Who may read a new file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Readers {
    /// Its owner only.
    Owner,
    /// Everybody.
    All,
}

/// Creates `path` with `content`, durably. An existing file stays as it is and is an error.
pub(crate) fn create(path: &Path, content: &[u8], readers: Readers) -> Result<(), PkiError> {
    let failed = |source| PkiError::Write {
        path: path.to_owned(),
        source,
    };
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::All => 0o644,
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".new-{}", std::process::id()));
    let temporary = Path::new(&temporary);
    // Left by an interrupted process that had our id; it was never visible under its real name.
    remove_if_there(temporary).map_err(failed)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(failed)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        // A link fails if the name is taken, a rename would overwrite it.
        .and_then(|()| std::fs::hard_link(temporary, path));
    let removed = remove_if_there(temporary);
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(PkiError::Exists {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(failed(error)),
    }
    removed.map_err(failed)?;
    sync_directory(path).map_err(failed)
}

/// Reads a small file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    let failed = |source| PkiError::Read {
        path: path.to_owned(),
        source,
    };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(failed)
}

/// Creates a directory that only its owner may enter, with its parents; an existing one is kept.
pub(crate) fn create_directory(path: &Path) -> Result<(), PkiError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| PkiError::Write {
            path: path.to_owned(),
            source,
        })
}

fn sync_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
