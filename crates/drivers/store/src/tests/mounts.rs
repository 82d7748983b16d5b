//! A disk that is full, then read-only, then well again: on a small file system in memory.
//! Needs root; without it the test says so and does nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::put;
use crate::*;

/// A mounted tmpfs, unmounted also when the test fails.
struct Mount {
    path: PathBuf,
}

impl Mount {
    fn new(path: &Path, kib: u32) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(path)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then(|| Self {
            path: path.to_owned(),
        })
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(&self.path)
            .status()
            .unwrap();
        assert!(status.success(), "remount {options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since a failed test may still hold files.
        let _status = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

#[test]
fn a_full_then_read_only_disk_is_named_and_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(&dir.path().join("disk"), 8 * 1024) else {
        println!("skipped: mounting a file system needs root");
        return;
    };
    let store = RedbStore::open(&mount.path).unwrap();
    let first = store.commit(&[put("kept", b"first")]).remove(0).unwrap();
    std::fs::write(mount.path.join("ballast"), vec![1; 2 * 1024 * 1024]).unwrap();
    let mut error = None;
    for n in 0..40 {
        let value = vec![u8::try_from(n).unwrap(); 512 * 1024];
        let key = format!("big/{n}");
        if let Err(failure) = store.commit(&[put(&key, &value)]).remove(0) {
            error = Some(failure);
            break;
        }
    }
    let error = error.expect("8 MiB cannot hold 20");
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("store.redb"), "{error}");
    let acknowledged = store.scan("").len();
    assert_eq!(store.read("kept").unwrap().version, first);

    mount.remount("ro");
    let error = store
        .commit(&[put("kept", b"second")])
        .remove(0)
        .unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(matches!(
        store.health(),
        Health::Failing(StoreError::ReadOnly { .. })
    ));
    assert_eq!(&*store.read("kept").unwrap().value, b"first");
    assert_eq!(store.scan("").len(), acknowledged);
    assert_eq!(store.audit_tail(5).unwrap(), []);

    mount.remount("rw");
    std::fs::remove_file(mount.path.join("ballast")).unwrap();
    store.commit(&[put("kept", b"third")]).remove(0).unwrap();
    assert!(matches!(store.health(), Health::Ok));
    drop(store);
    let store = RedbStore::open(&mount.path).unwrap();
    assert_eq!(&*store.read("kept").unwrap().value, b"third");
    assert!(store.scan("").len() >= acknowledged);
}

/// Goal: a disk that was full from the first moment on is named, and the next start works.
#[test]
fn a_start_on_a_full_disk_leaves_nothing_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mount::new(&dir.path().join("disk"), 16) else {
        println!("skipped: mounting a file system needs root");
        return;
    };
    let error = RedbStore::open(&mount.path).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    mount.remount("size=8m");
    let store = RedbStore::open(&mount.path).unwrap();
    store.commit(&[put("a", b"1")]).remove(0).unwrap();
}
