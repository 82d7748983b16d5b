//! A function that cannot be drained: the handover goes on, and the operator hears what that cost.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use rustix::process::Signal;
use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::wait;
use crate::site::Site;

/// Agents whose function has a control socket where nobody listens.
fn start_agent(site: &Site, gateway: Gateway) {
    start_agent_with(site, gateway, "nobody.sock", 1);
}

/// Agents whose function has this control socket, and drains for so long.
fn start_agent_with(site: &Site, gateway: Gateway, socket: &str, time_ms: u32) {
    let drain = format!(
        "[drain]\nsocket = \"{}\"\nbegin = \"drain\"\nend = \"go on\"\ntime_ms = {time_ms}\n",
        site.path(socket)
    );
    let text = format!("{}\n{drain}", site.element_file(gateway));
    site.start_element_of(gateway, &text);
}

fn wait_event(site: &Site, kind: &str, about: &str) {
    wait(kind, || {
        let log = site.manager().log();
        let mut lines = log.lines();
        let is_it = |line: &str| line.contains(kind) && line.contains(about);
        lines.any(is_it).then_some(())
    });
}

/// Goal: a switchover and a clean stop go on without the function, and both failures are events of the
/// manager, in `status` and counted. The stop's have to be told while the agent ends.
#[test]
fn a_handover_of_a_function_that_cannot_be_drained_is_told_to_the_operator() {
    let site = Site::managed();
    site.create_pool();
    start_agent(&site, Gw1);
    site.wait_owner(Gw1);
    start_agent(&site, Gw2);
    site.wait_armed();
    assert!(!site.operate(&["status"]).contains("CUT"));
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gw2);
    wait_event(&site, "drain-failed", "gw1");
    wait_event(&site, "drain-not-ended", "gw1");
    wait("the failures in status", || {
        let said = site.operate(&["status"]);
        (said.contains("in flight CUT") && said.contains("MAY GO ON DRAINING")).then_some(())
    });
    for step in ["begin", "end"] {
        let label = format!("step=\"{step}\"");
        assert_eq!(
            site.metric("gw1", "vnfpool_drain_failures_total", &label),
            1.0
        );
    }

    site.wait_armed();
    assert_eq!(site.element(Gw2).stop().code(), Some(0));
    site.wait_owner(Gw1);
    for kind in ["drain-failed", "drain-not-ended"] {
        wait_event(&site, kind, "gw2");
    }
    site.ends_well();
}

/// What a function hears at its control socket; it takes every line.
fn start_function(site: &Site, socket: &str) -> mpsc::Receiver<String> {
    let listener = UnixListener::bind(site.path(socket)).unwrap();
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap())
                .read_line(&mut line)
                .unwrap();
            if told.send(line.trim().to_owned()).is_err() {
                return;
            }
        }
    });
    heard
}

/// Goal: an agent that stops drains its function once, whatever the manager asks for meanwhile, and
/// says that nobody can count on it any more once it has handed over. Method: a switchover is asked for
/// in the middle of the drain.
#[test]
fn a_stop_is_one_drain_and_the_last_that_an_agent_does() {
    let site = Site::managed();
    site.create_pool();
    let heard = start_function(&site, "function.sock");
    start_agent_with(&site, Gw1, "function.sock", 3_000);
    site.wait_owner(Gw1);
    start_agent(&site, Gw2);
    site.wait_armed();
    site.element(Gw1).signal(Signal::TERM);
    assert_eq!(heard.recv().unwrap(), "drain");
    assert_eq!(site.active().as_deref(), Some("gw1"));
    assert!(
        !site.manager().log().contains("the agent stops"),
        "too early"
    );
    let said = site.refused(&["switchover", "edge", "--to", "gw2"]);
    assert!(said.contains("hands its slots over by itself"), "{said}");
    site.wait_owner(Gw2);
    assert_eq!(site.element(Gw1).wait_end().code(), Some(0));
    assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["go on"]);
    wait_event(&site, "unable", "the agent stops");
    site.ends_well();
}
