//! What operators get wrong, against the real manager.

use crate::site::{Site, pool_file};

#[test]
fn pools_that_overlap_are_refused_with_both_named() {
    let site = Site::managed();
    let lans = ["inside", "outside"];
    let first = site.write("edge.toml", &pool_file("edge", lans, 1));
    site.operate(&["pool", "apply", "-f", &first]);

    // Another pool with the same addresses and routers, with only the same routers, and on other
    // LANs with the same addresses.
    let same = pool_file("twin", lans, 1);
    let routers = same.replace(".254/24", ".77/24");
    let addresses = pool_file("twin", ["dmz", "wan"], 1);
    for (text, shared) in [
        (&same, "10.1.0.254"),
        (&routers, "11"),
        (&addresses, "10.1.0.254"),
    ] {
        let file = site.write("twin.toml", text);
        let said = site.refused(&["pool", "apply", "-f", &file]);
        let names_both = said.contains("edge") && said.contains("twin");
        assert!(names_both && said.contains(shared), "{said}");
        // The same is found without a manager.
        let checked = site.program("manager", &["check", &first, &file]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        let said = checked.stdout + &checked.stderr;
        assert!(said.contains(shared), "{said}");
    }
    let pools = site.operate(&["pool", "list", "--json"]);
    assert!(pools.contains("edge") && !pools.contains("twin"), "{pools}");

    let beside = site.write("twin.toml", &pool_file("twin", lans, 2));
    site.operate(&["pool", "apply", "-f", &beside]);
    site.ends_well();
}

#[test]
fn a_malformed_pool_file_is_refused_with_line_and_column() {
    let site = Site::managed();
    let good = pool_file("edge", ["inside", "outside"], 1);
    let broken = [
        (good.replace("[pool]", "[pool"), "bad.toml:1:", ""),
        (
            good.replace("vrid = 11", "vrid = 300"),
            "bad.toml:12:8",
            "255",
        ),
        (
            good.replace("preferred", "prefered"),
            "bad.toml:7:1",
            "preferred",
        ),
        (
            good.replace("handle = \"edge\"\n", ""),
            "bad.toml:1:",
            "handle",
        ),
        (
            good.replace("/24", "/33"),
            "bad.toml:10:11",
            "10.1.0.254/33",
        ),
    ];
    for (text, place, expected) in broken {
        assert_ne!(text, good);
        let file = site.write("bad.toml", &text);
        let said = site.refused(&["pool", "apply", "-f", &file]);
        assert!(said.contains(place) && said.contains(expected), "{said}");
    }
    let binary = site.path("binary.toml");
    std::fs::write(&binary, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    let said = site.refused(&["pool", "apply", "-f", &binary]);
    assert!(said.contains("binary.toml"), "{said}");
    let said = site.refused(&["pool", "apply", "-f", "/nowhere/pool.toml"]);
    assert!(said.contains("/nowhere/pool.toml"), "{said}");
    assert_eq!(site.operate(&["pool", "list", "--json"]).trim(), "[]");
}

/// Goal: a switchover right behind another one is asked of who serves by then, and `status` says who
/// that is. A machine that stands still may leave the slot without a standby for a moment, which is
/// another refusal.
#[test]
fn switchovers_can_follow_one_another() {
    let site = Site::serving();
    let mut done = 0;
    for _ in 0..12 {
        let said = site.try_operate(&["switchover", "edge", "--json"]);
        assert!(!said.stderr.contains("does not serve"), "{said:?}");
        if said.code != Some(0) {
            site.wait_armed();
            continue;
        }
        done += 1;
        let switched: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        assert!(switched["active"].is_string(), "{said:?}");
    }
    assert!(done > 1, "{done}");
    site.ends_well();
}
