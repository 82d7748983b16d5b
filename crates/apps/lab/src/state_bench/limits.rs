//! The kernel's limits of connection tracking, which all namespaces share: raised while a
//! measurement runs.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

const DIRECTORY: &str = "/proc/sys/net/netfilter";
/// Two gateways with the largest table that is measured, and room.
const SETTINGS: [(&str, u64); 2] = [
    ("nf_conntrack_max", 4_194_304),
    ("nf_conntrack_buckets", 1_048_576),
];

/// Raised limits. Dropping it restores what was there.
#[derive(Debug)]
pub(super) struct RaisedLimits {
    before: Vec<(&'static str, u64)>,
}

impl RaisedLimits {
    /// Raises what is lower.
    ///
    /// # Errors
    /// When connection tracking is not loaded, or a limit cannot be set.
    pub(super) fn raise() -> Result<Self> {
        let mut raised = Self { before: Vec::new() };
        for (name, wanted) in SETTINGS {
            let path = Path::new(DIRECTORY).join(name);
            let context = || format!("raising {}", path.display());
            let text = fs::read_to_string(&path).with_context(context)?;
            let present: u64 = text.trim().parse().with_context(context)?;
            if present < wanted {
                fs::write(&path, wanted.to_string()).with_context(context)?;
                raised.before.push((name, present));
            }
        }
        Ok(raised)
    }
}

impl Drop for RaisedLimits {
    fn drop(&mut self) {
        for (name, value) in self.before.drain(..).rev() {
            // It was set a moment ago in the same way.
            let _refused = fs::write(Path::new(DIRECTORY).join(name), value.to_string());
        }
    }
}
