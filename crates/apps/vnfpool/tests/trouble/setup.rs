//! A slot that cannot be set up just now, or whose interface is another one.

use std::time::Duration;

use serde_json::Value;
use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::wait;
use crate::site::{Site, pool_file, run};

/// `ip` on a gateway; what it printed.
fn ip(site: &Site, gateway: Gateway, arguments: &str) -> String {
    let mut command = site.command(gateway.name(), "ip");
    command.args(arguments.split(' '));
    let said = run(command);
    assert_eq!(said.code, Some(0), "ip {arguments}: {said:?}");
    said.stdout
}

/// What `status` says is wrong with gw1.
fn faults(site: &Site) -> Option<String> {
    let status = site.status();
    let elements = status["pools"][0]["elements"].as_array()?;
    let element = elements.iter().find(|e| e["id"] == "gw1")?;
    Some(element["faults"].to_string())
}

/// Goal: what is in the way of a slot for a while needs nobody's hand when it has gone. Method: a
/// device of somebody else has the name of the virtual device, and goes.
#[test]
fn a_slot_that_cannot_be_set_up_is_tried_again() {
    let site = Site::enrolled();
    ip(&site, Gw1, "link add vp11v4 type bridge");
    site.start_element(Gw1);
    wait("the fault in status", || {
        faults(&site)?.contains("vp11v4").then_some(())
    });
    // Some attempts more, of which the log says nothing.
    std::thread::sleep(Duration::from_secs(3));
    let log = site.element(Gw1).log();
    assert_eq!(log.matches("cannot be carried out").count(), 1, "{log}");
    ip(&site, Gw1, "link del vp11v4");
    site.wait_active("gw1");
    site.wait_owner(Gw1);
    assert_eq!(faults(&site).unwrap(), "[]");
    site.talk().goes_on();
    site.ends_well();
}

/// Goal: an agent without a BPF gate closes before its first word (R1) what a killed one left
/// open. Method: after the kill there is no manager, so that the new life gets no configuration;
/// the addresses go nevertheless.
#[test]
fn addresses_that_a_killed_agent_left_go_before_the_first_word() {
    let site = Site::enrolled();
    let text = site.element_file(Gw1) + "\n[gate]\ndriver = \"addresses\"\n";
    let file = site.write("gw1.toml", &text);
    let first = site.start_with(Gw1, &file, "gw1.log");
    site.wait_owner(Gw1);
    first.kill();
    site.manager().kill();
    let addresses = || ip(&site, Gw1, "-o address show up to 10.1.0.254");
    assert!(addresses().contains("vp11v4"), "the kernel keeps them");
    let second = site.start_with(Gw1, &file, "gw1.log");
    wait("the addresses to go", || {
        assert_eq!(second.ended(), None, "{}", second.log());
        addresses().is_empty().then_some(())
    });
    // The next life, with a manager, serves with them again.
    second.kill();
    site.start_manager();
    let _third = site.start_with(Gw1, &file, "gw1.log");
    site.wait_active("gw1");
    site.wait_owner(Gw1);
    site.talk().goes_on();
    site.ends_well();
}

/// Goal: an agent whose interface was removed does not go on with the sockets of the former one
/// when there is a new one. Method: the outside LAN of the active's machine; the next life serves
/// again.
#[test]
fn an_agent_ends_when_its_interface_is_made_anew() {
    let site = Site::serving();
    let on_switch = |arguments: &str| {
        let mut command = site.command("switch", "ip");
        command.args(arguments.split(' '));
        let said = run(command);
        assert_eq!(said.code, Some(0), "ip {arguments}: {said:?}");
    };
    on_switch("link del out-gw1");
    site.wait_owner(Gw2);
    site.talk().goes_on();
    assert_eq!(
        site.element(Gw1).ended(),
        None,
        "it may come back by itself"
    );
    let namespace = site.lab.namespace("gw1").unwrap().name();
    on_switch(&format!(
        "link add out-gw1 type veth peer name out netns {namespace}"
    ));
    on_switch("link set out-gw1 master outside up");
    ip(&site, Gw1, "addr add 10.2.0.1/24 dev out");
    ip(&site, Gw1, "link set out up");
    let ended = site.element(Gw1).wait_end();
    assert_eq!(ended.code(), Some(1));
    let log = site.element(Gw1).log();
    assert!(log.contains("'out' was removed and made anew"), "{log}");
    assert_eq!(site.virtual_devices(Gw1), Vec::<String>::new());

    site.start_element(Gw1);
    site.wait_first();
    site.talk().goes_on();
    site.ends_well();
}

