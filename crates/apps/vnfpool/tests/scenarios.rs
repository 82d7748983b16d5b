//! The faults and planned changes of the laboratory, once, with the built program: no connection
//! lost, never two owners. And the demonstration, again and after an interruption (needs root).
//!
//! How long things take is not judged here: that is what `make bench` is for. Every fault there is,
//! and the rival beside it, is what `make matrix` is for.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failing test is what they say"
)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What a start of the pool takes is seconds; this is when we call it hanging.
const START_LIMIT: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnfpool"));
    // The laboratory starts the program that runs it.
    command.env_remove("VNFPOOL_BIN").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of JSON of a program that must have ended well.
fn objects(output: &Output) -> Vec<Value> {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Runs a scenario once and judges what traffic saw of it.
fn passes(scenario: &str) {
    let output = program()
        .args(["lab", "run", scenario, "--runs", "1", "--json"])
        .output()
        .unwrap();
    let objects = objects(&output);
    let [summary] = objects.as_slice() else {
        panic!("one object was expected: {objects:?}");
    };
    assert_eq!(summary["scenario"], scenario);
    for family in [summary, &summary["ipv6"]] {
        assert!(family["tcp_total"].as_u64().unwrap() > 0, "{summary}");
        assert_eq!(family["tcp_alive"], family["tcp_total"], "{summary}");
    }
    assert_eq!(summary["two_owners_ms"], 0, "{summary}");
    assert_eq!(summary["stale_frames"], 0, "{summary}");
}

macro_rules! scenarios {
    ($($test:ident $name:literal,)+) => {
        $(#[test]
        fn $test() {
            passes($name);
        })+

        /// Every scenario of `lab list` is tried here, alone or in the matrix, or named as one that
        /// is left to `make matrix`.
        #[test]
        fn every_scenario_is_tried() {
            let output = program().args(["lab", "list"]).output().unwrap();
            let listed = text(&output.stdout);
            let names = listed.lines().filter_map(|line| line.split_whitespace().next());
            let mut names: Vec<&str> = names.collect();
            let mut tried = vec![$($name),+];
            tried.extend(SMOKE);
            tried.extend(LEFT_TO_THE_MATRIX);
            names.sort_unstable();
            tried.sort_unstable();
            tried.dedup();
            assert_eq!(names, tried);
        }
    };
}

scenarios! {
    kill "kill",
    freeze "freeze",
    silent "silent",
    link "link",
    partition "partition",
    heal "heal",
    stop "stop",
    agent_kill "agent-kill",
    agent_upgrade "agent-upgrade",
    switchover "switchover",
    switchback "switchback",
    manager_kill "manager-kill",
    nat_ports "nat-ports",
    vnf_fail "vnf-fail",
    quorum_loss "quorum-loss",
    watermark_freeze "watermark-freeze",
    watermark_kill "watermark-kill",
    watermark_silent "watermark-silent",
}

/// What `lab matrix --smoke` runs.
const SMOKE: [&str; 6] = [
    "crash-record-written",
    "heal",
    "one-way-all-from",
    "resume-500ms",
    "silent",
    "two-box-active-manager",
];

/// Minutes of waiting, or one more of a kind that is tried here.
const LEFT_TO_THE_MATRIX: &[&str] = &[
    "agent-pause",
    "both-reboot",
    "bulk-kill-active",
    "bulk-kill-standby",
    "clock-steps",
    "crash-members-told",
    "crash-record-in-force",
    "crash-record-prepared",
    "crash-vote-counted",
    "crash-vote-received",
    "crash-voter-answered",
    "deaf",
    "disk-error",
    "disk-full",
    "disk-slow",
    "flap",
    "heal-partition",
    "link-only",
    "load",
    "load-disk",
    "load-kill",
    "load-long",
    "load-memory",
    "load-mixed",
    "management-only",
    "mute",
    "one-way-all-to",
    "one-way-inside-from",
    "one-way-inside-to",
    "one-way-link-from",
    "one-way-link-to",
    "one-way-management-from",
    "one-way-management-to",
    "one-way-manager-from",
    "one-way-manager-to",
    "one-way-outside-from",
    "one-way-outside-to",
    "resume-5s",
    "resume-60s",
    "standby-link",
    "standby-silent",
    "stop-kill",
    "stutter",
    "two-box-active",
    "two-box-standby",
    "two-box-standby-manager",
];

/// Goal: the matrix passes where nothing is lost, says so in all its forms, and knows by itself.
#[test]
fn the_smoke_matrix_passes() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("matrix.html");
    let output = program()
        .args(["lab", "matrix", "--smoke", "--without-rival", "--json"])
        .arg(format!("--html={}", page.display()))
        .output()
        .unwrap();
    let rows = objects(&output);
    let names = rows.iter().map(|row| row["scenario"].as_str().unwrap());
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    assert_eq!(names, SMOKE);
    for row in &rows {
        assert_eq!(row["failures"], Value::Array(Vec::new()), "{row}");
        assert_eq!(row["two_owners_ms"], 0, "{row}");
        assert_eq!(row["stale_frames"], 0, "{row}");
        assert_eq!(row["tcp_alive"], row["tcp_total"], "{row}");
        assert!(row["tcp_total"].as_u64().unwrap() > 0, "{row}");
        assert_eq!(row["recoveries"], 1, "{row}");
    }
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("Passed: 6 scenarios") && page.contains("</html>"));
}

