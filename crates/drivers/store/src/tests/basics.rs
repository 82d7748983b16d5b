//! Compare-and-swap, scans, the audit log, the thread: on a healthy disk.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::put;
use crate::*;

fn open() -> (tempfile::TempDir, RedbStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

fn one(store: &RedbStore, batch: Batch) -> Result<Version, StoreError> {
    let mut results = store.commit(&[batch]);
    assert_eq!(results.len(), 1);
    results.remove(0)
}

#[test]
fn records_are_compared_and_swapped() {
    let (_dir, store) = open();
    let change =
        |expect, value: &[u8]| Batch::of(vec![Change::put("slot/7", expect, value.into())]);
    let first = one(&store, change(Expect::Absent, b"a")).unwrap();
    let conflict = one(&store, change(Expect::Absent, b"b")).unwrap_err();
    assert!(
        matches!(&conflict, StoreError::Conflict { key, found: Some(found) }
            if key == "slot/7" && *found == first)
    );
    let second = one(&store, change(Expect::Version(first), b"c")).unwrap();
    assert!(second > first);
    assert!(one(&store, change(Expect::Version(first), b"d")).is_err());
    assert_eq!(&*store.read("slot/7").unwrap().value, b"c");
    assert_eq!(store.read("slot/7").unwrap().version, second);
    assert_eq!(store.version(), second);
    // Deleted and written again, the key has a version that it never had.
    let delete = Batch::of(vec![Change::delete("slot/7", Expect::Version(second))]);
    one(&store, delete).unwrap();
    assert_eq!(store.read("slot/7"), None);
    let again = one(&store, change(Expect::Absent, b"e")).unwrap();
    assert!(again > second);
    assert!(one(&store, change(Expect::Version(second), b"f")).is_err());
}

/// Goal: a batch with one failed expectation changes nothing, those beside it in the group do, and
/// later batches of a group see the earlier ones.
#[test]
fn a_batch_is_all_or_nothing() {
    let (dir, store) = open();
    let base = store.version();
    let group = [
        put("a", b"1"),
        Batch {
            changes: vec![
                Change::put("b", Expect::Absent, b"2".to_vec()),
                Change::put("a", Expect::Absent, b"3".to_vec()),
            ],
            audit: vec![b"never".to_vec()],
        },
        Batch::of(vec![
            Change::delete("a", Expect::Version(Version(base.0 + 1))),
            Change::put("c", Expect::Absent, b"4".to_vec()),
        ]),
    ];
    let results = store.commit(&group);
    assert_eq!(results[0].as_ref().unwrap(), &Version(base.0 + 1));
    assert!(matches!(&results[1], Err(StoreError::Conflict { key, .. }) if key == "a"));
    results[2].as_ref().unwrap();
    let look = |store: &RedbStore| {
        assert_eq!(store.read("a"), None);
        assert_eq!(store.read("b"), None);
        assert_eq!(&*store.read("c").unwrap().value, b"4");
        assert_eq!(store.audit_tail(9).unwrap(), []);
    };
    look(&store);
    let version = store.version();
    drop(store);
    let store = RedbStore::open(&dir.path().join("state")).unwrap();
    look(&store);
    assert_eq!(store.version(), version);
}

#[test]
fn scans_are_bounded_by_the_prefix() {
    let (_dir, store) = open();
    store.commit(&[
        put("pool/a", b"1"),
        put("pool/b", b"2"),
        put("pool0", b"3"),
        put("poo", b"4"),
    ]);
    let keys = |prefix| {
        let found = store.scan(prefix).into_iter().map(|(key, _)| key);
        found.collect::<Vec<_>>()
    };
    assert_eq!(keys("pool/"), ["pool/a", "pool/b"]);
    assert_eq!(keys("pool/b"), ["pool/b"]);
    assert_eq!(keys("x"), [""; 0]);
    assert_eq!(keys("").len(), 4);
}

#[test]
fn bounds_are_kept() {
    let (_dir, store) = open();
    let value = |bytes| Batch::of(vec![Change::put("k", Expect::Any, vec![0; bytes])]);
    one(&store, value(VALUE_BYTES_MAX)).unwrap();
    let too_much = [
        value(VALUE_BYTES_MAX + 1),
        put("", b""),
        put(&"k".repeat(KEY_BYTES_MAX + 1), b""),
        Batch::of(vec![
            Change::put("twice", Expect::Any, Vec::new()),
            Change::delete("twice", Expect::Any),
        ]),
        Batch {
            audit: vec![vec![0; AUDIT_BYTES_MAX + 1]],
            ..Batch::default()
        },
    ];
    for batch in too_much {
        let error = one(&store, batch).unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
        assert!(!error.is_disk());
    }
    assert!(matches!(store.health(), Health::Ok));
}

/// Goal: the log keeps the newest 10 000 entries, in order, over a restart, and never counts the
/// same number twice.
#[test]
fn the_audit_log_is_bounded() {
    let (dir, store) = open();
    let entries = |range: std::ops::Range<u64>| Batch {
        changes: Vec::new(),
        audit: range.map(|n| n.to_be_bytes().to_vec()).collect(),
    };
    let mut total = 0;
    while total < AUDIT_ENTRIES_MAX + 500 {
        one(&store, entries(total + 1..total + 1001)).unwrap();
        total += 1000;
    }
    let check = |store: &RedbStore, count: usize, oldest: u64, newest: u64| {
        let tail = store.audit_tail(count).unwrap();
        assert_eq!(tail.first().unwrap().sequence, oldest);
        assert_eq!(tail.last().unwrap().sequence, newest);
        assert_eq!(tail.len() as u64, newest - oldest + 1);
        for entry in tail {
            assert_eq!(*entry.content, entry.sequence.to_be_bytes());
        }
    };
    check(&store, 10, total - 9, total);
    check(&store, 5000, total - 4999, total);
    check(&store, usize::MAX, total - AUDIT_ENTRIES_MAX + 1, total);
    drop(store);
    let store = RedbStore::open(&dir.path().join("state")).unwrap();
    check(&store, 10, total - 9, total);
    check(&store, usize::MAX, total - AUDIT_ENTRIES_MAX + 1, total);
    one(&store, entries(total + 1..total + 2)).unwrap();
    check(&store, 3, total - 1, total + 1);
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let (dir, store) = open();
    let path = dir.path().join("state");
    let error = RedbStore::open(&path).unwrap_err();
    let StoreError::Locked { holder, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*holder, Some(std::process::id()));
    assert!(error.to_string().contains("store.lock"), "{error}");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("store.redb")), 0o600);
    drop(store);
    RedbStore::open(&path).unwrap();
}

