//! The fencing command: a pair that has gone silent together is switched off by it, or is not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;
use vnfpool_lab::Gateway;

use crate::daemon::{Daemon, wait};
use crate::site::{PROGRAM, Site, run};

/// A site whose manager has a fencing command that notes what it is told and ends with a code.
fn fenced_site(code: u8, options: &str) -> Site {
    let site = Site::prepared();
    let notes = site.path("fenced");
    let script = site.write(
        "fence",
        &format!(
            "#!/bin/sh\n\
             echo \"$# $VNFPOOL_POOL $VNFPOOL_ELEMENT $VNFPOOL_HOST $VNFPOOL_SLOT \
             $VNFPOOL_INCARNATION\" >> {notes}\nexit {code}\n"
        ),
    );
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let config = site.lab.directory().join("manager/manager.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    text.push_str(&format!(
        "\n[fencing]\ncommand = \"{script}\"\ntimeout_s = 5\n{options}\n"
    ));
    fs::write(config, text).unwrap();
    site.start_manager();
    site.create_pool();
    site
}

/// The same, with gw1 that serves and gw2 armed: nobody is left to be the spare.
fn pair_of_two(code: u8) -> Site {
    let site = fenced_site(code, "without_spare = true");
    site.start_pool();
    site
}

fn fencings(site: &Site, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    site.metric("manager", "vnfpool_fencings_total", &label)
}

/// What the command was told, but for the life, which has to be a number.
fn told(site: &Site) -> Vec<String> {
    let notes = fs::read_to_string(site.path("fenced")).unwrap_or_default();
    let told = notes.lines().map(|line| {
        let (told, life) = line.rsplit_once(' ').unwrap();
        assert!(life.parse::<u64>().unwrap() > 0, "{line}");
        told.to_owned()
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

const BOTH: [&str; 2] = ["0 edge gw1 host-1 main", "0 edge gw2 host-2 main"];

/// Whom the audit log says to have been declared off, and by whom.
fn declared_off(site: &Site) -> Vec<String> {
    let audit: Value = serde_json::from_str(&site.operate(&["audit", "--json"])).unwrap();
    let entries = audit.as_array().unwrap().iter();
    let off = entries.filter(|e| e["action"] == "fenced" && e["actor"] != "manager/manager");
    let mut off: Vec<_> = off
        .map(|e| {
            let text = e["text"].as_str().unwrap();
            let (element, _) = text.split_once(' ').unwrap();
            format!("{} {element}", e["actor"].as_str().unwrap())
        })
        .collect();
    off.sort();
    off
}

/// Goal: the proof of the command counts as the operator's word, and ends with the next life of
/// the element. Method: both die in one moment, then one comes back, then the other.
#[test]
fn a_pair_that_has_died_is_fenced_and_the_next_life_serves() {
    let site = pair_of_two(0);
    assert_eq!(told(&site), Vec::<String>::new());
    Daemon::kill_together(&site.element(Gateway::Gw1), &site.element(Gateway::Gw2));
    wait("both proofs", || {
        (fencings(&site, "off") == 2.0).then_some(())
    });
    assert_eq!(told(&site), BOTH);
    assert_eq!(
        declared_off(&site),
        ["hook/fencing gw1", "hook/fencing gw2"]
    );
    assert_eq!(site.observer.owners_now(), []);
    site.start_element(Gateway::Gw1);
    site.wait_active("gw1");
    site.wait_owner(Gateway::Gw1);
    let talk = site.talk();
    site.start_element(Gateway::Gw2);
    site.wait_armed();
    talk.goes_on();
    assert_eq!(told(&site), BOTH, "each was fenced once");
    site.ends_well();
}

/// Goal: without the proof nobody is declared off. Method: the command says that it has failed.
#[test]
fn a_command_that_fails_declares_nobody_off() {
    let site = pair_of_two(1);
    Daemon::kill_together(&site.element(Gateway::Gw1), &site.element(Gateway::Gw2));
    wait("both failures", || {
        (fencings(&site, "failed") >= 2.0).then_some(())
    });
    // As often as it was tried, if that is more than once.
    assert!(
        BOTH.iter()
            .all(|line| told(&site).iter().any(|t| t == line))
    );
    assert_eq!(declared_off(&site), Vec::<String>::new());
    assert_eq!(
        site.metric("manager", "vnfpool_decisions_total", "cause=\"fenced\""),
        0.0
    );
    site.manager()
        .wait_log("fencing failed: the fencing command: it ended with exit status: 1");
    assert_eq!(site.observer.owners_now(), []);
    // The next life of one of them needs no proof (R13).
    site.start_element(Gateway::Gw1);
    site.wait_owner(Gateway::Gw1);
    site.ends_well();
}

/// A third element, gw3, on the manager's host. Its LANs lead nowhere: it is there to be armed.
fn start_third(site: &Site) -> Daemon {
    let ip = |arguments: &str| {
        let mut command = site.command("manager", "ip");
        command.args(arguments.split(' '));
        let said = run(command);
        assert_eq!(said.code, Some(0), "ip {arguments}: {said:?}");
    };
    for (lan, number) in [("in", 1), ("out", 2)] {
        ip(&format!("link add {lan} type veth peer name {lan}-far"));
        ip(&format!("link set {lan}-far up"));
        ip(&format!("link set {lan} up"));
        ip(&format!("address add 10.{number}.0.3/24 dev {lan}"));
    }
    ip("address add 10.9.0.13/32 dev mgmt");
    let token = site.operate(&["token", "create", "--pool", "edge", "--element", "gw3"]);
    let directory = site.path("gw3");
    let mut join = site.command("manager", PROGRAM);
    join.args(["element", "join", "--dir", &directory])
        .args(["--manager", &site.control])
        .env("VNFPOOL_TOKEN", token.trim());
    let said = run(join);
    assert_eq!(said.code, Some(0), "{said:?}");
    let control = &site.control;
    let file = site.write(
        "gw3.toml",
        &format!(
            r#"element = "gw3"
pool = "edge"
function = "nat-gateway"
host = "host-3"
dir = "{directory}"
manager = "{control}"
[[lan]]
name = "inside"
interface = "in"
address = "10.1.0.3"
[[lan]]
name = "outside"
interface = "out"
address = "10.2.0.3"
[[path]]
name = "management"
address = "10.9.0.13"
"#
        ),
    );
    let mut command = site.daemon("manager");
    command.args(["element", "run", "--config", &file]);
    let log = site.lab.directory().join("gw3.log");
    Daemon::start(command, &log, &site.lab)
}

/// Goal: the proof alone frees the slot for the spare. Method: gw1 and gw3 are the pair and die in
/// one moment, for good; gw2 is there.
#[test]
fn a_spare_gets_the_slot_of_a_fenced_pair() {
    let site = fenced_site(0, "");
    site.start_element(Gateway::Gw1);
    let third = start_third(&site);
    site.wait_first();
    let talk = site.talk();
    site.start_element(Gateway::Gw2);
    wait("gw2 at the manager", || {
        site.is_connected("gw2").then_some(())
    });
    talk.goes_on();
    Daemon::kill_together(&site.element(Gateway::Gw1), &third);
    wait("both proofs", || {
        (fencings(&site, "off") == 2.0).then_some(())
    });
    assert_eq!(
        told(&site),
        ["0 edge gw1 host-1 main", "0 edge gw3 host-3 main"]
    );
    site.wait_active("gw2");
    site.wait_owner(Gateway::Gw2);
    let cause = "cause=\"fenced\"";
    assert_eq!(
        site.metric("manager", "vnfpool_decisions_total", cause),
        1.0
    );
    site.ends_well();
}
