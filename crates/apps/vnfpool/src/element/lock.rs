//! One agent for each directory of an element.
//!
//! A second one would turn off the devices of the first (they look like those of a killed agent)
//! before anything tells it that the first one runs.

use std::path::{Path, PathBuf};

use vnfpool_store::{FileLock, LockRefusal};

const FILE: &str = "agent.lock";

/// Why this agent must not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another one runs.
    #[error(
        "the element in {} belongs to another running process{}: stop it first",
        dir.display(), named(*holder)
    )]
    Taken {
        /// The element's directory.
        dir: PathBuf,
        /// The process that has it, if it could write that down.
        holder: Option<u32>,
    },
    /// The file system refused.
    #[error("lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// Holds an element's directory. To be taken before anything on this machine is changed.
///
/// # Errors
/// [`LockError::Taken`] while another process has it, else what the file system refused.
pub(crate) fn take(dir: &Path) -> Result<FileLock, LockError> {
    let path = dir.join(FILE);
    FileLock::take(&path).map_err(|refusal| match refusal {
        LockRefusal::Taken(holder) => LockError::Taken {
            dir: dir.to_owned(),
            holder,
        },
        LockRefusal::Io(source) => LockError::Io { path, source },
    })
}

fn named(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path()).unwrap();
        let second = take(dir.path()).unwrap_err();
        let pid = std::process::id();
        let text = format!("belongs to another running process (pid {pid})");
        assert!(second.to_string().contains(&text), "{second}");
        drop(first);
        take(dir.path()).unwrap();
    }
}
