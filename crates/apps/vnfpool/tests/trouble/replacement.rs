//! Agents that are killed or replaced under a supervisor: nothing moves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{METRICS_PORT, Site, pool_file};

/// Long enough for a debug build to be started on a busy machine.
pub(crate) const TIMING: &str = "[pool]\nheartbeat_ms = 200\nlease_ms = 1500";

/// What a supervisor takes for a short life, and a little more.
pub(crate) const SHORT_LIFE: Duration = Duration::from_millis(1_200);

/// A pool with long leases whose elements are supervised; gw1 serves.
fn supervised() -> Site {
    let site = Site::managed();
    let text = pool_file("edge", ["inside", "outside"], 1);
    site.create_pool_of(&text.replace("[pool]", TIMING));
    for gateway in Gateway::BOTH {
        site.supervise_element(gateway);
    }
    site.wait_first();
    site
}

/// Term and turn of the slot, and the life of each element.
fn standing(site: &Site) -> (Value, Vec<Value>) {
    let status = site.status();
    let elements = status["pools"][0]["elements"].as_array().unwrap();
    let lives = elements.iter().map(|e| e["incarnation"].clone());
    (site.slot().unwrap()["epoch"].clone(), lives.collect())
}

pub(crate) fn agent_of(site: &Site, gateway: Gateway) -> u32 {
    wait("an agent", || {
        let children = site.element(gateway).children();
        children.first().copied()
    })
}

/// Waits until another process than `before` goes on.
pub(crate) fn goes_on(site: &Site, gateway: Gateway, before: u32, times: usize) {
    let element = site.element(gateway);
    wait("another agent that goes on", || {
        let log = element.log();
        let text = "the agent goes on where another process of this life has ended";
        let went_on = log.matches(text).count();
        (agent_of(site, gateway) != before && went_on >= times).then_some(())
    });
    let name = gateway.name();
    wait("the element to be connected", || {
        site.is_connected(name).then_some(())
    });
}

/// Goal: the death of an agent moves nothing: not the slot, not the term, not its life; and the
/// pool is as whole as before. Method: the agents are killed in turn, then replaced on purpose; then
/// the active is lost for good.
#[test]
fn agents_that_are_killed_or_replaced_go_on_where_they_were() {
    let site = supervised();
    let talk = site.talk();
    let before = standing(&site);
    for (times, gateway) in [(1, Gateway::Gw1), (1, Gateway::Gw2), (2, Gateway::Gw1)] {
        // One that dies within a second would be taken to have died of what it was left.
        std::thread::sleep(SHORT_LIFE);
        let agent = agent_of(&site, gateway);
        crate::daemon::kill(agent);
        goes_on(&site, gateway, agent, times);
        assert_eq!(standing(&site), before);
        talk.goes_on();
    }
    std::thread::sleep(SHORT_LIFE);
    let agent = agent_of(&site, Gateway::Gw1);
    site.element(Gateway::Gw1).signal(Signal::HUP);
    goes_on(&site, Gateway::Gw1, agent, 3);
    assert_eq!(standing(&site), before);
    site.wait_armed();
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.ends_well();
}

/// Goal: a port for metrics that somebody else has costs metrics and nothing more, and only as long as
/// it is taken. Method: `element.toml` of the active gets such a port before a reload.
#[test]
fn a_metrics_port_that_is_in_use_moves_nothing() {
    let site = supervised();
    let talk = site.talk();
    let before = standing(&site);
    let taken = SocketAddr::from((Ipv4Addr::LOCALHOST, METRICS_PORT + 10));
    let listen = || Ok(TcpListener::bind(taken)?);
    let listener = site.lab.namespace("gw1").unwrap().run(listen).unwrap();
    let file = site.element_file(Gateway::Gw1);
    let other = file.replace(&METRICS_PORT.to_string(), &taken.port().to_string());
    assert_ne!(file, other);
    site.write("gw1.toml", &other);
    std::thread::sleep(SHORT_LIFE);
    let agent = agent_of(&site, Gateway::Gw1);
    site.element(Gateway::Gw1).signal(Signal::HUP);
    goes_on(&site, Gateway::Gw1, agent, 1);
    let said = "the agent goes on without metrics";
    site.element(Gateway::Gw1).wait_log(said);
    let agent = agent_of(&site, Gateway::Gw1);
    drop(listener);
    site.element(Gateway::Gw1)
        .wait_log("metrics are served at last");
    assert_eq!(agent_of(&site, Gateway::Gw1), agent, "one process");
    assert_eq!(standing(&site), before);
    talk.goes_on();
    site.ends_well();
}

/// Goal: an agent that comes back too late begins a new life, and the slot moves once. Method: the
/// supervisor stands still while the agent dies.
#[test]
fn an_agent_that_comes_back_too_late_begins_a_new_life() {
    let site = supervised();
    let agent = agent_of(&site, Gateway::Gw1);
    let before = standing(&site);
    site.element(Gateway::Gw1).signal(Signal::STOP);
    crate::daemon::kill(agent);
    site.wait_owner(Gateway::Gw2);
    std::thread::sleep(Duration::from_millis(2_500));
    site.element(Gateway::Gw1).signal(Signal::CONT);
    site.element(Gateway::Gw1)
        .wait_log("cannot go on with what the process before has left");
    site.wait_armed();
    assert_eq!(site.active().as_deref(), Some("gw2"));
    assert_ne!(standing(&site).1[0], before.1[0], "a new life");
    site.ends_well();
}

/// Goal: an agent that dies again and again is given up, for whoever watches over the supervisor.
#[test]
fn an_agent_that_cannot_live_is_given_up() {
    let site = supervised();
    let element = site.element(Gateway::Gw2);
    wait("the supervisor to give up", || {
        if element.ended().is_some() {
            return Some(());
        }
        if let Some(agent) = element.children().first() {
            crate::daemon::kill(*agent);
        }
        None
    });
    assert_eq!(
        element.ended().unwrap().code(),
        Some(1),
        "{}",
        element.log()
    );
    assert!(element.log().contains("times at once"), "{}", element.log());
    assert_eq!(site.active().as_deref(), Some("gw1"));
}

#[test]
fn a_supervisor_stops_with_its_agent_and_hands_over_first() {
    let site = supervised();
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    site.wait_owner(Gateway::Gw2);
    assert_eq!(site.virtual_devices(Gateway::Gw1), Vec::<String>::new());
    assert!(!site.has_gate(Gateway::Gw1));
}
