//! What the operator's hooks hear of.

use std::fs;
use std::path::PathBuf;

use vnfpool_lab::Gateway::{Gw1, Gw2};

use crate::daemon::wait;
use crate::site::Site;

/// Gives the elements of a site hooks; where those of gw1 write what they hear.
fn with_hooks(site: &Site) -> (String, PathBuf) {
    let told = site.path("told");
    let script = format!("echo $VNFPOOL_SLOT $VNFPOOL_ROLE $VNFPOOL_REASON >> {told}");
    let text = format!(
        "{}\n[hooks]\non_active = [\"sh\", \"-c\", \"{script}\"]\n\
         on_standby = [\"sh\", \"-c\", \"{script}\"]\n",
        site.element_file(Gw1)
    );
    (site.write("hooked.toml", &text), told.into())
}

/// Goal: what `on_active` has switched on is neither switched on again nor left on. Method: a
/// standby comes, dies and comes again, which are three records; then the slot is removed.
#[test]
fn hooks_hear_of_changes_of_role_and_of_the_end() {
    let site = Site::enrolled();
    let (file, told) = with_hooks(&site);
    let gw1 = site.start_with(Gw1, &file, "gw1.log");
    site.wait_owner(Gw1);
    for _ in 0..2 {
        site.start_element(Gw2);
        site.wait_armed();
        site.element(Gw2).kill();
        wait("the standby's end in the record", || {
            (site.slot()?["armed"] == false).then_some(())
        });
    }
    site.start_element(Gw2);
    site.wait_armed();
    let heard = || fs::read_to_string(&told).unwrap_or_default();
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gw2);
    site.operate(&["switchover", "edge", "--to", "gw1"]);
    site.wait_owner(Gw1);
    site.operate(&["pool", "delete", "edge"]);
    wait("the last hook", || {
        heard().contains("removed").then_some(())
    });
    let heard = heard();
    let roles: Vec<_> = heard
        .lines()
        .map(|l| l.split(' ').nth(1).unwrap())
        .collect();
    // Others may have come in between, on a machine that stands still for a moment.
    assert!(roles.windows(2).all(|pair| pair[0] != pair[1]), "{heard}");
    for part in [
        "main active record\n",
        "main standby handover\nmain active handover\n",
    ] {
        assert!(heard.contains(part), "{heard}");
    }
    assert!(heard.ends_with("main spare removed\n"), "{heard}");
    assert_eq!(gw1.ended(), None);
    site.ends_well();
}

/// Goal: an agent that stops without a successor has its hooks told before it has ended.
#[test]
fn hooks_hear_of_the_end_of_the_agent() {
    let site = Site::enrolled();
    let (file, told) = with_hooks(&site);
    let gw1 = site.start_with(Gw1, &file, "gw1.log");
    site.wait_owner(Gw1);
    assert_eq!(gw1.stop().code(), Some(0));
    let heard = fs::read_to_string(told).unwrap();
    assert_eq!(heard, "main active record\nmain spare stopped\n");
    site.ends_well();
}
