//! Port blocks: what is in the map of the ruleset, whatever happens to agents and rulesets.

use std::fs;

use vnfpool_lab::Gateway::{self, Gw1, Gw2};

use crate::daemon::wait;
use crate::site::{Said, Site, pool_file, run};

/// The pool of the other tests, with blocks of these elements.
fn pool(elements: &str) -> String {
    let file = pool_file("edge", ["inside", "outside"], 1);
    let blocks = format!(
        "port_blocks = {{ map = \"inet gateway vnfpool_main\", elements = [{elements}], \
         blocks_each = 2 }}\n"
    );
    file.replace(
        "preferred = \"gw1\"\n",
        &format!("preferred = \"gw1\"\n{blocks}"),
    )
}

fn nft(site: &Site, gateway: Gateway, arguments: &str) -> Said {
    let mut nft = site.command(gateway.name(), "nft");
    nft.args(arguments.split_whitespace());
    run(nft)
}

/// The verdicts in the map of a gateway.
fn map_of(site: &Site, gateway: Gateway) -> String {
    let text = nft(site, gateway, "list map inet gateway vnfpool_main").stdout;
    let elements = text.split_once("elements = {").map_or("", |(_, rest)| rest);
    elements.split('}').next().unwrap().trim().to_owned()
}

fn wait_block(site: &Site, gateway: Gateway, block: u16) {
    let chain = format!("goto vnfpool_main_{block}");
    let expected = format!("ipv4 : {chain}, ipv6 : {chain}");
    wait(&format!("block {block} in the map of {gateway}"), || {
        (map_of(site, gateway) == expected).then_some(())
    });
}

/// Goal: an element takes its next block after each time that it has served, and only then, by
/// handover and by the death of its agent; another element's blocks are never among them.
/// Method: two elements with two blocks each, 0 and 1, 2 and 3.
#[test]
fn a_block_is_left_when_it_was_used() {
    let site = Site::managed();
    site.create_pool_of(&pool("\"gw1\", \"gw2\""));
    site.start_pool();
    let talk = site.talk();
    let start = |gateway: Gateway| {
        // Who of the two began is left to the pool; the turn is on the disk.
        let path = site
            .lab
            .directory()
            .join(gateway.name())
            .join("blocks/main");
        let word = wait("the turn on the disk", || fs::read_to_string(&path).ok());
        word.trim().trim_end_matches('+').parse::<u16>().unwrap()
    };
    let (one, two) = (start(Gw1), start(Gw2));
    wait_block(&site, Gw1, one % 2);
    wait_block(&site, Gw2, 2 + two % 2);
    let line = format!("gw1 {} (in use), gw2 {}", one % 2, 2 + two % 2);
    wait("the blocks in status", || {
        site.operate(&["status"]).contains(&line).then_some(())
    });
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gw2);
    wait_block(&site, Gw1, (one + 1) % 2);
    wait_block(&site, Gw2, 2 + two % 2);
    talk.goes_on();
    // A standby that begins anew has used nothing.
    site.wait_armed();
    site.element(Gw1).kill();
    site.start_element(Gw1);
    site.wait_armed();
    wait_block(&site, Gw1, (one + 1) % 2);
    // An active that dies has.
    site.element(Gw2).kill();
    site.wait_owner(Gw1);
    site.start_element(Gw2);
    wait_block(&site, Gw2, 2 + (two + 1) % 2);
    wait_block(&site, Gw1, (one + 1) % 2);
    talk.goes_on();
    site.ends_well();
}

/// Goal: a map that somebody empties is filled again; an element whose map or chain is missing
/// cannot serve and says why, and serves again when it is back. Method: `nft` on a gateway that
/// serves.
#[test]
fn the_map_is_kept() {
    let site = Site::managed();
    site.create_pool_of(&pool("\"gw1\", \"gw2\""));
    site.start_pool();
    let before = map_of(&site, Gw1);
    assert_eq!(
        nft(&site, Gw1, "flush map inet gateway vnfpool_main").code,
        Some(0)
    );
    wait("the map as it was", || {
        (map_of(&site, Gw1) == before).then_some(())
    });
    assert_eq!(
        site.active().as_deref(),
        Some("gw1"),
        "nothing has happened"
    );
    for command in [
        "delete table inet gateway",
        "add table inet gateway",
        "add map inet gateway vnfpool_main { type nf_proto : verdict ; }",
    ] {
        assert_eq!(nft(&site, Gw1, command).code, Some(0), "{command}");
    }
    site.wait_owner(Gw2);
    wait("the reason in status", || {
        let status = site.operate(&["status"]);
        let reason = "the nftables map 'vnfpool_main' does not take `goto vnfpool_main_";
        status.contains(reason).then_some(())
    });
    for block in 0..4 {
        let chain = format!("add chain inet gateway vnfpool_main_{block}");
        assert_eq!(nft(&site, Gw1, &chain).code, Some(0));
    }
    site.wait_armed();
    // The manager has it all from its store.
    site.manager().kill();
    site.start_manager();
    wait("the blocks in status", || {
        let line = site.operate(&["status"]);
        line.contains("of 4 port blocks gw1").then_some(())
    });
    site.ends_well();
}

/// Goal: an element without blocks cannot serve; owners can be added, and nothing else changed,
/// while the pool lives. Method: a pool whose list does not have gw2.
#[test]
fn owners_are_added_at_the_end() {
    let site = Site::managed();
    site.create_pool_of(&pool("\"gw1\", \"gw9\""));
    site.start_element(Gw1);
    site.start_element(Gw2);
    site.wait_owner(Gw1);
    wait("the reason in status", || {
        let status = site.operate(&["status"]);
        status
            .contains("add 'gw2' to port_blocks.elements")
            .then_some(())
    });
    let apply = |elements: &str| site.write("pool.toml", &pool(elements));
    for other in ["\"gw1\", \"gw2\"", "\"gw2\", \"gw1\", \"gw9\""] {
        let refused = site.refused(&["pool", "apply", "-f", &apply(other)]);
        assert!(refused.contains("added at the end"), "{refused}");
    }
    site.operate(&["pool", "apply", "-f", &apply("\"gw1\", \"gw9\", \"gw2\"")]);
    wait("a verdict of gw2's own blocks", || {
        // Its ruleset has four blocks, and its own would be 4 and 5.
        site.operate(&["status"])
            .contains("goto vnfpool_main_4")
            .then_some(())
    });
    for block in 4..6 {
        let chain = format!("add chain inet gateway vnfpool_main_{block}");
        assert_eq!(nft(&site, Gw2, &chain).code, Some(0));
    }
    wait_block(&site, Gw2, 4);
    site.wait_armed();
    site.ends_well();
}
