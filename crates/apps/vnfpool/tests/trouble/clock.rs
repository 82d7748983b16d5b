//! Wall clocks that jump. Succession goes by clocks that do not; only what people read, and how
//! long tokens and certificates are good for, goes by the wall clock.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use vnfpool_lab::Gateway;

use crate::daemon::{Daemon, wait};
use crate::site::Site;

const HOUR_S: i64 = 3_600;

/// Debian's library that shows a program another wall clock than the kernel's.
fn faketime() -> PathBuf {
    let directories = fs::read_dir("/usr/lib").unwrap().flatten();
    let mut candidates = directories.map(|d| d.path().join("faketime/libfaketimeMT.so.1"));
    let found = candidates.find(|path| path.exists());
    found.expect("the library is there: install Debian's package libfaketime")
}

/// A site whose daemons each have a wall clock of their own, that is right for now.
fn with_clocks(site: &Site) {
    for host in ["manager", "gw1", "gw2"] {
        step(site, host, 0);
    }
    let preload = faketime().display().to_string();
    site.environment.borrow_mut().extend(
        [
            ("LD_PRELOAD", preload),
            ("FAKETIME_TIMESTAMP_FILE", site.path("clock-{host}")),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // The kernel's other clocks stay what they are.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
}

/// Sets the wall clock of a host's programs, so many seconds before or after the right time.
fn step(site: &Site, host: &str, seconds: i64) {
    let file = site.lab.directory().join(format!("clock-{host}"));
    // Whole at once: it is read at any moment.
    let new = file.with_extension("new");
    fs::write(&new, format!("{seconds:+}\n")).unwrap();
    fs::rename(new, file).unwrap();
}

/// How far a daemon's wall clock was off when it last said something, to half an hour.
fn off_by_hours(daemon: &Daemon) -> i64 {
    let log = daemon.log();
    let last = log.lines().last().unwrap();
    let said: Timestamp = last.split_whitespace().next().unwrap().parse().unwrap();
    let off_s = said.as_second() - Timestamp::now().as_second();
    (off_s + off_s.signum() * HOUR_S / 2) / HOUR_S
}

#[test]
fn clocks_that_jump_an_hour_change_nothing() {
    let site = Site::prepared();
    with_clocks(&site);
    site.start_all();
    let talk = site.talk();

    let both = [Gateway::Gw1, Gateway::Gw2];
    for [manager, gw1, gw2] in [[1, -1, 1], [-1, 1, -1], [0, 0, 1]] {
        site.changes_nothing(|| {
            // From what is right, also if this is done again.
            for off in [0, HOUR_S] {
                step(&site, "manager", manager * off);
                step(&site, "gw1", gw1 * off);
                step(&site, "gw2", gw2 * off);
                // Time for what would happen: many leases.
                for _ in 0..25 {
                    talk.goes_on();
                    std::thread::sleep(Duration::from_millis(40));
                }
            }
        });
        site.wait_first();
        // A planned change is as good as ever, and makes everybody say something.
        for to in [Gateway::Gw2, Gateway::Gw1] {
            site.operate(&["switchover", "edge", "--to", to.name()]);
            site.wait_owner(to);
            site.wait_armed();
        }
        assert_eq!(off_by_hours(&site.manager()), manager);
        for (gateway, off) in both.into_iter().zip([gw1, gw2]) {
            assert_eq!(off_by_hours(&site.element(gateway)), off, "{gateway}");
        }
        talk.goes_on();
        assert!(both.iter().all(|g| site.is_connected(g.name())));
    }
    site.ends_well();
}

/// Who starts in the past, or in the future of the others, is let in: certificates are good for a
/// while before they were made, and lives are counted.
#[test]
fn lives_that_start_an_hour_off_are_let_in() {
    let site = Site::prepared();
    with_clocks(&site);
    site.start_all();
    let talk = site.talk();
    for (host, off) in [("gw2", -1), ("gw2", 1), ("gw2", -1), ("manager", -1)] {
        step(&site, host, off * HOUR_S);
        if host == "manager" {
            site.manager().kill();
            site.start_manager();
        } else {
            site.element(Gateway::Gw2).kill();
            site.start_element(Gateway::Gw2);
        }
        // What the manager knows may still be of the life before.
        wait("the word of a life with another clock", || {
            let said = match host {
                "manager" => off_by_hours(&site.manager()),
                _ => off_by_hours(&site.element(Gateway::Gw2)),
            };
            (said == off).then_some(())
        });
        for gateway in Gateway::BOTH {
            wait("both at the manager", || {
                site.is_connected(gateway.name()).then_some(())
            });
        }
        site.wait_armed();
        talk.goes_on();
    }
    assert_eq!(site.active().as_deref(), Some("gw1"));
    site.ends_well();
}
