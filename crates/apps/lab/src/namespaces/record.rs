//! What a laboratory has made, written down, so that the next run can clean up after an
//! interrupted one: `/run/vnfpool-lab/<id>.json` and the directory `/run/vnfpool-lab/<id>/`.
//!
//! Only what a record names is ever removed, and a process only while its start time is still
//! the recorded one: a process number that somebody else has got since is left alone.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::command;

const ROOT: &str = "/run/vnfpool-lab";
const SCRATCH_PREFIX: &str = "/var/tmp/vnfpool-lab-";
/// Where elements pin their gates.
const PIN_ROOT: &str = "/sys/fs/bpf/vnfpool";

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct ProcessMark {
    pub(crate) pid: i32,
    /// In clock ticks after boot, field 22 of `/proc/<pid>/stat`.
    pub(crate) started: u64,
    pub(crate) what: String,
}

impl ProcessMark {
    /// Marks a running process; `None` when it is gone already.
    pub(crate) fn of(pid: i32, what: &str) -> Option<Self> {
        let started = start_time(pid)?;
        Some(Self {
            pid,
            started,
            what: what.to_owned(),
        })
    }

    /// Whether exactly this process still runs (a zombie does not).
    pub(crate) fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.started)
    }

    /// Everything that this process has started, directly or not, and that still has its parent.
    pub(crate) fn descendants(&self) -> Vec<Self> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let numbers = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in numbers {
            if let Some(parent) = parent_of(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut found = Vec::new();
        let mut open = vec![self.pid];
        while let Some(pid) = open.pop() {
            for child in children.remove(&pid).unwrap_or_default() {
                open.push(child);
                found.extend(Self::of(child, "descendant"));
            }
        }
        found
    }

    /// Sends a signal, if it is still exactly this process.
    pub(crate) fn signal(&self, signal: Signal) {
        if let (true, Some(pid)) = (self.is_alive(), Pid::from_raw(self.pid)) {
            // It may end between the look and the signal; then there is nothing left to signal.
            let _gone = kill_process(pid, signal);
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) owner: ProcessMark,
    /// Left up on purpose, by `--keep`.
    pub(crate) kept: bool,
    pub(crate) namespaces: Vec<String>,
    pub(crate) processes: Vec<ProcessMark>,
    /// Directories of pinned BPF objects, which outlive a killed element by design.
    #[serde(default)]
    pub(crate) pins: Vec<PathBuf>,
    /// Directories on the machine's disk.
    #[serde(default)]
    pub(crate) scratch: Vec<PathBuf>,
    /// Everything has been removed: nothing is written down any more.
    #[serde(skip)]
    pub(crate) is_over: bool,
}

impl Record {
    /// The laboratory's directory for configurations, keys and logs.
    pub(crate) fn directory(id: &str) -> PathBuf {
        Path::new(ROOT).join(id)
    }

    /// The laboratory's directory on the machine's disk.
    pub(crate) fn scratch(id: &str) -> PathBuf {
        PathBuf::from(format!("{SCRATCH_PREFIX}{id}"))
    }

    pub(crate) fn save(&self) -> Result<()> {
        fs::create_dir_all(ROOT).with_context(|| format!("making {ROOT}"))?;
        let path = Self::path(&self.id);
        let fresh = path.with_extension("new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&fresh, &path))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Notes where a process has pinned BPF objects: the directory that it holds open.
    pub(crate) fn note_pins(&mut self, process: &ProcessMark) -> Result<()> {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else {
            return Ok(());
        };
        let open = descriptors
            .flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok());
        let pins = open.filter(|path| path.starts_with(PIN_ROOT));
        let new: Vec<_> = pins.filter(|path| !self.pins.contains(path)).collect();
        if new.is_empty() || self.is_over {
            return Ok(());
        }
        self.pins.extend(new);
        self.save()
    }

    /// Removes everything the record names, and then the record.
    pub(crate) fn remove_all(&self) -> Result<()> {
        // A process that is not ours any more has no descendants of ours either.
        let alive = self.processes.iter().filter(|process| process.is_alive());
        let all = alive.flat_map(|process| {
            let descendants = process.descendants();
            std::iter::once(process.clone()).chain(descendants)
        });
        for process in all.collect::<Vec<_>>() {
            process.signal(Signal::KILL);
            // A stopped process dies only when it may run again.
            process.signal(Signal::CONT);
        }
        let present: Vec<&String> = self
            .namespaces
            .iter()
            .filter(|name| Path::new("/run/netns").join(name).exists())
            .collect();
        if !present.is_empty() {
            let batch: String = present
                .iter()
                .map(|name| format!("netns del {name}\n"))
                .collect();
            command::run("ip", &["-force", "-batch", "-"], &batch)
                .context("removing the laboratory's namespaces")?;
        }
        for pins in self.pins.iter().filter(|pins| pins.starts_with(PIN_ROOT)) {
            remove_pins(pins).with_context(|| format!("removing {}", pins.display()))?;
        }
        let directory = Self::directory(&self.id);
        unmount_below(&directory)?;
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("removing {}", directory.display()))?;
        }
        let is_ours = |path: &&PathBuf| **path == Self::scratch(&self.id) && path.exists();
        for scratch in self.scratch.iter().filter(is_ours) {
            fs::remove_dir_all(scratch)
                .with_context(|| format!("removing {}", scratch.display()))?;
        }
        let path = Self::path(&self.id);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
    }

    /// The records of laboratories whose owner has ended.
    pub(crate) fn stale() -> Vec<Self> {
        let Ok(entries) = fs::read_dir(ROOT) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "json"))
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|text| serde_json::from_slice::<Self>(&text).ok())
            .filter(|record| !record.owner.is_alive())
            .collect()
    }

    fn path(id: &str) -> PathBuf {
        Path::new(ROOT).join(format!("{id}.json"))
    }
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

/// Unmounts what is mounted below a laboratory's directory, such as a small disk for a store.
fn unmount_below(directory: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    // The fifth field is where; later mounts may lie below earlier ones.
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
        .filter(|point| point.starts_with(directory));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        // A killed process may hold a file there open for a moment longer.
        unmount(point, UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}

/// Removes a directory of pins; the BPF file system has no subtrees worth walking.
fn remove_pins(directory: &Path) -> std::io::Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

/// The start time of a process that is neither gone nor a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets and may hold anything, brackets too.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first(), Some(&"Z" | &"X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_one_process_only() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mark = ProcessMark::of(own, "test").unwrap();
        assert!(mark.is_alive());
        let another_life = ProcessMark {
            started: mark.started + 1,
            ..mark
        };
        assert!(!another_life.is_alive());
    }

    #[test]
    fn an_ended_process_is_not_alive_even_as_a_zombie() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let mark = ProcessMark::of(i32::try_from(child.id()).unwrap(), "sleep").unwrap();
        assert!(mark.is_alive());
        mark.signal(Signal::KILL);
        while mark.is_alive() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
