//! Reads the files that commands are given.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};

/// The text of a file, or of standard input for `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<String> {
    let name = name(path);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        let mut stdin = std::io::stdin().lock().take(FILE_BYTES_MAX + 1);
        stdin
            .read_to_end(&mut bytes)
            .context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
        let mut file = file.take(FILE_BYTES_MAX + 1);
        file.read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {name}"))?;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            bail!("{name}:{line}: expected text in UTF-8, found other bytes");
        }
    }
}

/// How errors call the file.
pub(super) fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    }
}

/// One more byte than the parser takes is read, so that it is the parser that refuses.
const FILE_BYTES_MAX: u64 = 1 << 20;
