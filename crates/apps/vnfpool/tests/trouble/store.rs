//! The manager's disk: full, read-only, well again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vnfpool_lab::Gateway;

use crate::daemon::wait;
use crate::site::{Site, pool_file};

/// A small file system, unmounted also when the test fails.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let status = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mebibytes}m,mode=700"),
                "tmpfs",
            ])
            .arg(path)
            .status();
        assert!(status.unwrap().success());
        Self {
            path: path.to_owned(),
        }
    }

    /// Fills it to the last page.
    fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = fs::File::create(self.path.join("ballast")).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.path.join("ballast")).unwrap();
    }

    /// `ro` or `rw`.
    fn remount(&self, how: &str) -> bool {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{how}")])
            .arg(&self.path)
            .status();
        status.unwrap().success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the manager may still have its file open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn store(site: &Site) -> String {
    site.status()["manager"]["store"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// What is refused while the disk fails, and what goes on.
fn refuses_changes_and_serves(site: &Site, cause: &str) {
    let create = ["token", "create", "--pool", "edge", "--element", "gw1"];
    // A commit may still fit into pages that the file has already.
    let said = wait("a refused change", || {
        let said = site.try_operate(&create);
        (said.code == Some(1)).then_some(said.stderr)
    });
    assert!(said.contains("nothing was changed"), "{said}");
    assert!(said.contains(cause), "{said}");
    let before = site.operate(&["pool", "list", "--json"]);
    let file = site.write("more.toml", &pool_file("more", ["inside", "outside"], 2));
    let said = site.refused(&["pool", "apply", "-f", &file]);
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(site.operate(&["pool", "list", "--json"]), before);
    let health = store(site);
    assert!(
        health.starts_with("failing: ") && health.contains(cause),
        "{health}"
    );
    assert!(site.manager().log().contains("the store fails"));
}

/// Of a disk that is full. The kernel makes a file system read-only only while nobody has a file
/// open for writing; a write that fails closes the store's.
fn make_read_only(site: &Site, disk: &Disk) {
    wait("a read-only file system", || {
        site.try_operate(&["token", "create", "--pool", "edge", "--element", "gw1"]);
        disk.remount("ro").then_some(())
    });
}

fn recovers(site: &Site) {
    // Without anybody asking for a change.
    wait("the store's recovery", || {
        (store(site) == "ok").then_some(())
    });
    site.operate(&["token", "create", "--pool", "edge", "--element", "gw1"]);
    assert_eq!(store(site), "ok");
}

#[test]
fn a_full_or_read_only_disk_refuses_changes_and_the_pool_serves_on() {
    let site = Site::prepared();
    // Dropped first, while the namespaces are still there.
    let disk = Disk::mount(&site.lab.directory().join("manager/store"), 16);
    site.start_all();
    let talk = site.talk();
    assert_eq!(store(&site), "ok");

    disk.fill();
    refuses_changes_and_serves(&site, "the disk is full");
    talk.goes_on();
    // What needs no record on disk is not refused: the pair hands over between itself.
    site.operate(&["switchover", "edge", "--to", "gw2"]);
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    make_read_only(&site, &disk);
    refuses_changes_and_serves(&site, "it is read-only");
    // A pool whose deletion cannot be written down is managed on as if nothing had been.
    let said = site.refused(&["pool", "delete", "edge"]);
    assert!(said.contains("nothing was changed"), "{said}");
    site.wait_armed();
    assert_eq!(site.status()["pools"][0]["closing"], false);
    talk.goes_on();
    assert!(disk.remount("rw"));
    disk.empty();
    recovers(&site);
    talk.goes_on();
    site.wait_active("gw2");
    // Everything is on the disk: another life of the manager knows it.
    site.manager().kill();
    site.start_manager();
    site.wait_armed();
    site.wait_active("gw2");
    talk.goes_on();
    site.ends_well();
}

#[test]
fn a_failover_needs_the_disk_and_happens_once_it_is_back() {
    let site = Site::prepared();
    let disk = Disk::mount(&site.lab.directory().join("manager/store"), 16);
    site.start_all();
    let talk = site.talk();
    disk.fill();
    refuses_changes_and_serves(&site, "the disk is full");
    // What little a vote needs might still fit into the file.
    make_read_only(&site, &disk);
    // The pair is split by two of three, and the third cannot write its vote down.
    site.element(Gateway::Gw1).kill();
    wait("a record that waits for the disk", || {
        let waits = site.metric("manager", "vnfpool_slot_waits_for_disk", "pool=\"edge\"");
        (waits == 1.0).then_some(())
    });
    // The standby voted long since; it must not serve on that. What the active answered before
    // it died may still be in sight for a moment.
    wait("the last answer of the active", || {
        site.observer.owners_now().is_empty().then_some(())
    });
    for _ in 0..10 {
        assert_eq!(site.observer.owners_now(), Vec::<Gateway>::new());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(disk.remount("rw"));
    disk.empty();
    site.wait_owner(Gateway::Gw2);
    talk.goes_on();
    site.wait_active("gw2");
    site.ends_well();
}
