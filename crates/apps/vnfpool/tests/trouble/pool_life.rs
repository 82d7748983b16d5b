//! A pool that is deleted, forgotten, or out of its manager's reach.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{Site, pool_file, run};

/// The observer asks for the address each few milliseconds; silence for so long is an answer.
const SILENCE: Duration = Duration::from_secs(1);

/// Nobody answers for the virtual address and nobody is prepared to.
fn nobody_serves(site: &Site) {
    // What is on its way from before must not count.
    std::thread::sleep(SILENCE);
    assert_eq!(site.observer.owners_now(), Vec::<Gateway>::new());
    for gateway in Gateway::BOTH {
        assert_eq!(site.virtual_devices(gateway), Vec::<String>::new());
    }
}

/// Goal: a deleted pool is not served. Method: delete a pool whose pair serves; look from outside
/// and into the gateways. The control before: one of them did answer, both were prepared.
#[test]
fn a_deleted_pool_is_served_by_nobody() {
    let site = Site::serving();
    for gateway in Gateway::BOTH {
        assert_eq!(site.virtual_devices(gateway).len(), 2, "{gateway}");
    }
    site.operate(&["pool", "delete", "edge"]);
    nobody_serves(&site);

    // The same name may be used again, by the same elements.
    let pool = site.write("again.toml", &pool_file("edge", ["inside", "outside"], 1));
    site.operate(&["pool", "apply", "-f", &pool]);
    site.wait_first();
    site.talk().goes_on();
    site.ends_well();
}

/// Goal: a pair that the manager cannot tell is not forgotten while it serves, and may be deleted
/// once it can be told. Method: cut the manager off until its connections are over.
#[test]
fn a_pair_out_of_reach_keeps_its_pool() {
    let site = Site::serving();
    let talk = site.talk();
    let link = |state: &str| {
        let mut command = site.command("manager", "ip");
        command.args(["link", "set", "mgmt", state]);
        assert_eq!(run(command).code, Some(0));
    };
    link("down");
    let is_connected = |gateway: &Gateway| site.is_connected(gateway.name());
    wait("the connections to end", || {
        (!Gateway::BOTH.iter().any(is_connected)).then_some(())
    });
    let why = site.refused(&["pool", "delete", "edge"]);
    assert!(why.contains("vnfpool fence edge gw"), "{why}");
    // The pair serves on.
    talk.goes_on();

    link("up");
    wait("the connections", || {
        Gateway::BOTH.iter().all(is_connected).then_some(())
    });
    site.wait_armed();
    site.operate(&["pool", "delete", "edge"]);
    nobody_serves(&site);
    site.ends_well();
}

/// Goal: elements that hear that there is no such pool serve nothing any more. Method: a manager
/// without its store.
#[test]
fn elements_of_an_unknown_pool_take_everything_away() {
    let site = Site::serving();
    site.manager().kill();
    fs::remove_dir_all(site.path("manager/store")).unwrap();
    site.start_manager();
    wait("the devices to go", || {
        let mut both = Gateway::BOTH.into_iter();
        both.all(|gateway| site.virtual_devices(gateway).is_empty())
            .then_some(())
    });
    nobody_serves(&site);
    for gateway in Gateway::BOTH {
        site.element(gateway).wait_log("its pool is gone");
    }
    site.ends_well();
}

/// Goal: a manager that falls silent and comes back has its elements again as soon as it speaks:
/// they call it anew by themselves, and do not wait for a connection to time out that says nothing
/// of whether the other end still knows it. Method: stop its process, and let it run again once
/// both have noticed; what each has noticed is in its log.
#[test]
fn a_manager_that_was_silent_is_called_anew() {
    let site = Site::serving();
    let talk = site.talk();
    let registered = |gateway: Gateway| {
        let log = site.element(gateway).log();
        log.matches("registered with the manager").count()
    };
    let before = Gateway::BOTH.map(registered);
    site.manager().signal(Signal::STOP);
    for gateway in Gateway::BOTH {
        let element = site.element(gateway);
        element.wait_log("the manager is away: it answers no datagrams");
    }
    // The pair serves on.
    talk.goes_on();
    site.manager().signal(Signal::CONT);
    wait("both to register again", || {
        let now = Gateway::BOTH.map(registered);
        now.iter()
            .zip(before)
            .all(|(now, b)| *now > b)
            .then_some(())
    });
    site.wait_armed();
    talk.goes_on();
    site.ends_well();
}
