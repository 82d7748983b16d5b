//! `vnfpool bench state` in small sizes, with the built program: every row is measured, nothing is
//! missing at the standby, and nothing of it is left (needs root).
//!
//! How long things take is not judged here: that is what `make bench-state` is for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing test is what they say"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a start of the pool takes is seconds; this is when we call it hanging.
const START_LIMIT: Duration = Duration::from_secs(60);
const LIMITS: [&str; 2] = ["nf_conntrack_max", "nf_conntrack_buckets"];

fn program(report: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnfpool"));
    // The laboratory starts the program that runs it.
    command.env_remove("VNFPOOL_BIN").stdin(Stdio::null());
    command.args(["bench", "state", "--rival", "none", "--quick", "--json"]);
    command.arg("--report").arg(report);
    command
}

/// The objects of these rows; the measurement must have ended well.
fn measure(rows: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report.md");
    let mut command = program(&report);
    for row in rows {
        command.args(["--only", row]);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let objects: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for object in &objects {
        assert_eq!(object["system"], "vnfpool", "{object}");
    }
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("processors (") && page.contains("`vnfpool bench state --only"));
    assert!(!page.contains("Not measured"), "{page}");
    objects
}

fn rows(objects: &[Value]) -> Vec<&str> {
    let names = objects.iter().map(|object| object["row"].as_str().unwrap());
    names.collect()
}

/// Goal: flows that packets open are all at the standby, with the same translation, at each rate, and
/// what they cost is told.
#[test]
fn what_packets_open_is_at_the_standby() {
    let objects = measure(&["rate", "cpu"]);
    assert_eq!(rows(&objects), ["rate", "cpu"]);
    assert!(objects[0]["sustained_per_s"].as_f64().unwrap() > 0.0);
    for object in &objects {
        let steps = object["steps"].as_array().unwrap();
        assert!(!steps.is_empty());
        for step in steps {
            assert!(step["opened"].as_u64().unwrap() > 0, "{step}");
            assert_eq!(step["opened"], step["sent"], "{step}");
            for none in ["missing", "different", "surplus"] {
                assert_eq!(step[none], 0, "{none}: {step}");
            }
            for cpu in ["sender_cpu_s", "receiver_cpu_s"] {
                assert!(step[cpu].as_f64().unwrap() > 0.0, "{cpu}: {step}");
            }
        }
    }
}

/// Goal: entries are seen to appear in the standby's kernel, without other connections and beside
/// them.
#[test]
fn the_lag_is_seen_in_the_standbys_kernel() {
    let objects = measure(&["lag"]);
    assert_eq!(rows(&objects), ["lag", "lag"]);
    for object in &objects {
        assert_eq!(object["lost"], 0, "{object}");
        for part in ["min", "p50", "p99", "max"] {
            assert!(object["lag_ms"][part].as_f64().unwrap() > 0.0, "{object}");
        }
    }
    assert_eq!(objects[0]["background_per_s"], 0);
    assert!(objects[1]["background_per_s"].as_u64().unwrap() > 0);
}

/// Goal: a table that was there before the standby gets there whole, when the standby starts anew and
/// before a takeover, and its memory is told.
#[test]
fn a_table_is_brought_whole() {
    let objects = measure(&["resync", "takeover", "memory"]);
    assert_eq!(rows(&objects), ["resync", "takeover", "takeover", "memory"]);
    let [resync, empty, filled, memory] = objects.as_slice() else {
        panic!("{objects:?}");
    };
    assert_eq!(resync["different"], 0, "{resync}");
    assert!(resync["entries"].as_u64().unwrap() > 0);
    assert!(
        resync["whole_ms"]["max"].as_f64().unwrap() > 0.0,
        "{resync}"
    );
    assert_eq!(empty["entries"], 0);
    assert_eq!(filled["entries"], resync["entries"]);
    for takeover in [empty, filled] {
        assert_eq!(takeover["tcp_alive"], takeover["tcp_total"], "{takeover}");
        assert!(takeover["outage_ms"]["p50"].is_number(), "{takeover}");
        // The state was in the standby's kernel before the fault.
        assert_eq!(takeover["state_ms"]["max"], 0.0, "{takeover}");
    }
    for end in 0..2 {
        assert!(memory["filled_kib"][end].as_u64().unwrap() > 0, "{memory}");
    }
}

