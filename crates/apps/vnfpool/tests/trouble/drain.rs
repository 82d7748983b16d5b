//! A function that cannot be drained: the handover goes on, and the operator hears what that cost.

use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::wait;
use crate::site::Site;

/// Agents whose function has a control socket where nobody listens.
fn start_agent(site: &Site, gateway: Gateway) {
    let drain = format!(
        "[drain]\nsocket = \"{}\"\nbegin = \"drain\"\nend = \"go on\"\ntime_ms = 1\n",
        site.path("nobody.sock")
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