/// Goal: the measurement of the gate's cost forwards through an open gate and not through a closed
/// one, however the gate is attached and whatever rules there are, tells of both, and leaves nothing.
#[test]
fn the_cost_of_the_gate_is_measured() {
    for (attach, rules) in [("tcx", "nat"), ("clsact", "none")] {
        let mut command = program();
        command.args([
            "lab",
            "gate",
            "--pairs",
            "2",
            "--interval-ms",
            "50",
            "--json",
        ]);
        command.args(["--attach", attach, "--rules", rules]);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let id = format!("vp{}", child.id());
        let objects = objects(&child.wait_with_output().unwrap());
        let [cost] = objects.as_slice() else {
            panic!("one object was expected: {objects:?}");
        };
        assert_eq!(cost["gate"], format!("bpf ({attach})"), "{cost}");
        assert_eq!(cost["pairs"], 2, "{cost}");
        for side in ["with", "without"] {
            for part in ["min", "p50", "p99", "max"] {
                assert!(cost[side][part].as_f64().unwrap() > 0.0, "{cost}");
            }
        }
        assert!(cost["ratio"]["p50"].as_f64().unwrap() > 0.0, "{cost}");
        assert!(cost["cost_percent"].is_number() && cost["cost_ns"].is_number());
        assert_eq!(cost["forwarded_while_closed"], 0, "{cost}");
        assert!(cost["dropped_while_closed"].as_u64().unwrap() > 0, "{cost}");
        assert_eq!(left_of(&id), Vec::<String>::new());
    }
}

