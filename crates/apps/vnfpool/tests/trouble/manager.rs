//! The manager killed in the middle of things: what it acknowledged is there, the pool goes on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{PROGRAM, Site, pool_file, run};

/// Applies pools and creates tokens until the manager is killed; what was acknowledged.
fn change_until_killed(site: &Site, round: u8) -> (Vec<String>, Vec<String>) {
    let admin = site.path("manager/operator");
    let namespace = site.lab.namespace("manager").unwrap().name();
    let directory = site.lab.directory();
    let over = AtomicBool::new(false);
    let operate = |arguments: &[&str]| {
        let mut command = crate::daemon::inside(namespace, PROGRAM);
        command.args(arguments).args(["--admin", &admin]);
        run(command)
    };
    std::thread::scope(|scope| {
        let pools = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for number in 1..=60 {
                let handle = format!("p{round}-{number}");
                let lans = [format!("a{round}"), format!("b{round}")];
                let lans = [lans[0].as_str(), lans[1].as_str()];
                // Addresses of one round are its own.
                let text =
                    pool_file(&handle, lans, number).replace("\"10.", &format!("\"1{round}."));
                let file = directory.join(format!("{handle}.toml"));
                std::fs::write(&file, text).unwrap();
                let said = operate(&["pool", "apply", "-f", file.to_str().unwrap()]);
                if said.code == Some(0) {
                    acknowledged.push(handle);
                } else if over.load(Ordering::SeqCst) {
                    break;
                }
            }
            acknowledged
        });
        let tokens = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let said = operate(&["token", "create", "--pool", "edge", "--element", "gw9"]);
                if said.code == Some(0) {
                    acknowledged.push(said.stdout.trim().to_owned());
                }
            }
            acknowledged
        });
        let log = directory.join("manager.log");
        wait("some changes", || {
            let log = std::fs::read_to_string(&log).unwrap();
            let applied = log.matches(&format!("pool p{round}-")).count();
            (applied >= 5 + usize::from(round)).then_some(())
        });
        site.manager().kill();
        over.store(true, Ordering::SeqCst);
        (pools.join().unwrap(), tokens.join().unwrap())
    })
}

fn pools(site: &Site) -> BTreeSet<String> {
    let listed = site.operate(&["pool", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let handles = listed.as_array().unwrap().iter();
    handles
        .map(|pool| pool["handle"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn what_a_killed_manager_acknowledged_is_there_and_the_pool_goes_on() {
    let site = Site::serving();
    let talk = site.talk();
    for round in 1..=3 {
        let (applied, tokens) = change_until_killed(&site, round);
        assert!(applied.len() >= 3 && !tokens.is_empty());
        talk.goes_on();
        site.start_manager();
        let there = pools(&site);
        let lost: Vec<_> = applied.iter().filter(|p| !there.contains(*p)).collect();
        assert_eq!(lost, Vec::<&String>::new());
        // The newest acknowledged token works.
        let said = site.join(
            Gateway::Gw1,
            &format!("gw9-{round}"),
            tokens.last().unwrap(),
        );
        assert_eq!(said.code, Some(0), "{said:?}");
        site.wait_armed();
        wait("one owner", || {
            (site.observer.owners_now().len() == 1).then_some(())
        });
        talk.goes_on();
    }
    site.ends_well();
}

#[test]
fn the_pair_switches_over_without_a_manager_and_the_next_one_knows() {
    let site = Site::serving();
    let talk = site.talk();
    site.manager().kill();
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    // Before the quorum is lost, and with it the right to serve: gw2 is alone after this.
    wait("gw2 as active", || {
        let role = "role=\"active\"";
        (site.metric("gw2", "vnfpool_role", role) == 1.0).then_some(())
    });
    site.start_manager();
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.wait_active("gw2");
    site.start_element(Gateway::Gw1);
    site.wait_armed();
    assert_eq!(site.active().as_deref(), Some("gw2"));
    talk.goes_on();
    site.ends_well();
}

/// A restarted manager knows where an element is only when that has registered again. What one
/// of a pair is told before the other has registered must not part them.
#[test]
fn a_restarted_manager_that_one_of_a_pair_reaches_first_leaves_the_pair_alone() {
    let site = Site::serving();
    let talk = site.talk();
    site.manager().kill();
    site.block(Gateway::Gw2, "7400");
    site.start_manager();
    wait("gw1 at the new manager", || {
        site.is_connected("gw1").then_some(())
    });
    // What it was told has time to do harm.
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(20));
        assert!(!site.is_connected("gw2"));
    }
    site.unblock(Gateway::Gw2);
    wait("gw2 at the new manager", || {
        site.is_connected("gw2").then_some(())
    });
    for gateway in Gateway::BOTH {
        let log = site.element(gateway).log();
        assert!(!log.contains("the connection to a peer is over"), "{log}");
    }
    site.wait_first();
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.ends_well();
}
