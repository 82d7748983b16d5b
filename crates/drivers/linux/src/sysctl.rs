//! Settings of the kernel below `/proc/sys/net`, in the calling thread's network namespace.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the kernel setting {}", path.display())]
#[non_exhaustive]
pub struct SysctlError {
    /// What was attempted.
    pub action: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A family of per-interface settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `net.ipv4.conf`.
    V4,
    /// `net.ipv6.conf`.
    V6,
}

/// The file of a setting of one interface, or of `all`.
#[must_use]
pub fn interface_path(family: Family, interface: &str, key: &str) -> PathBuf {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    Path::new("/proc/sys/net")
        .join(family)
        .join("conf")
        .join(interface)
        .join(key)
}

/// Reads a setting.
///
/// # Errors
/// What the kernel refused.
pub fn read(path: &Path) -> Result<String, SysctlError> {
    let value = fs::read_to_string(path).map_err(|source| SysctlError {
        action: "read",
        path: path.into(),
        source,
    })?;
    Ok(value.trim().to_owned())
}

/// Writes a setting.
///
/// # Errors
/// What the kernel refused.
pub fn write(path: &Path, value: &str) -> Result<(), SysctlError> {
    fs::write(path, value).map_err(|source| SysctlError {
        action: "write",
        path: path.into(),
        source,
    })
}

/// Settings that were changed, to be put back.
///
/// They are put back by [`Changes::restore`] only, not when this is dropped: whether the time has
/// come depends on the addresses, which outlive the process.
#[derive(Debug, Default)]
pub struct Changes {
    before: Vec<(PathBuf, String)>,
}

impl Changes {
    /// Writes a setting and remembers what it was before, unless it already is `value`.
    ///
    /// # Errors
    /// What the kernel refused; then nothing was changed.
    pub fn set(&mut self, path: PathBuf, value: &str) -> Result<(), SysctlError> {
        let before = read(&path)?;
        if before != value {
            write(&path, value)?;
            self.before.push((path, before));
        }
        Ok(())
    }

    /// Puts everything back, latest change first; settings of an interface that is gone do not
    /// matter.
    ///
    /// # Errors
    /// The first refusal, after trying them all.
    pub fn restore(&mut self) -> Result<(), SysctlError> {
        let mut result = Ok(());
        for (path, value) in self.before.drain(..).rev() {
            match write(&path, &value) {
                Err(error) if error.source.kind() != io::ErrorKind::NotFound => {
                    result = result.and(Err(error));
                }
                _ => {}
            }
        }
        result
    }
}
