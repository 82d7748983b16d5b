//! A disk that fails at every possible operation, once each.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Builder, StorageBackend};

use super::put;
use crate::disk::Disk;
use crate::lock;
use crate::*;

/// Lets a number of writing operations pass, then fails all until healed.
#[derive(Debug, Default)]
struct Fault {
    armed_after: AtomicI64,
    failures: AtomicU64,
}

const NEVER: i64 = i64::MAX;

impl Fault {
    fn pass(&self) -> io::Result<()> {
        if self.armed_after.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        self.failures.fetch_add(1, Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(5))
    }
}

#[derive(Debug)]
struct FailingDisk {
    file: FileBackend,
    fault: Arc<Fault>,
}

impl StorageBackend for FailingDisk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fault.pass()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.fault.pass()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fault.pass()?;
        self.file.write(offset, data)
    }
    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn open(dir: &Path, fault: &Arc<Fault>) -> RedbStore {
    let fault = fault.clone();
    let disk = Disk::with_opener(
        dir.join("store.redb"),
        Box::new(move |path| {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            Builder::new().create_with_backend(FailingDisk {
                file: FileBackend::new(file)?,
                fault: fault.clone(),
            })
        }),
    );
    RedbStore::start(disk, lock::take_directory(dir).unwrap()).unwrap()
}

/// Goal: wherever in a commit the disk fails, the commit is not acknowledged, reads go on with
/// what was, the error is the disk's; and when the disk works again, so does the store, with
/// everything that was ever acknowledged and nothing half.
#[test]
fn an_error_at_any_operation_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::default());
    fault.armed_after.store(NEVER, Ordering::SeqCst);
    let store = open(dir.path(), &fault);
    let mut number = 0_u64;
    let mut step = 0;
    loop {
        let batch = |n: u64| Batch {
            changes: vec![
                Change::put("a", Expect::Any, n.to_be_bytes().to_vec()),
                Change::put("b", Expect::Any, vec![u8::try_from(n % 251).unwrap(); 9000]),
            ],
            audit: vec![n.to_be_bytes().to_vec()],
        };
        let whole = |n: u64| {
            assert_eq!(*store.read("a").unwrap().value, n.to_be_bytes());
            let expected = u8::try_from(n % 251).unwrap();
            assert!(
                store
                    .read("b")
                    .unwrap()
                    .value
                    .iter()
                    .all(|b| *b == expected)
            );
            assert_eq!(*store.audit_tail(1).unwrap()[0].content, n.to_be_bytes());
        };
        number += 1;
        let acknowledged = store.commit(&[batch(number)]).remove(0).unwrap();
        whole(number);

        fault.failures.store(0, Ordering::SeqCst);
        fault.armed_after.store(step, Ordering::SeqCst);
        let result = store.commit(&[batch(number + 1)]).remove(0);
        let failed = fault.failures.load(Ordering::SeqCst) > 0;
        if let Err(error) = &result {
            assert!(failed && error.is_disk(), "{error}");
            assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
            whole(number);
            assert_eq!(store.version(), acknowledged);
            assert!(matches!(store.health(), Health::Failing(_)));
            assert!(store.probe().is_err(), "the disk fails still");
            whole(number);
        }
        fault.armed_after.store(NEVER, Ordering::SeqCst);
        store.probe().unwrap();
        assert!(matches!(store.health(), Health::Ok));
        // The failed commit may have become durable; then it is there as a whole.
        let now = u64::from_be_bytes((&*store.read("a").unwrap().value).try_into().unwrap());
        assert!(now == number || now == number + 1);
        assert!(result.is_err() || now == number + 1);
        whole(now);
        number = now;
        if !failed {
            break;
        }
        step += 1;
        assert!(step < 1000);
    }
    assert!(step > 3, "a commit has several writes and a flush");
    drop(store);
    let store = RedbStore::open(dir.path()).unwrap();
    assert_eq!(*store.read("a").unwrap().value, number.to_be_bytes());
}

/// Goal: in a group, all batches that were judged well fail together, the others for their reason.
#[test]
fn a_group_fails_together() {
    let dir = tempfile::tempdir().unwrap();
    let fault = Arc::new(Fault::default());
    fault.armed_after.store(NEVER, Ordering::SeqCst);
    let store = open(dir.path(), &fault);
    store.commit(&[put("a", b"1")]).remove(0).unwrap();
    fault.armed_after.store(0, Ordering::SeqCst);
    let absent = Batch::of(vec![Change::put("a", Expect::Absent, Vec::new())]);
    let results = store.commit(&[put("a", b"2"), absent, put("b", b"3")]);
    assert!(matches!(results[0], Err(StoreError::Io { .. })));
    assert!(matches!(results[1], Err(StoreError::Conflict { .. })));
    assert!(matches!(results[2], Err(StoreError::Io { .. })));
    assert_eq!(&*store.read("a").unwrap().value, b"1");
    // By itself, without anybody changing anything.
    let store = Arc::new(store);
    let thread = StoreThread::spawn(store.clone(), Box::new(|_, _| {})).unwrap();
    fault.armed_after.store(NEVER, Ordering::SeqCst);
    while !matches!(store.health(), Health::Ok) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    drop(thread);
}
