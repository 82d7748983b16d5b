//! The directory on a BPF file system that keeps the gate alive without its process.
//!
//! Pins must outlive the agent, so the file system has to be mounted in a mount namespace that
//! does. `ip netns exec`, for one, gives its command a mount namespace of its own with a fresh
//! `/sys`, and a BPF file system mounted in there would vanish together with a killed agent. So
//! the directory is looked up (and the file system mounted, if nobody has) in the mount namespace
//! of process 1, and reached from here through its descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstatfs, open, statfs};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
const USUAL_MOUNT: &str = "/sys/fs/bpf";
/// Deeper trees of processes than this are not looked through.
const ANCESTORS_MAX: usize = 64;

/// Where the gate of `instance` is pinned unless its operator says otherwise.
///
/// The BPF file system reserves dots in names, so a dot is written as `+`, which no name has.
#[must_use]
pub fn default_pin_dir(instance: &str) -> PathBuf {
    Path::new(USUAL_MOUNT)
        .join("vnfpool")
        .join(instance.replace('.', "+"))
}

/// Why a directory cannot hold the gate's pins.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PinDirError {
    /// Not an absolute path, or a dot in a name.
    #[error("'{}' cannot hold BPF pins: give an absolute path without dots in its names", path.display())]
    Name {
        /// The path.
        path: PathBuf,
    },
    /// Another process holds the gate.
    #[error("the gate in '{}' belongs to another running process: stop it first", path.display())]
    Busy {
        /// The path.
        path: PathBuf,
    },
    /// This mount namespace ends with this process, and that of process 1 is out of reach.
    #[error(
        "'{}' is on no BPF file system and one mounted here would not outlive this process: \
         run 'mount -t bpf bpf /sys/fs/bpf' on the host or add CAP_SYS_ADMIN", path.display()
    )]
    NotPersistent {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot {action} '{}'", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An open, locked directory on a BPF file system.
#[derive(Debug)]
pub(crate) struct PinDir {
    directory: OwnedFd,
    path: PathBuf,
}

impl PinDir {
    /// Opens `path`, creating it and mounting a BPF file system if need be, and locks it against
    /// other processes.
    pub(crate) fn prepare(path: &Path) -> Result<Self, PinDirError> {
        let has_dot = |part: &OsStr| part.as_encoded_bytes().contains(&b'.');
        if !path.is_absolute() || path.iter().any(has_dot) {
            return Err(PinDirError::Name { path: path.into() });
        }
        let pins = Self {
            directory: open_at_home(path)?,
            path: path.into(),
        };
        match flock(&pins.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(pins),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(PinDirError::Busy { path: path.into() }),
            Err(errno) => Err(pins.error("lock", "", errno.into())),
        }
    }

    /// The path of a pin, valid in this process whatever its mount namespace.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.directory.as_raw_fd().to_string())
            .join(name)
    }

    /// The names of everything pinned here.
    pub(crate) fn names(&self) -> Result<Vec<OsString>, PinDirError> {
        let entries = fs::read_dir(self.pin(""));
        entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
            .map_err(|source| self.error("list", "", source))
    }

    /// Gives the pin `from` the name `to`; an object that had this name loses it.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), PinDirError> {
        fs::rename(self.pin(from), self.pin(to))
            .map_err(|source| self.error("replace the pin", to, source))
    }

    /// Removes a pin; one that is not there is fine.
    pub(crate) fn unpin(&self, name: &str) -> Result<(), PinDirError> {
        match fs::remove_file(self.pin(name)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.error("remove the pin", name, source))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directory itself, which must be empty by now.
    pub(crate) fn remove(&self) -> Result<(), PinDirError> {
        let parent = self.pin("..");
        let name = self.path.file_name().unwrap_or_default();
        fs::remove_dir(parent.join(name)).map_err(|source| self.error("remove", "", source))
    }

    /// The directory as its operator named it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, action: &'static str, name: &str, source: io::Error) -> PinDirError {
        PinDirError::Io {
            action,
            path: self.path.join(name),
            source,
        }
    }
}