/// Goal: after a burst, by packets and by entries, nothing is missing in the end.
#[test]
fn a_burst_is_whole_in_the_end() {
    let objects = measure(&["burst"]);
    let sources = objects
        .iter()
        .map(|object| object["source"].as_str().unwrap());
    assert_eq!(sources.collect::<Vec<_>>(), ["ctnetlink", "packets"]);
    for object in &objects {
        assert!(object["entries"].as_u64().unwrap() > 0, "{object}");
        assert!(object["repaired_ms"].is_number(), "{object}");
        assert_eq!(object["different"], 0, "{object}");
        assert!(object["told"].is_array(), "{object}");
    }
}

/// Goal: first packets at `commit` are seen to wait and to come, those of an established connection and
/// those at `bounded` to come; at both levels every connection that is set up is at the standby.
#[test]
fn first_packets_at_commit_are_measured_beside_bounded() {
    let objects = measure(&["commit"]);
    let [object] = objects.as_slice() else {
        panic!("{objects:?}");
    };
    let [bounded, commit] = [0, 1].map(|level| &object["latencies"][level]);
    assert_eq!(commit["system"], "vnfpool, commit");
    for level in [bounded, commit] {
        assert_eq!(level["lost"], 0, "{level}");
        for times in ["first_ms", "established_ms"] {
            assert!(level[times]["min"].as_f64().unwrap() > 0.0, "{level}");
        }
    }
    assert!(bounded["held"].is_null(), "{bounded}");
    assert!(commit["held"].as_u64().unwrap() > 0, "{commit}");
    for added in ["added_first_ms", "added_established_ms"] {
        assert!(object[added]["p50"].is_number(), "{object}");
    }
    for level in 0..2 {
        let setups = &object["setups"][level];
        let steps = setups["steps"].as_array().unwrap();
        assert!(!steps.is_empty(), "{setups}");
        for step in steps {
            assert!(step["opened"].as_u64().unwrap() > 0, "{step}");
            assert_eq!(step["opened"], step["sent"], "{step}");
            assert_eq!(step["different"], 0, "{step}");
        }
    }
}

/// Goal: what a function has put and committed is at the standby, seen there.
#[test]
fn what_a_function_puts_is_at_the_standby() {
    let objects = measure(&["sdk"]);
    let [object] = objects.as_slice() else {
        panic!("{objects:?}");
    };
    for rate in ["puts_per_s", "commits_per_s", "commit_ms"] {
        assert!(object[rate]["min"].as_f64().unwrap() > 0.0, "{object}");
    }
    assert!(object["commits"].as_u64().unwrap() > 0, "{object}");
    for none in ["keys_wrong", "commits_missing"] {
        assert_eq!(object[none], 0, "{none}: {object}");
    }
}

fn limits() -> [String; 2] {
    LIMITS.map(|name| std::fs::read_to_string(format!("/proc/sys/net/netfilter/{name}")).unwrap())
}

/// Goal: Ctrl-C ends the measurement, with an error; nothing of it is left, and the kernel's limits
/// are what they were.
#[test]
fn an_interrupted_measurement_cleans_up() {
    // The manager and two elements; with a function beside each.
    for (row, processes) in [("burst", 3), ("sdk", 5)] {
        interrupt(row, processes);
    }
}

/// Interrupts the measurement of a row when so many processes run.
fn interrupt(row: &str, processes: usize) {
    let dir = tempfile::tempdir().unwrap();
    let before = limits();
    let mut measurement = program(&dir.path().join("report.md"))
        .args(["--only", row])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = format!("vp{}", measurement.id());
    let record = format!("/run/vnfpool-lab/{id}.json");
    let give_up = Instant::now() + START_LIMIT;
    loop {
        assert!(Instant::now() < give_up, "the laboratory does not start");
        assert_eq!(measurement.try_wait().unwrap(), None, "it ended early");
        std::thread::sleep(Duration::from_millis(20));
        let written = std::fs::read_to_string(&record).unwrap_or_default();
        let written: Value = serde_json::from_str(&written).unwrap_or_default();
        if written["processes"]
            .as_array()
            .is_some_and(|all| all.len() >= processes)
        {
            break;
        }
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(measurement.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(measurement.wait().unwrap().code(), Some(1));
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = namespaces.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = names
        .filter(|name| name.starts_with(&format!("{id}-")))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!Path::new(&record).exists());
    assert_eq!(limits(), before);
}
