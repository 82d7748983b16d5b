//! A management LAN with IPv6 only.

use vnfpool_lab::Gateway;

use crate::site::{Site, run};

/// Goal: everything between manager and elements goes over IPv6 as well. Method: the manager has
/// an IPv6 address only, and so has the elements' path to it; then the active dies.
#[test]
fn a_manager_is_reached_over_ipv6() {
    let site = Site::prepared_at("fd00:9::10".parse().unwrap());
    for (host, address) in [
        ("manager", "fd00:9::10/64"),
        ("gw1", "fd00:9::11/64"),
        ("gw2", "fd00:9::12/64"),
    ] {
        let mut ip = site.command(host, "ip");
        ip.args(["address", "add", address, "dev", "mgmt", "nodad"]);
        assert_eq!(run(ip).code, Some(0));
    }
    site.start_manager();
    site.create_pool();
    let [gw1, _gw2] = Gateway::BOTH.map(|gateway| {
        let text = site.element_file(gateway);
        let text = text.replace("\"10.9.0.1", "\"fd00:9::1");
        let file = site.write(&format!("{gateway}.toml"), &text);
        site.start_with(gateway, &file, &format!("{gateway}.log"))
    });
    site.wait_first();
    let talk = site.talk();
    gw1.kill();
    site.wait_owner(Gateway::Gw2);
    site.wait_active("gw2");
    talk.goes_on();
    site.ends_well();
}