/// Opens the directory in a mount namespace that outlives this process.
fn open_at_home(path: &Path) -> Result<OwnedFd, PinDirError> {
    let home = Home::find();
    if home.is_here {
        return open_mounting(path);
    }
    // A thread of its own: entering a mount namespace changes the thread's root and directory.
    let entered = thread::scope(|scope| {
        scope
            .spawn(|| home.enter().map(|()| open_mounting(path)))
            .join()
    });
    match entered {
        Ok(Ok(opened)) => opened,
        // Not permitted: a BPF file system that somebody else mounted here is as good.
        _ if is_bpffs(nearest_existing(path)) => open_mounting(path),
        _ => Err(PinDirError::NotPersistent { path: path.into() }),
    }
}

/// The mount namespace that lasts: that of process 1, or of the farthest ancestor that we may
/// look at when process 1 has privileges that we have not.
struct Home {
    namespace: PathBuf,
    is_here: bool,
}

impl Home {
    fn find() -> Self {
        let path = |process: &str| PathBuf::from(format!("/proc/{process}/ns/mnt"));
        let mut namespace = path("self");
        let own = fs::read_link(&namespace).ok();
        let mut found = own.clone();
        let mut process = "self".to_owned();
        for _ in 0..ANCESTORS_MAX {
            let Some(parent) = parent_of(&process) else {
                break;
            };
            if let Ok(theirs) = fs::read_link(path(&parent)) {
                found = Some(theirs);
                namespace = path(&parent);
            }
            process = parent;
        }
        Self {
            namespace,
            is_here: found == own,
        }
    }

    /// Moves this thread there.
    fn enter(&self) -> io::Result<()> {
        let namespace = File::open(&self.namespace)?;
        leave_shared_file_system_state()?;
        let kind = Some(LinkNameSpaceType::Mount);
        Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
    }
}

/// The process that started another, from `/proc`; none for process 1.
fn parent_of(process: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    let parent = parent.trim();
    (parent != "0").then(|| parent.to_owned())
}

#[expect(unsafe_code, reason = "unshare can take a thread's descriptors away")]
fn leave_shared_file_system_state() -> io::Result<()> {
    // SAFETY: only root and working directory get separate ones, descriptors stay shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?)
}

fn open_mounting(path: &Path) -> Result<OwnedFd, PinDirError> {
    let failed = |action| {
        move |source| PinDirError::Io {
            action,
            path: path.into(),
            source,
        }
    };
    if !is_bpffs(nearest_existing(path)) {
        mount_for(path).map_err(failed("mount a BPF file system for"))?;
    }
    fs::create_dir_all(path).map_err(failed("create the directory"))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(path, flags, Mode::empty())
        .map_err(io::Error::from)
        .map_err(failed("open the directory"))?;
    match fstatfs(&directory) {
        Ok(found) if found.f_type == BPF_FS_MAGIC => Ok(directory),
        _ => Err(PinDirError::NotPersistent { path: path.into() }),
    }
}

/// Mounts a BPF file system at its usual place, or just above a directory that is elsewhere.
fn mount_for(path: &Path) -> io::Result<()> {
    let target = if path.starts_with(USUAL_MOUNT) {
        Path::new(USUAL_MOUNT)
    } else {
        path.parent().unwrap_or(path)
    };
    fs::create_dir_all(target)?;
    // Two agents that start at once must not mount one over the other's pins.
    let lock = File::open(target.parent().unwrap_or(target))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    if is_bpffs(target) {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("bpf", target, "bpf", flags, Some(c"mode=0700"))?)
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(path)
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.f_type == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_directories_have_no_dots() {
        let pins = default_pin_dir("edge.gw-1");
        assert_eq!(pins, Path::new("/sys/fs/bpf/vnfpool/edge+gw-1"));
        for bad in ["/sys/fs/bpf/a.b", "sys/fs/bpf/a", "/sys/fs/bpf/../x"] {
            assert!(
                matches!(
                    PinDir::prepare(Path::new(bad)),
                    Err(PinDirError::Name { .. })
                ),
                "{bad}"
            );
        }
    }
}
