//! The last of three serves on evidence, and ends when the others come back.

use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{Site, pool_file};

/// Goal: a member that comes back is heard before it can be given the slot (S5, R13). Method:
/// manager and active end, the other serves on evidence; then they come back, and it cannot reach
/// anybody over QUIC, so it has keys for nobody.
#[test]
fn who_serves_on_evidence_hears_a_returned_member_without_keys() {
    let site = Site::managed();
    let mut pool = pool_file("edge", ["inside", "outside"], 1);
    for (vrid, lan) in [("vrid = 11\n", 1), ("vrid = 12\n", 2)] {
        // A host on that LAN which is not of the pool.
        let witness = format!("{vrid}witnesses = [\"10.{lan}.0.10\"]\n");
        pool = pool.replace(vrid, &witness);
    }
    site.create_pool_of(&pool);
    site.start_pool();
    site.manager().kill();
    assert_eq!(site.element(Gateway::Gw1).stop().code(), Some(0));
    wait("gw2 serving on evidence", || {
        (site.metric("gw2", "vnfpool_unconfirmed", "") == 1.0).then_some(())
    });
    site.wait_owner(Gateway::Gw2);
    site.block(Gateway::Gw2, "7400, 7402");
    site.start_manager();
    site.start_element(Gateway::Gw1);
    site.wait_owner(Gateway::Gw1);
    assert_eq!(site.metric("gw2", "vnfpool_unconfirmed", ""), 0.0);
    assert!(!site.is_connected("gw2"));
    // It was told before the new owner announced itself.
    assert!(site.metric("gw2", "vnfpool_datagrams_total", "outcome=\"hello\"") > 0.0);
    site.unblock(Gateway::Gw2);
    site.wait_armed();
    site.talk().goes_on();
    site.ends_well();
}
