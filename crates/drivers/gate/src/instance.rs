//! Names that are the same in each life, whatever release of the program or of Rust it is.

use std::path::Path;

/// A name for the instance called `label` that keeps its files in `directory`: unique on this
/// machine, and found again by its next life, also after an upgrade. For
/// [`default_pin_dir`](crate::default_pin_dir), and for marks on what belongs to the instance.
#[must_use]
pub fn instance_name(label: &str, directory: &Path) -> String {
    format!("{label}-{:08x}", lasting_hash(directory))
}

/// FNV-1a with 32 bits over the bytes of a path. The hashes of the standard library
/// are not the same in each of its releases.
pub(crate) fn lasting_hash(path: &Path) -> u32 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no later version of this program loses what this one has left. Method: the test
    /// vectors of FNV, and one name in full.
    #[test]
    fn names_last() {
        for (text, hash) in [
            ("", 0x811c_9dc5),
            ("a", 0xe40c_292c),
            ("foobar", 0xbf9c_f968),
        ] {
            assert_eq!(lasting_hash(Path::new(text)), hash, "{text}");
        }
        let name = instance_name("edge-gw1", Path::new("foobar"));
        assert_eq!(name, "edge-gw1-bf9cf968");
    }
}
