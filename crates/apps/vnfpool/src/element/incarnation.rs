//! The number of this life of the agent.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use vnfpool_model::Incarnation;

const FILE: &str = "incarnation";

/// Takes the next incarnation and brings it to the disk before it is used.
///
/// It is above the last one whatever the wall clock says, and above every earlier one as long as
/// either the file or the clock is right: a directory that was restored from a backup, or a clock
/// that was set back, does no harm alone.
pub(crate) fn next(dir: &Path) -> anyhow::Result<Incarnation> {
    let path = dir.join(FILE);
    let last = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse::<u64>().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis());
    let next = last
        .saturating_add(1)
        .max(u64::try_from(clock).unwrap_or(0));
    write(dir, &path, next).with_context(|| format!("write {}", path.display()))?;
    Ok(Incarnation(next))
}

fn write(dir: &Path, path: &Path, incarnation: u64) -> std::io::Result<()> {
    let new = dir.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{incarnation}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_grow_even_when_the_clock_was_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let first = next(dir.path()).unwrap();
        let second = next(dir.path()).unwrap();
        assert!(second > first);
        let far_ahead = second.0 + 1_000_000_000_000;
        std::fs::write(dir.path().join(FILE), far_ahead.to_string()).unwrap();
        assert_eq!(next(dir.path()).unwrap(), Incarnation(far_ahead + 1));
    }
}
