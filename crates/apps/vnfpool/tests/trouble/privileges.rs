//! Daemons without the privileges that they need, and with less than they would like.

use std::fs;
use std::process::Command;

use vnfpool_lab::Gateway;

use crate::daemon::{Daemon, wait};
use crate::site::{PROGRAM, Site, run};

/// The element of gw1 as a command that can never have some capabilities (`-name,-name`).
fn without(site: &Site, capabilities: &str) -> Command {
    let file = site.write("gw1.toml", &site.element_file(Gateway::Gw1));
    let mut command = site.command("gw1", "setpriv");
    command
        .args(["--bounding-set", capabilities, "--", PROGRAM])
        .args(["element", "run", "--config", &file]);
    command
}

#[test]
fn an_element_without_a_privilege_names_it_and_leaves_nothing_behind() {
    let site = Site::enrolled();
    let incarnation = site.lab.directory().join("gw1/incarnation");
    for (lacking, named) in [
        ("-net_admin", "the capability CAP_NET_ADMIN is missing"),
        ("-net_raw", "the capability CAP_NET_RAW is missing"),
        ("-bpf,-sys_admin", "CAP_BPF"),
    ] {
        let said = run(without(&site, lacking));
        assert_eq!(said.code, Some(1), "{lacking}: {said:?}");
        let last = said.stderr.lines().last().unwrap();
        assert!(
            last.starts_with("error: ") && last.contains(named),
            "{lacking}: {said:?}"
        );
        // What to add to what.
        assert!(
            last.contains("root") && last.contains("AmbientCapabilities"),
            "{last}"
        );
        assert!(!said.stderr.contains('\u{fffd}'), "{said:?}");
        assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
        assert!(!site.has_gate(Gateway::Gw1), "{lacking}");
        assert!(!incarnation.exists(), "{lacking}");
    }
    site.ends_well();
}

#[test]
fn an_element_without_real_time_says_so_and_serves() {
    let site = Site::enrolled();
    let log = site.lab.directory().join("gw1.log");
    let daemon = Daemon::start(without(&site, "-ipc_lock,-sys_nice"), &log, &site.lab);
    site.wait_owner(Gateway::Gw1);
    for named in ["CAP_IPC_LOCK", "CAP_SYS_NICE", "goes on without real time"] {
        assert!(daemon.log().contains(named), "{}", daemon.log());
    }
    wait("the word about it in status", || {
        let status = site.status().to_string();
        status.contains("not permitted").then_some(())
    });
    assert_eq!(daemon.stop().code(), Some(0));
    site.ends_well();
}

/// The service unit takes away what the agent does not need; what it leaves has to suffice.
#[test]
fn the_capabilities_of_the_service_unit_suffice() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../packaging/vnfpool-element.service"
    );
    let unit = fs::read_to_string(unit).unwrap();
    let set = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .unwrap();
    let kept: String = set
        .split_whitespace()
        .map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()))
        .collect();
    assert!(!kept.contains("sys_admin"), "{kept}");
    let site = Site::enrolled();
    let log = site.lab.directory().join("gw1.log");
    let daemon = Daemon::start(without(&site, &format!("-all{kept}")), &log, &site.lab);
    site.wait_owner(Gateway::Gw1);
    // What it did without would be said in a warning.
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
    site.start_element(Gateway::Gw2);
    site.wait_armed();
    let talk = site.talk();
    assert_eq!(daemon.stop().code(), Some(0));
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    assert!(!site.has_gate(Gateway::Gw1));
    site.ends_well();
}
