//! Kernel settings that replication depends on.

use std::io;
use std::path::PathBuf;

const DIRECTORY: &str = "/proc/sys/net/netfilter";

/// A setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the kernel setting {}: {source}", path.display())]
#[non_exhaustive]
pub struct SettingError {
    /// The file of the setting.
    pub path: PathBuf,
    /// "read" or "change".
    pub attempt: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Sets `nf_conntrack_events` to 1 in the network namespace of the calling thread.
///
/// With the kernel's default (2) only connections made while somebody listens ever give events:
/// those made before, and those that a standby's agent injected, would change and end unnoticed
/// after a takeover. So it belongs before the first connection, on actives and standbys.
///
/// # Errors
/// [`SettingError`], also when connection tracking is not loaded (the file is missing then).
pub fn enable_events() -> Result<(), SettingError> {
    let path = setting("nf_conntrack_events");
    std::fs::write(&path, "1").map_err(|source| SettingError {
        path,
        attempt: "change",
        source,
    })
}

/// Whether TCP tracking is strict (`nf_conntrack_tcp_be_liberal` is 0) in the network namespace
/// of the calling thread.
///
/// # Errors
/// [`SettingError`] when connection tracking is not loaded.
pub fn tcp_is_strict() -> Result<bool, SettingError> {
    let path = setting("nf_conntrack_tcp_be_liberal");
    std::fs::read_to_string(&path)
        .map(|text| text.trim() == "0")
        .map_err(|source| SettingError {
            path,
            attempt: "read",
            source,
        })
}

fn setting(name: &str) -> PathBuf {
    [DIRECTORY, name].iter().collect()
}
