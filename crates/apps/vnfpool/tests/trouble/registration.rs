//! Elements that must not be let in: the error says why, and nothing changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{Site, pool_file, run};

/// Replaces what must be there.
fn with(file: &str, old: &str, new: &str) -> String {
    assert!(file.contains(old), "{old:?} is not in\n{file}");
    file.replace(old, new)
}

/// A slot as `status` shows it, but for its classes of state, of which it may not have heard yet.
fn without_state(mut slot: Value) -> Value {
    slot["state"] = Value::Null;
    slot
}

/// Runs an element that refuses to start on gw1, to its end; what it said.
fn dies(site: &Site, file: &str) -> String {
    let path = site.write("wrong.toml", file);
    let said = site.program("gw1", &["element", "run", "--config", &path]);
    assert_eq!(said.code, Some(1), "{said:?}");
    said.stderr
}

/// Starts an element that the manager refuses, on gw1, until it has said so; it goes on asking.
fn is_refused(site: &Site, file: &str, why: &str) {
    let path = site.write("wrong.toml", file);
    let daemon = site.start_with(Gateway::Gw1, &path, "wrong.log");
    daemon.wait_log(why);
    assert_eq!(daemon.ended(), None, "{}", daemon.log());
    assert_eq!(daemon.stop().code(), Some(0), "{}", daemon.log());
    fs::remove_file(site.lab.directory().join("wrong.log")).unwrap();
}

#[test]
fn wrong_elements_are_refused_with_the_reason_and_change_nothing() {
    let site = Site::enrolled();
    site.start_element(Gateway::Gw2);
    site.wait_owner(Gateway::Gw2);
    let slot = without_state(site.slot().unwrap());
    assert!(site.has_gate(Gateway::Gw2));
    let good = site.element_file(Gateway::Gw1);

    is_refused(
        &site,
        &with(&good, "\"nat-gateway\"", "\"dns\""),
        "refused (function): pool 'edge' provides the function 'nat-gateway', this element 'dns'",
    );
    let outside = "[[lan]]\nname = \"outside\"\ninterface = \"out\"\naddress = \"10.2.0.1\"\n";
    is_refused(
        &site,
        &with(&good, outside, ""),
        "refused (lan): pool 'edge' has addresses on the LAN 'outside'",
    );

    let said = dies(
        &site,
        &with(&good, "interface = \"out\"", "interface = \"nope\""),
    );
    assert!(
        said.contains("the LAN 'outside' is on the interface 'nope'"),
        "{said}"
    );
    let said = dies(
        &site,
        &with(&good, "element = \"gw1\"", "element = \"gw9\""),
    );
    assert!(
        said.contains("pool/edge/element/gw1") && said.contains("pool/edge/element/gw9"),
        "{said}"
    );
    let nowhere = site.path("nowhere");
    let said = dies(
        &site,
        &with(&good, &site.path("gw1\""), &format!("{nowhere}\"")),
    );
    assert!(said.contains("enrol with `vnfpool element join`"), "{said}");
    assert!(!Path::new(&nowhere).exists());
    let said = dies(
        &site,
        &with(&good, "address = \"10.3.0.1\"", "address = \"10.3.0.99\""),
    );
    assert!(said.contains("10.3.0.99"), "{said}");

    assert_eq!(without_state(site.slot().unwrap()), slot);
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    assert!(!site.has_gate(Gateway::Gw1));
    for code in ["function", "lan"] {
        let refused = site.metric("manager", "vnfpool_registrations_refused_total", code);
        assert!(refused >= 1.0, "{code}");
    }
    site.wait_owner(Gateway::Gw2);
    site.ends_well();
}