/// Goal: Ctrl-C ends that measurement, with an error, and nothing of it is left.
#[test]
fn an_interrupted_measurement_of_the_gate_cleans_up() {
    let mut measurement = program()
        .args(["lab", "gate", "--pairs", "10000", "--interval-ms", "50"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let progress = measurement.stderr.take().unwrap();
    let mut lines = BufReader::new(progress).lines();
    let first_pair = lines.find(|line| line.as_ref().unwrap().starts_with("1/10000: "));
    assert!(first_pair.is_some(), "it ended early");
    let id = format!("vp{}", measurement.id());
    assert!(left_of(&id).len() >= 4, "record, three namespaces, pins");
    interrupt(&measurement);
    lines.for_each(drop);
    assert_eq!(measurement.wait().unwrap().code(), Some(1));
    assert_eq!(left_of(&id), Vec::<String>::new());
}

/// What is there of a measurement of the gate with this id: its record, its namespaces, its pins.
fn left_of(id: &str) -> Vec<String> {
    let gate = id.replace("vp", "lab-gate-");
    let listed = |directory: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    let records = listed("/run/vnfpool-lab").filter(|name| *name == format!("{id}.json"));
    let namespaces = listed("/run/netns").filter(|name| name.starts_with(&format!("{id}-")));
    let pins = listed("/sys/fs/bpf/vnfpool").filter(|name| *name == gate);
    records.chain(namespaces).chain(pins).collect()
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// Goal: Ctrl-C ends the matrix, with an error, and nothing of it is left.
#[test]
fn an_interrupted_matrix_cleans_up() {
    let mut matrix = program()
        .args(["lab", "matrix", "flap", "--without-rival"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let record = Record::of_serving(&mut matrix);
    interrupt(&matrix);
    assert_eq!(matrix.wait().unwrap().code(), Some(1));
    assert_eq!(record.left(), Vec::<String>::new());
}

fn demonstration(report: &Path, vnf: &str) -> Command {
    let mut command = program();
    command
        .args(["demo", "--json", "--vnf", vnf, "--report"])
        .arg(report);
    command
}

/// Runs the demonstration to its end: each step was passed, the page is there.
fn demonstrates(dir: &Path, vnf: &str) {
    let report = dir.join("report.html");
    let output = demonstration(&report, vnf).output().unwrap();
    let steps = objects(&output);
    let is_step = |object: &&Value| object.get("step").is_some();
    assert!(steps.iter().filter(is_step).count() >= 6, "{steps:?}");
    for step in steps.iter().filter(is_step) {
        assert_eq!(step["problem"], Value::Null, "{step}");
    }
    let page = std::fs::read_to_string(&report).unwrap();
    assert!(page.contains("</html>"));
    // What is seen of the load balancer, where there is one.
    let is_balanced = vnf == "lb";
    assert_eq!(page.contains("Two load balancers"), is_balanced);
    let of_faults = steps.iter().filter(|step| step["title"].is_string());
    for step in of_faults {
        let balanced = &step["balanced"];
        assert_eq!(
            balanced["total"].as_u64(),
            is_balanced.then_some(10),
            "{step}"
        );
        assert_eq!(balanced["kept"], balanced["total"], "{step}");
    }
    std::fs::remove_file(&report).unwrap();
}

/// Goal: who is not root is told so, and how to go on, before anything is built or measured. Method: in a
/// user namespace without anybody in it nobody is root.
#[test]
fn the_laboratory_asks_for_root_first() {
    for command in [
        "demo",
        "lab run kill",
        "lab matrix",
        "lab gate",
        "bench",
        "bench state",
    ] {
        let mut unprivileged = Command::new("unshare");
        unprivileged.args(["--user", env!("CARGO_BIN_EXE_vnfpool")]);
        let output = unprivileged.args(command.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}");
        let expected = format!(
            "error: the laboratory needs root, since it makes network namespaces; try: sudo vnfpool \
             {command}\n"
        );
        assert_eq!(text(&output.stderr), expected);
    }
}

/// Goal: a report that cannot be written is found out at once, not after all that it would tell of.
#[test]
fn a_report_that_cannot_be_written_ends_the_demonstration_at_once() {
    let output = demonstration(Path::new("/nonexistent/page.html"), "gateway").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "error: the report cannot be written to /nonexistent/page.html: ";
    assert!(text(&output.stderr).starts_with(expected), "{output:?}");
}

/// What a running laboratory has written down about itself.
struct Record {
    id: String,
    record: PathBuf,
    directory: PathBuf,
    processes: Vec<u64>,
    pins: Vec<PathBuf>,
}

impl Record {
    /// Waits until the pool of a demonstration serves: its gates are pinned by then.
    fn of_serving(demonstration: &mut Child) -> Self {
        let id = format!("vp{}", demonstration.id());
        let root = Path::new("/run/vnfpool-lab");
        let record = root.join(format!("{id}.json"));
        let give_up = Instant::now() + START_LIMIT;
        loop {
            assert!(Instant::now() < give_up, "the pool does not get ready");
            assert_eq!(demonstration.try_wait().unwrap(), None, "it ended early");
            std::thread::sleep(Duration::from_millis(20));
            let Ok(written) = std::fs::read_to_string(&record) else {
                continue;
            };
            let written: Value = serde_json::from_str(&written).unwrap();
            let list = |key: &str| written[key].as_array().cloned().unwrap_or_default();
            let (processes, pins) = (list("processes"), list("pins"));
            if processes.len() >= 3 && pins.len() >= 2 {
                let pid = |process: &Value| process["pid"].as_u64().unwrap();
                let path = |pin: &Value| PathBuf::from(pin.as_str().unwrap());
                return Self {
                    directory: root.join(&id),
                    id,
                    record,
                    processes: processes.iter().map(pid).collect(),
                    pins: pins.iter().map(path).collect(),
                };
            }
        }
    }

    /// What of it is still there, by name.
    fn left(&self) -> Vec<String> {
        let paths = [&self.record, &self.directory].into_iter();
        let paths = paths.chain(&self.pins).filter(|path| path.exists());
        let mut left: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten();
        let names = namespaces.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        left.extend(names.filter(|name| name.starts_with(&format!("{}-", self.id))));
        let command = |pid: &u64| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let ours = self.processes.iter().filter_map(|pid| command(pid).ok());
        left.extend(ours.filter(|command| command.contains(&self.id)));
        left
    }
}

#[test]
fn the_demonstration_passes_again_and_cleans_up_after_an_interrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    demonstrates(dir.path(), "gateway");

    let mut interrupted = demonstration(&dir.path().join("never.html"), "gateway")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let record = Record::of_serving(&mut interrupted);
    // Into the first steps, with traffic running.
    std::thread::sleep(Duration::from_secs(2));
    interrupted.kill().unwrap();
    interrupted.wait().unwrap();
    let left = record.left();
    // Seven namespaces, two gates, three daemons or two: one may just have been killed by a step.
    assert!(left.len() >= 2 + 2 + 7 + 2, "{left:?}");
    assert!(!dir.path().join("never.html").exists());

    // And with the other function.
    demonstrates(dir.path(), "lb");
    assert_eq!(record.left(), Vec::<String>::new());
}
