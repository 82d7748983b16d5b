//! The built program as a user types it: output, errors, exit codes.

#![allow(clippy::unwrap_used, reason = "a failing test is what unwrap says")]

#[path = "../../northbound/tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use support::{Fake, POOL, identity};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vnfpool_northbound::{router, server};
use vnfpool_transport::https::HttpsServer;
use vnfpool_transport::pki::{Authority, Credentials, Validity};
use vnfpool_transport::{PeerPolicy, RejectionCounters, TrustDomain};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../packaging/examples");

fn vnfpool(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vnfpool"));
    command
        .args(arguments)
        .env_remove("VNFPOOL_ADMIN")
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = vnfpool(arguments);
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A manager that only pretends, on loopback, and an operator's directory for it.
struct Manager {
    dir: TempDir,
    fake: Arc<Fake>,
    _runtime: Runtime,
}

impl Manager {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("x.example").unwrap();
        let authority = Authority::create(&dir.path().join("ca"), &domain).unwrap();
        for (name, id) in [("manager", "manager/m1"), ("operator", "operator/alice")] {
            let path = dir.path().join(name);
            authority
                .issue_local(&path, &identity(id), &[], Validity::standard())
                .unwrap();
        }
        let credentials = Credentials::load(&dir.path().join("manager")).unwrap();
        let counters = Arc::new(RejectionCounters::default());
        let tls = HttpsServer::new(&credentials, PeerPolicy::Clients, counters).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = runtime.block_on(server::bind(any)).unwrap();
        let url = format!("https://{}\n", listener.local_addr().unwrap());
        std::fs::write(dir.path().join("operator/manager"), url).unwrap();
        let fake = Arc::new(Fake::default());
        let router = router(Arc::clone(&fake));
        runtime.spawn(server::serve(listener, tls, router, std::future::pending()));
        Self {
            dir,
            fake,
            _runtime: runtime,
        }
    }

    fn admin(&self) -> PathBuf {
        self.dir.path().join("operator")
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let admin = self.admin();
        run(&[arguments, &["--admin", admin.to_str().unwrap()]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
        serde_json::from_str(&stdout).unwrap()
    }
}

fn written(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_version_names_the_commit() {
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!(code, 0);
    let commit = stdout
        .trim()
        .strip_prefix(concat!("vnfpool ", env!("CARGO_PKG_VERSION"), " ("));
    let commit = commit.and_then(|rest| rest.strip_suffix(')')).unwrap();
    let is_hash = commit.len() >= 7 && commit.chars().all(|c| c.is_ascii_hexdigit());
    assert!(is_hash || commit == "unknown", "{stdout}");
}

#[test]
fn every_command_has_help_and_the_important_ones_examples() {
    for command in [
        "manager init",
        "manager run",
        "element join",
        "element run",
        "pool apply",
        "token create",
        "status",
        "watch",
        "switchover",
        "fence",
        "pardon",
        "check",
        "demo",
        "lab run",
        "lab gate",
        "bench",
        "bench state",
        "completion",
    ] {
        let arguments: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let (code, stdout, _) = run(&arguments);
        assert_eq!(code, 0, "{command}");
        assert!(
            stdout.contains("Examples:\n  vnfpool ") || stdout.contains("\n\nExamples:\n"),
            "{command}"
        );
    }
}

#[test]
fn wrong_usage_exits_with_2_and_failure_with_1() {
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["statu"]).0, 2);
    assert_eq!(run(&["switchover", "NOT A POOL"]).0, 2);
    assert_eq!(
        run(&["fence", "edge", "gw1"]).0,
        2,
        "fencing needs the confirmation"
    );
    let (code, stdout, stderr) = run(&["status", "--admin", "/nonexistent"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.starts_with("error: cannot use the operator's certificate in /nonexistent: "));
    assert!(
        stderr.contains("\nhint: name the operator's directory with --admin DIR"),
        "{stderr}"
    );
}

#[test]
fn the_examples_pass_the_check() {
    let files =
        ["pool.toml", "element.toml", "manager.toml"].map(|name| format!("{EXAMPLES}/{name}"));
    let [pool, element, manager] = &files;
    let (code, stdout, stderr) = run(&["check", pool, element, manager]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let expected = format!("{pool}: ok (pool)\n{element}: ok (element)\n{manager}: ok (manager)\n");
    assert_eq!(stdout, expected);
}

/// Goal: a fencing command that could not be run is found before it is needed.
#[test]
fn check_finds_a_fencing_command_that_cannot_be_run() {
    let dir = tempfile::tempdir().unwrap();
    let manager = std::fs::read_to_string(format!("{EXAMPLES}/manager.toml")).unwrap();
    let check = |command: &str| {
        let text = format!("{manager}\n[fencing]\ncommand = \"{command}\"\n");
        run(&["check", &written(dir.path(), "manager.toml", &text)])
    };
    assert_eq!(check("/bin/sh").0, 0);
    let script = written(dir.path(), "fence", "#!/bin/sh\n");
    for (command, why) in [
        (script.as_str(), "is not executable"),
        ("/nowhere/fence", "No such file or directory"),
        ("fence", "expected an absolute path"),
    ] {
        let (code, _, stderr) = check(command);
        assert_eq!(code, 1);
        assert!(stderr.contains(why), "{stderr}");
    }
}

#[test]
fn check_names_every_error_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = written(
        dir.path(),
        "wrong.toml",
        &POOL.replace("on_quorum_loss", "on_quorum_los"),
    );
    let good = written(dir.path(), "good.toml", POOL);
    let missing = dir.path().join("missing.toml");
    let (code, stdout, stderr) = run(&["check", &wrong, missing.to_str().unwrap(), &good]);
    assert_eq!(code, 1);
    assert_eq!(stdout, format!("{good}: ok (pool)\n"));
    let expected = format!(
        "error: {wrong}:13:1: unknown key `on_quorum_los` in [pool]\n   |\n13 | on_quorum_los = \
         \"serve\"\n   | ^^^^^^^^^^^^^\n   = help: did you mean `on_quorum_loss`?\n"
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
    assert!(
        stderr.contains("missing.toml: No such file or directory"),
        "{stderr}"
    );
}

#[test]
fn check_finds_what_two_pools_share_and_prints_json() {
    let dir = tempfile::tempdir().unwrap();
    let edge = written(dir.path(), "edge.toml", POOL);
    let other = written(
        dir.path(),
        "other.toml",
        &POOL.replace("\"edge\"", "\"other\""),
    );
    let (code, stdout, _) = run(&["check", "--json", &edge, &other]);
    assert_eq!(code, 1);
    let reports: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(reports[0]["ok"], true);
    assert_eq!(reports[1]["ok"], false);
    let problem = reports[1]["problems"][0].as_str().unwrap();
    assert!(problem.ends_with("address 10.1.0.254 is already used by pool 'edge', slot 'main'"));
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("binary.toml");
    std::fs::write(&path, b"[pool]\n\xff\xfe\n").unwrap();
    let (code, _, stderr) = run(&["check", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.ends_with("binary.toml:2: expected text in UTF-8, found other bytes\n"));
}

#[test]
fn pools_are_applied_listed_shown_and_deleted() {
    let manager = Manager::start();
    let file = format!("{EXAMPLES}/pool.toml");
    let apply = || manager.run(&["pool", "apply", "-f", &file]);
    assert_eq!(apply(), (0, "pool 'edge' created\n".into(), String::new()));
    assert_eq!(
        apply(),
        (0, "pool 'edge' unchanged\n".into(), String::new())
    );
    let (code, stdout, _) = manager.run(&["pool", "list"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = stdout.lines().collect();
    assert!(lines[0].trim_start().starts_with("POOL"), "{stdout}");
    assert!(
        lines[1].contains("edge") && lines[1].contains("10.1.0.254/24"),
        "{stdout}"
    );
    let (_, shown, _) = manager.run(&["pool", "show", "edge"]);
    let again = written(manager.dir.path(), "again.toml", &shown);
    let applied = manager.json(&["pool", "apply", "-f", &again]);
    assert_eq!(
        applied,
        json!({"handle": "edge", "created": false, "changed": false})
    );
    assert_eq!(manager.json(&["pool", "show", "edge"])["handle"], "edge");
    assert_eq!(
        manager.run(&["pool", "delete", "edge"]).1,
        "pool 'edge' deleted\n"
    );
    let (code, _, stderr) = manager.run(&["pool", "show", "edge"]);
    assert_eq!(
        (code, stderr.as_str()),
        (1, "error: there is no pool 'edge'\n")
    );
}

#[test]
fn a_wrong_pool_file_does_not_reach_the_manager() {
    let manager = Manager::start();
    let text = POOL.replace("lan = \"inside\"", "");
    let file = written(manager.dir.path(), "wrong.toml", &text);
    let (code, stdout, stderr) = manager.run(&["pool", "apply", "-f", &file]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(
        stderr.contains("missing key `lan` in [[slot.address]]"),
        "{stderr}"
    );
    assert!(manager.fake.journal.lock().unwrap().is_empty());
}

#[test]
fn overlaps_are_refused_by_the_manager_with_a_list() {
    let manager = Manager::start();
    manager.json(&["pool", "apply", "-f", &format!("{EXAMPLES}/pool.toml")]);
    let text = POOL.replace("\"edge\"", "\"other\"");
    let file = written(manager.dir.path(), "other.toml", &text);
    let (code, _, stderr) = manager.run(&["pool", "apply", "-f", &file]);
    assert_eq!(code, 1);
    let first = "error: pool 'other' was not applied: 6 of its addresses and virtual routers belong \
                 to other pools\n  address 10.1.0.254 is already used by pool 'edge', slot 'main'\n";
    assert!(stderr.starts_with(first), "{stderr}");
    assert_eq!(stderr.lines().count(), 7, "six conflicts: {stderr}");
}

#[test]
fn tokens_are_printed_alone() {
    let manager = Manager::start();
    manager.json(&["pool", "apply", "-f", &format!("{EXAMPLES}/pool.toml")]);
    let create = ["token", "create", "--pool", "edge", "--element", "gw1"];
    assert_eq!(
        manager.run(&create),
        (0, "vnfpool1.secret\n".into(), String::new())
    );
    let token = manager.json(&[&create[..], &["--ttl", "90s"]].concat());
    assert_eq!(token["expires"], "1970-01-01T00:01:30Z");
}

/// Goal: what is not as demanded is seen at a glance, and what elements say cannot steer a terminal.
#[test]
fn status_says_how_state_is_replicated() {
    let manager = Manager::start();
    let (code, stdout, _) = manager.run(&["status"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    let row = |class: &str| {
        let of_class = |line: &&&str| line.split_whitespace().nth(1) == Some(class);
        let line = lines.iter().find(of_class).expect(class);
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        row("CLASS"),
        "SLOT CLASS LEVEL STANDBY SYNC ENTRIES OVERRUNS EVENTS"
    );
    assert_eq!(
        row("conntrack"),
        "main conntrack bounded OF commit gw2 yes 12 3 netlink"
    );
    assert_eq!(
        row("sessions"),
        "main sessions bounded OF commit gw2 NO 0 1 -"
    );
    assert_eq!(row("hints"), "main hints - OF eventual gw2 NO 0 0 -");
    assert_eq!(row("keys"), "main keys none - - 0 0 -");
    for remark in [
        "main: conntrack at gw2: DOWNGRADED to bounded 1500 ms ago: it is slow",
        "main: conntrack at gw2: downgrades: 2, the last one to bounded, began 1m 1s ago, for 1200 ms; 7 first \
         packets did not wait: it was slow",
        "main: conntrack at gw2: overruns: 3, 40 changes lost; the last one 700 ms ago, NOT REPAIRED \
         YET",
        "main: sessions at gw2: bounded instead of commit: it can do no more",
        "main: sessions at gw2: overruns: 1, changes lost; the last one 20s ago, repaired 19s ago",
        "main: hints at gw2: NOT HELD: it is unknown there",
    ] {
        assert!(lines.contains(&remark), "{remark}\n{stdout}");
    }
    assert!(
        stdout.contains("events do not come through a ring: no "),
        "{stdout}"
    );
    assert!(!stdout.contains('\u{1b}'), "{stdout}");
}

#[test]
fn status_and_audit_are_printed() {
    let manager = Manager::start();
    let (code, stdout, _) = manager.run(&["status"]);
    assert_eq!(code, 0);
    assert!(
        stdout.starts_with("manager m1  0.1.0 (abc)  up 7s  store ok\n"),
        "{stdout}"
    );
    let quarantine = "  gw1: in quarantine for slot main until 2026-01-02T03:04:05Z if it is steady, at \
                      the latest until 2026-01-02T03:07:05Z: it lost its place 4 times within 9 s\n";
    assert!(stdout.contains(quarantine), "{stdout}");
    assert!(stdout.contains(" QUARANTINE "), "{stdout}");
    let status = manager.json(&["status", "edge"]);
    assert_eq!(status["pools"][0]["slots"][0]["armed"], true);
    let state = &status["pools"][0]["slots"][0]["state"];
    assert_eq!(state[0]["downgrade"]["began_ms"], 1_500);
    assert_eq!(state[1]["agreed"], "bounded");
    assert_eq!(
        status["pools"][0]["elements"][2]["last_heard_ms"],
        Value::Null
    );
    assert_eq!(
        manager.run(&["status", "nobody"]).2,
        "error: there is no pool 'nobody'\n"
    );
    assert_eq!(
        manager
            .json(&["audit", "-n", "2"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(manager.run(&["audit"]).1.contains("armed gw2"));
}

#[test]
fn a_switchover_says_what_came_of_it() {
    let manager = Manager::start();
    manager.json(&["pool", "apply", "-f", &format!("{EXAMPLES}/pool.toml")]);
    let (code, stdout, _) = manager.run(&["switchover", "edge", "--to", "gw2"]);
    let done = "pool 'edge', slot 'main': gw2 serves, epoch 3.1, 4 ms\n";
    assert_eq!((code, stdout.as_str()), (0, done));
    let (code, _, stderr) = manager.run(&["switchover", "edge"]);
    assert_eq!(
        (code, stderr.as_str()),
        (1, "error: slot 'main' has no armed standby\n")
    );
    let fenced = manager.json(&["fence", "edge", "gw1", "--it-is-off"]);
    assert_eq!(fenced["fenced"], true);
    let (code, stdout, _) = manager.run(&["pardon", "edge", "gw1"]);
    let done = "element 'gw1' of pool 'edge' has a clean slate\n";
    assert_eq!((code, stdout.as_str()), (0, done));
}

#[test]
fn watch_prints_an_event_a_line_and_ends_quietly_with_its_reader() {
    let manager = Manager::start();
    let admin = manager.admin();
    let mut child = Command::new(env!("CARGO_BIN_EXE_vnfpool"))
        .args(["watch", "edge", "--since", "0", "--json", "--admin"])
        .arg(&admin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&event["sequence"], &event["kind"]),
        (&json!(1), &json!("takeover"))
    );
    drop(reader);
    // The pretended stream ends after three events. Watching goes on after the last one seen, so
    // nothing more would be written; end it here.
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_vnfpool"))
        .args(["completion", "bash"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new())
    );
}

#[test]
fn a_full_disk_behind_the_output_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_vnfpool"))
        .args(["completion", "bash"])
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("No space left on device"));
}

#[test]
fn completion_knows_the_commands() {
    let (code, stdout, _) = run(&["completion", "bash"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("switchover") && stdout.contains("--it-is-off"));
}
