//! A laboratory leaves nothing behind: not when it ends, and not when it is killed (needs root).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use vnfpool_lab::Lab;

fn namespaces_of(id: &str) -> Vec<String> {
    std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(&format!("{id}-")))
        .collect()
}

fn record_of(id: &str) -> String {
    format!("/run/vnfpool-lab/{id}.json")
}

#[test]
fn a_laboratory_that_ends_is_gone() {
    let lab = Lab::build().unwrap();
    let id = lab.id().to_owned();
    assert_eq!(namespaces_of(&id).len(), 7);
    assert!(Path::new(&record_of(&id)).exists());
    drop(lab);
    assert_eq!(namespaces_of(&id), Vec::<String>::new());
    assert!(!Path::new(&record_of(&id)).exists());
    assert!(!Path::new("/run/vnfpool-lab").join(&id).exists());
}

#[test]
#[ignore = "not a test: the victim of the next one, in a process that can be killed"]
fn victim() {
    let lab = Lab::build().unwrap();
    // As a test with a disk of its own does.
    let disk = lab.directory().join("disk");
    std::fs::create_dir(&disk).unwrap();
    mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), None).unwrap();
    std::fs::write(disk.join("READY"), "").unwrap();
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_killed_one_is_cleaned_by_the_next_and_a_living_one_is_not() {
    let living = Lab::build().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let id = format!("vp{}", victim.id());
    let give_up = Instant::now() + Duration::from_secs(30);
    let directory = Path::new("/run/vnfpool-lab").join(&id);
    while !directory.join("disk/READY").exists() && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(20));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_eq!(
        namespaces_of(&id).len(),
        7,
        "the victim was killed with its laboratory up"
    );

    let removed = Lab::clean_stale(false).unwrap();
    // Another test process may have been quicker; what counts is what is there afterwards.
    assert!(removed.iter().all(|stale| stale.id != living.id()));
    assert_eq!(namespaces_of(&id), Vec::<String>::new());
    assert!(!Path::new(&record_of(&id)).exists());
    assert!(!directory.exists());
    assert_eq!(namespaces_of(living.id()).len(), 7);
}
