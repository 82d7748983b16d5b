//! A test that is killed leaves nothing for good.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vnfpool_lab::{Gateway, Lab};

use crate::daemon::{PIN_ROOT, wait};
use crate::site::Site;

/// What a process has pinned: the directories that it holds open.
fn pins_of(pid: u32) -> Vec<PathBuf> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = open.flatten().filter_map(|e| fs::read_link(e.path()).ok());
    open.filter(|path| path.starts_with(PIN_ROOT)).collect()
}

#[test]
#[ignore = "not a test: the victim of the next one, in a process that can be killed"]
fn victim() {
    let site = Site::serving();
    let pids = Gateway::BOTH.map(|gateway| site.element(gateway).pid());
    let pins: Vec<_> = pids.into_iter().flat_map(pins_of).collect();
    assert!(pins.len() >= 2 && pins.iter().all(|path| path.exists()));
    let processes = pids.map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let all: Vec<_> = pins.iter().chain(&processes).collect();
    site.write("ready.new", &serde_json::to_string(&all).unwrap());
    fs::rename(site.path("ready.new"), site.path("READY")).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(600));
}

/// Goal: the next run knows the gates and the daemons of a test that was killed, and removes them.
/// Method: a test in a process of its own, killed while its pool serves.
#[test]
fn what_a_killed_test_leaves_behind_goes_with_the_next_one() {
    // It does not outlive this test if that fails.
    let mut victim = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "leftovers::victim", "--ignored"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let directory = Path::new("/run/vnfpool-lab").join(format!("vp{}", victim.id()));
    let left: Vec<PathBuf> = wait("the victim", || {
        assert_eq!(victim.try_wait().unwrap(), None, "it has to wait for us");
        let text = fs::read(directory.join("READY")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    });
    victim.kill().unwrap();
    victim.wait().unwrap();
    // A test in another process may be quicker, and have it half done.
    wait("all to be gone", || {
        let _ = Lab::clean_stale(false);
        left.iter().all(|path| !path.exists()).then_some(())
    });
    wait("its directory to be gone", || {
        (!directory.exists()).then_some(())
    });
}
