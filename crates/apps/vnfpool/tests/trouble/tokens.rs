//! Enrolment tokens that must not work, and secrets that must not show.

use std::fs;
use std::path::Path;
use std::time::Duration;

use vnfpool_lab::Gateway;

use crate::site::{Said, Site, pool_file};

/// A refused enrolment: it says why, shows no secret, and leaves nothing behind.
fn is_refused(site: &Site, token: &str, why: &str) {
    let said = site.join(Gateway::Gw1, "refused", token);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(why), "{why:?} is not in {said:?}");
    hides(&said, token);
    let directory = site.lab.directory().join("refused");
    assert!(!directory.join("cert.pem").exists());
    let _ = fs::remove_dir_all(directory);
}

fn hides(said: &Said, token: &str) {
    // Any long part of it: its secret is in the middle.
    let secret: String = token.chars().skip(20).take(24).collect();
    assert_eq!(secret.len(), 24);
    let shown = [&said.stdout, &said.stderr]
        .iter()
        .any(|text| text.contains(&secret));
    assert!(!shown, "a secret is shown");
}

fn token(site: &Site, pool: &str, element: &str, ttl: &str) -> String {
    let arguments = ["token", "create", "--pool", pool, "--element", element];
    let text = site.operate(&[&arguments[..], &["--ttl", ttl]].concat());
    text.trim().to_owned()
}

#[test]
fn only_a_fresh_token_of_this_manager_enrols_once() {
    let site = Site::managed();
    for (handle, number) in [("edge", 1), ("other", 2)] {
        let text = pool_file(handle, ["inside", "outside"], number);
        let file = site.write("pool.toml", &text);
        site.operate(&["pool", "apply", "-f", &file]);
    }
    let good = token(&site, "edge", "gw1", "1h");
    let joined = site.join(Gateway::Gw1, "gw1", &good);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    hides(&joined, &good);
    is_refused(&site, &good, "used");

    let short = token(&site, "edge", "gw1", "1s");
    std::thread::sleep(Duration::from_millis(1_200));
    is_refused(&site, &short, "expired");

    let whole = token(&site, "edge", "gw1", "1h");
    is_refused(&site, &whole[..whole.len() - 9], "token");
    let mut changed = whole.clone().into_bytes();
    changed[40] = if changed[40] == b'A' { b'B' } else { b'A' };
    is_refused(&site, &String::from_utf8(changed).unwrap(), "token");
    let unknown = site.refused(&["token", "create", "--pool", "nobody", "--element", "gw1"]);
    assert!(unknown.contains("there is no pool nobody"), "{unknown}");

    // A token of another manager, which this one cannot even be asked about.
    let foreign = Site::managed();
    let file = foreign.write("pool.toml", &pool_file("edge", ["inside", "outside"], 1));
    foreign.operate(&["pool", "apply", "-f", &file]);
    is_refused(&site, &token(&foreign, "edge", "gw1", "1h"), "authority");
    drop(foreign);

    // The certificate of another pool's token does not make an element of this one.
    let other = token(&site, "other", "gw1", "1h");
    let joined = site.join(Gateway::Gw1, "elsewhere", &other);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let file = site.element_file(Gateway::Gw1);
    let file = file.replace(&site.path("gw1\""), &site.path("elsewhere\""));
    let path = site.write("mixed.toml", &file);
    let said = site.program("gw1", &["element", "run", "--config", &path]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let names_both = said.stderr.contains("pool/other/element/gw1")
        && said.stderr.contains("pool/edge/element/gw1");
    assert!(names_both, "{said:?}");

    // The manager says who tried, and never with what.
    let log = site.manager().log();
    for secret in [&good, &short, &whole, &other] {
        assert!(!log.contains(&secret[20..44]));
    }
    keys_are_private(&site.lab.directory().join("gw1"));
    site.ends_well();
}

fn keys_are_private(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let key = fs::metadata(directory.join("key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o077, 0);
}