#[test]
fn an_element_whose_pool_was_deleted_is_told_so() {
    let site = Site::managed();
    let pool = site.write("pool.toml", &pool_file("edge", ["inside", "outside"], 1));
    site.operate(&["pool", "apply", "-f", &pool]);
    let token = site.operate(&["token", "create", "--pool", "edge", "--element", "gw1"]);
    assert_eq!(site.join(Gateway::Gw1, "gw1", token.trim()).code, Some(0));
    site.operate(&["pool", "delete", "edge"]);
    is_refused(
        &site,
        &site.element_file(Gateway::Gw1),
        "refused (pool): there is no pool 'edge': create it with `vnfpool pool apply`",
    );
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
}

/// Goal: a second start on the same machine, by hand beside the service for example, changes
/// nothing. Method: each driver of the gate beside each.
#[test]
fn a_second_agent_beside_the_first_ends_and_the_first_serves_on() {
    second_beside_first("");
}

#[test]
fn a_second_agent_beside_one_without_a_gate_ends_and_the_first_serves_on() {
    second_beside_first(WITHOUT_GATE);
}

/// For the end of an element's file.
const WITHOUT_GATE: &str = "\n[gate]\ndriver = \"addresses\"\n";

/// `first` and nothing are the ends of the files of the two that are started beside the first.
fn second_beside_first(first: &str) {
    let site = Site::enrolled();
    let good = site.element_file(Gateway::Gw1);
    let file = site.write("first.toml", &format!("{good}{first}"));
    let running = site.start_with(Gateway::Gw1, &file, "gw1.log");
    site.start_element(Gateway::Gw2);
    site.wait_first();
    let talk = site.talk();
    let devices = site.virtual_devices(Gateway::Gw1);
    let addresses = || {
        let mut command = site.command("gw1", "ip");
        command.args(["-o", "address", "show", "up", "to", "10.1.0.254"]);
        run(command).stdout
    };
    assert!(addresses().contains("10.1.0.254"));
    for second in ["", WITHOUT_GATE] {
        let file = site.write("second.toml", &format!("{good}{second}"));
        let said = site.program("gw1", &["element", "run", "--config", &file]);
        assert_eq!(said.code, Some(1), "{said:?}");
        let last = said.stderr.lines().last().unwrap();
        assert!(
            last.starts_with("error: ") && last.contains("belongs to another running process"),
            "{said:?}"
        );
        // If this machine stood still for a moment, the other one may serve now.
        site.wait_first();
        assert!(addresses().contains("10.1.0.254"), "beside it: {second}");
        talk.goes_on();
        assert_eq!(site.virtual_devices(Gateway::Gw1), devices);
    }
    // Its gate is whole, too: it opens and closes with the lease.
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.wait_armed();
    site.operate(&["switchover", "edge", "--to", "gw1"]);
    site.wait_owner(Gateway::Gw1);
    talk.goes_on();
    assert_eq!(running.ended(), None, "{}", running.log());
    site.ends_well();
}

/// The addresses of a killed agent stay, behind its closed gate. Whoever starts after it and ends
/// before it could register has nothing to take away, least of all that gate.
#[test]
fn a_killed_agents_gate_outlives_successors_that_never_registered() {
    let site = Site::serving();
    let talk = site.talk();
    site.element(Gateway::Gw1).kill();
    site.wait_owner(Gateway::Gw2);
    site.manager().kill();
    let left = site.virtual_devices(Gateway::Gw1);
    assert_ne!(left, Vec::<String>::new());
    // One that is told to stop, one that cannot even start.
    site.start_element(Gateway::Gw1);
    site.element(Gateway::Gw1)
        .wait_log("cannot register with the manager");
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    let wrong = with(
        &site.element_file(Gateway::Gw1),
        "\"10.3.0.1\"",
        "\"10.3.0.99\"",
    );
    let said = dies(&site, &wrong);
    assert!(said.contains("10.3.0.99"), "{said}");
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(20));
        assert!(!site.observer.owners_now().contains(&Gateway::Gw1));
    }
    // The next that registers takes it over and cleans up in the end. (Until the manager is back,
    // two of three are away, and there are no witnesses to serve on: nobody may serve.)
    site.start_manager();
    site.start_element(Gateway::Gw1);
    site.wait_armed();
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    talk.goes_on();
    site.ends_well();
}