/// Goal: nothing of a deleted pool is set up later, when what was in the way has gone.
#[test]
fn a_slot_of_a_deleted_pool_is_not_tried_again() {
    let site = Site::enrolled();
    ip(&site, Gw1, "link add vp11v4 type bridge");
    site.start_element(Gw1);
    wait("the fault in status", || {
        faults(&site)?.contains("vp11v4").then_some(())
    });
    site.operate(&["pool", "delete", "edge"]);
    site.element(Gw1).wait_log("refused (pool)");
    ip(&site, Gw1, "link del vp11v4");
    // Time for a few attempts.
    std::thread::sleep(Duration::from_secs(3));
    let log = site.element(Gw1).log();
    assert!(!log.contains("the slot is configured"), "{log}");
    site.ends_well();
}

/// Goal: whatever a killed agent has left, the next one serves, also with the other driver of the
/// gate. Method: one life after the other, each killed while it serves.
#[test]
fn the_gate_driver_can_change_after_a_kill() {
    let site = Site::enrolled();
    let bpf = site.element_file(Gw1);
    let addresses = format!("{bpf}\n[gate]\ndriver = \"addresses\"\n");
    for text in [&bpf, &addresses, &bpf] {
        let file = site.write("gw1.toml", text);
        let life = site.start_with(Gw1, &file, "gw1.log");
        site.wait_active("gw1");
        site.wait_owner(Gw1);
        site.talk().goes_on();
        assert_eq!(site.has_gate(Gw1), text == &bpf);
        life.kill();
    }
    site.ends_well();
}

/// Goal: an agent that is stopped leaves nothing, also of a slot that could only be set up by half.
/// Method: a device of somebody else is in the way of the second of two.
#[test]
fn half_a_slot_leaves_nothing() {
    let site = Site::enrolled();
    ip(&site, Gw1, "link add vp12v4 type bridge");
    site.start_element(Gw1);
    wait("the fault in status", || {
        faults(&site)?.contains("vp12v4").then_some(())
    });
    assert_eq!(site.element(Gw1).stop().code(), Some(0));
    assert_eq!(site.virtual_devices(Gw1), Vec::<String>::new());
    assert!(!site.has_gate(Gw1));
    site.ends_well();
}

/// Waits until every slot of the pool has this in `status`.
fn wait_slots(site: &Site, key: &str, value: &Value) {
    wait(&format!("{key} = {value} in every slot"), || {
        let said = site.try_operate(&["status", "edge", "--json"]);
        let status: Value = serde_json::from_str(&said.stdout).ok()?;
        let slots = status["pools"][0]["slots"].as_array()?;
        slots.iter().all(|slot| slot[key] == *value).then_some(())
    });
}

/// Goal: of what a killed agent has left, nothing answers again because another slot of the next
/// life was set up. Method: two slots, both served and killed; in the next life a device of
/// somebody else is in the way of the second, whose own one is still there.
#[test]
fn a_slot_that_cannot_be_set_up_after_a_kill_stays_closed() {
    let site = Site::managed();
    let other = pool_file("edge", ["inside", "outside"], 4).replace("\"main\"", "\"other\"");
    let main = pool_file("edge", ["inside", "outside"], 1);
    let (_, main) = main.split_once("\n\n").unwrap();
    let state = "[state]\nconnections = \"none\"\n";
    site.create_pool_of(&format!("{other}\n{main}\n{state}"));
    site.start_element(Gw1);
    wait_slots(&site, "active", &"gw1".into());
    site.start_element(Gw2);
    wait_slots(&site, "armed", &true.into());
    site.wait_owner(Gw1);
    site.element(Gw1).kill();
    site.wait_owner(Gw2);
    wait_slots(&site, "active", &"gw2".into());

    ip(&site, Gw1, "link set vp11v4 name left");
    ip(&site, Gw1, "link add vp11v4 type bridge");
    assert!(ip(&site, Gw1, "-o address show up").contains("10.1.0.254"));
    site.start_element(Gw1);
    wait("the fault in status", || {
        faults(&site)?.contains("vp11v4").then_some(())
    });
    // A slot that could be set up is.
    assert!(ip(&site, Gw1, "-o address show up").contains("10.1.0.251"));
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(20));
        assert!(!site.observer.owners_now().contains(&Gw1));
    }
    assert!(!ip(&site, Gw1, "-o address show up").contains("10.1.0.254"));

    // Once it is set up, nothing of the earlier life is left.
    ip(&site, Gw1, "link del vp11v4");
    wait_slots(&site, "armed", &true.into());
    wait("the end of the old device", || {
        let devices = site.virtual_devices(Gw1);
        (devices.len() == 4 && !devices.iter().any(|d| d.starts_with("left"))).then_some(())
    });
    site.ends_well();
}