/// Goal: the thread commits in order, groups what waits, completes each batch once, and empties
/// its queue before it ends.
#[test]
fn the_thread_completes_every_batch() {
    let (_dir, store) = open();
    let store = Arc::new(store);
    let (sender, completions) = channel();
    let sender = Mutex::new(sender);
    let completed: Completion = Box::new(move |token, result| {
        sender.lock().unwrap().send((token, result)).unwrap();
    });
    let thread = StoreThread::spawn(store.clone(), completed).unwrap();
    for token in 0_u64..500 {
        let batch = Batch::of(vec![Change::put(
            "counter",
            if token % 100 == 99 {
                Expect::Absent
            } else {
                Expect::Any
            },
            token.to_be_bytes().to_vec(),
        )]);
        thread.submit(token, batch).unwrap();
    }
    drop(thread);
    let outcomes: Vec<_> = completions.try_iter().collect();
    assert_eq!(outcomes.len(), 500);
    let mut newest = Version(0);
    for (index, (token, result)) in outcomes.into_iter().enumerate() {
        assert_eq!(token, index as u64);
        if token % 100 == 99 {
            assert!(matches!(result, Err(StoreError::Conflict { .. })));
        } else {
            let version = result.unwrap();
            assert!(version > newest);
            newest = version;
        }
    }
    assert_eq!(*store.read("counter").unwrap().value, 498_u64.to_be_bytes());
}

#[test]
fn a_watcher_is_woken_by_a_commit() {
    let (_dir, store) = open();
    let store = Arc::new(store);
    let seen = store.version();
    assert_eq!(store.wait(seen, Duration::ZERO), seen);
    let waiting = {
        let store = store.clone();
        std::thread::spawn(move || store.wait(seen, Duration::from_secs(60)))
    };
    let version = one(&store, put("a", b"1")).unwrap();
    assert_eq!(waiting.join().unwrap(), version);
}

/// Goal: a file that is no store, or a part of one, gives an error that names it, and is left as
/// it is.
#[test]
fn torn_and_foreign_files_are_named() {
    let (dir, store) = open();
    let state = dir.path().join("state");
    for n in 0..50 {
        store.commit(&[put(&format!("key/{n}"), &[n; 5000])]);
    }
    drop(store);
    let path = state.join("store.redb");
    let whole = std::fs::read(&path).unwrap();
    let mut garbage = whole.clone();
    garbage[..512].fill(0xa5);
    let torn = whole[..whole.len() / 2].to_vec();
    for bytes in [
        b"not a store".to_vec(),
        Vec::new(),
        garbage,
        torn,
        vec![0; 1 << 16],
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = RedbStore::open(&state).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains("store.redb"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(RedbStore::open(&state).unwrap().scan("key/").len(), 50);
}