/// A machine that was declared off, and had only stood still.
#[test]
fn a_fenced_life_that_comes_back_ends_and_the_next_one_is_armed() {
    let site = Site::serving();
    let talk = site.talk();
    site.element(Gateway::Gw1).signal(Signal::STOP);
    site.wait_owner(Gateway::Gw2);
    wait("gw1 to be silent for long enough", || {
        let said = site.try_operate(&["fence", "edge", "gw1", "--it-is-off"]);
        (said.code == Some(0)).then_some(())
    });
    talk.goes_on();
    site.element(Gateway::Gw1).signal(Signal::CONT);
    let ended = site.element(Gateway::Gw1).wait_end();
    assert_eq!(ended.code(), Some(1));
    let log = site.element(Gateway::Gw1).log();
    assert!(
        log.contains("error: this agent must not run: this life of 'gw1' was declared off"),
        "{log}"
    );
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    site.wait_owner(Gateway::Gw2);
    site.start_element(Gateway::Gw1);
    site.wait_armed();
    talk.goes_on();
    site.ends_well();
}

/// A copied directory on another machine: one identity, two agents.
#[test]
fn of_two_agents_with_one_identity_the_newer_is_sent_away() {
    let site = Site::enrolled();
    site.start_element(Gateway::Gw1);
    site.wait_owner(Gateway::Gw1);
    let slot = site.slot().unwrap();
    let mut copy = site.command("gw2", "cp");
    copy.args(["-a", &site.path("gw1"), &site.path("copy")]);
    assert_eq!(run(copy).code, Some(0));
    let addresses: BTreeMap<_, _> = [
        ("10.1.0.1", "10.1.0.2"),
        ("10.2.0.1", "10.2.0.2"),
        ("10.3.0.1", "10.3.0.2"),
        ("10.9.0.11", "10.9.0.12"),
    ]
    .into();
    let mut file = site.element_file(Gateway::Gw1);
    for (old, new) in addresses {
        file = with(&file, &format!("\"{old}\""), &format!("\"{new}\""));
    }
    file = with(&file, &site.path("gw1\""), &site.path("copy\""));
    let path = site.write("copy.toml", &file);

    let said = site.program("gw2", &["element", "run", "--config", &path]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let last = said.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(
            "error: this agent must not run: another agent with the identity of 'gw1'"
        ) && last.contains("host-1"),
        "{said:?}"
    );
    assert_eq!(site.virtual_devices(Gateway::Gw2), Vec::<String>::new());
    assert_eq!(site.slot().unwrap(), slot);
    site.wait_owner(Gateway::Gw1);
    let refused = site.metric(
        "manager",
        "vnfpool_registrations_refused_total",
        "duplicate",
    );
    assert!(refused >= 1.0);

    // Also when the new manager has not heard of the first one yet.
    site.manager().kill();
    let calls_in_vain = site.start_with(Gateway::Gw2, &path, "copy.log");
    site.start_manager();
    assert_eq!(calls_in_vain.wait_end().code(), Some(1));
    let log = calls_in_vain.log();
    assert!(log.contains("error: this agent must not run: "), "{log}");
    site.wait_owner(Gateway::Gw1);

    // Moved to the other machine, and no longer on the first, it may run.
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    let moved = wait("the moved agent", || {
        let moved = site.start_with(Gateway::Gw2, &path, "moved.log");
        // It is refused until the first one has been silent for long enough.
        wait("its registration or its end", || {
            let registered = moved.log().contains("registered with the manager");
            (registered || moved.ended().is_some()).then_some(())
        });
        moved.ended().is_none().then_some(moved)
    });
    site.wait_owner(Gateway::Gw2);
    assert_eq!(moved.ended(), None, "{}", moved.log());
    site.ends_well();
}
