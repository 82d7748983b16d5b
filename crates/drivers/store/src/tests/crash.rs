//! kill -9 in the middle of commits: whatever was acknowledged is there.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::*;

const DIR_VARIABLE: &str = "VNFPOOL_STORE_CRASH_DIR";

/// Not a test: the process that is killed. It acknowledges each commit on its output.
#[test]
#[ignore = "runs only as the child of acknowledged_commits_survive_kill"]
fn crash_child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else {
        return;
    };
    let store = RedbStore::open(Path::new(&dir)).unwrap();
    let mut out = std::io::stdout().lock();
    for n in next_number(&store).. {
        // Two keys that have to agree, an audit entry, and now and then a large value.
        let bytes = n.to_be_bytes().to_vec();
        let padding = vec![7; if n % 16 == 0 { 100_000 } else { 10 }];
        let batch = Batch {
            changes: vec![
                Change::put(format!("number/{n:010}"), Expect::Absent, bytes.clone()),
                Change::put("newest", Expect::Any, bytes.clone()),
                Change::put("padding", Expect::Any, padding),
            ],
            audit: vec![bytes],
        };
        store.commit(&[batch]).remove(0).unwrap();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn acknowledged_commits_survive_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=8 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tests::crash::crash_child",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let target = acknowledged + round * 7;
        for line in lines {
            let line = line.unwrap();
            if let Some((_, number)) = line.split_once("acknowledged ") {
                acknowledged = number.trim().parse().unwrap();
            }
            if acknowledged >= target {
                break;
            }
        }
        drop(child);
        let store = RedbStore::open(dir.path()).unwrap();
        let next = next_number(&store);
        assert!(next > acknowledged, "{next} {acknowledged}");
        // All or nothing: what is there is there as a whole.
        let numbers = store.scan("number/");
        assert_eq!(numbers.len() as u64, next - 1);
        for (n, (key, record)) in (1_u64..).zip(numbers) {
            assert_eq!(key, format!("number/{n:010}"));
            assert_eq!(*record.value, n.to_be_bytes());
        }
        let newest = store.audit_tail(1).unwrap().remove(0);
        assert_eq!(newest.sequence, next - 1);
        assert_eq!(*newest.content, (next - 1).to_be_bytes());
    }
}

fn next_number(store: &RedbStore) -> u64 {
    store.read("newest").map_or(1, |record| {
        u64::from_be_bytes((&*record.value).try_into().unwrap()) + 1
    })
}
