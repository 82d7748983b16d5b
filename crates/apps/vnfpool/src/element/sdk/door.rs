//! The socket at which functions come in, and who may.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::net::sockopt::socket_peercred;
use vnfpool_config::Sdk;
use vnfpool_model::Time;

/// The door stays closed for so long after a failure: at first, and at most.
const CLOSED_FOR: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// No connection could be accepted, though one waits: the process has no descriptors left, or the
/// kernel no memory. The door is closed for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed;

/// A listening socket of which failures are not tried again at once: the connection that was not
/// accepted still waits, and the kernel would say so for ever.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    admitted: Admitted,
    rest: Rest,
}

impl Door {
    /// Listens at the socket of the file, which is replaced if another agent left it.
    ///
    /// # Errors
    /// When the socket cannot be made, or something else is in its place.
    pub(super) fn open(config: &Sdk) -> anyhow::Result<Self> {
        Ok(Self {
            listener: listen(config)?,
            path: config.socket.clone(),
            admitted: Admitted {
                uid: config.uid,
                gid: config.gid,
            },
            rest: Rest::default(),
        })
    }

    /// What is readable when somebody comes; none while the door is closed.
    pub(super) fn listener(&self, now: Time) -> Option<BorrowedFd<'_>> {
        self.rest.is_over(now).then_some(self.listener.as_fd())
    }

    /// The next connection, without blocking; none if there is none, or the door is closed.
    ///
    /// # Errors
    /// [`Closed`], each time that the door closes.
    pub(super) fn next(&mut self, now: Time) -> Result<Option<UnixStream>, Closed> {
        if !self.rest.is_over(now) {
            return Ok(None);
        }
        match self.listener.accept() {
            Ok((stream, _)) => {
                if self.rest.succeeded() {
                    tracing::info!("connections are accepted again at the SDK's socket");
                }
                Ok(Some(stream))
            }
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => {
                if self.rest.failed(now) {
                    tracing::error!(
                        %error,
                        "no connection is accepted at the SDK's socket: raise the agent's limit of open \
                         files (LimitNOFILE) if that is the reason; it is tried again"
                    );
                }
                Err(Closed)
            }
        }
    }

    /// Whether the user at the other end may be here.
    pub(super) fn admits(&self, stream: &UnixStream) -> bool {
        self.admitted.admits(stream)
    }

    /// The next agent makes its own.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Nobody waits any more, or whoever comes next is tried at the next look.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}

/// Longer and longer pauses between attempts that fail.
#[derive(Debug, Default)]
struct Rest {
    /// How long the last one is, and when it is over; none since an attempt has succeeded.
    now: Option<(Duration, Time)>,
}

impl Rest {
    fn is_over(&self, now: Time) -> bool {
        self.now.is_none_or(|(_, until)| now >= until)
    }

    /// True for the first of several.
    fn failed(&mut self, now: Time) -> bool {
        let (first, longest) = CLOSED_FOR;
        let before = self.now.map(|(pause, _)| pause);
        let pause = before.map_or(first, |pause| (2 * pause).min(longest));
        self.now = Some((pause, now.after(pause)));
        before.is_none()
    }

    /// True after one that has failed.
    fn succeeded(&mut self) -> bool {
        self.now.take().is_some()
    }
}

fn listen(config: &Sdk) -> anyhow::Result<UnixListener> {
    let path = &config.socket;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    remove_former(path)?;
    // Under another name until it is as it shall be: nobody connects before that.
    let hidden = path.with_extension("new");
    remove_former(&hidden)?;
    let listener = UnixListener::bind(&hidden)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(config.mode))?;
    std::os::unix::fs::chown(&hidden, config.uid, config.gid).context("give it to its owner")?;
    fs::rename(&hidden, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Of an agent that was killed. Anything but a socket is somebody else's.
fn remove_former(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(fs::remove_file(path)?),
        Ok(_) => anyhow::bail!("{} is there and is no socket: remove it", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Who may connect, beside root and the agent's own user.
#[derive(Clone, Copy, Debug)]
struct Admitted {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Admitted {
    fn admits(self, stream: &UnixStream) -> bool {
        let Ok(peer) = socket_peercred(stream) else {
            return false;
        };
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let own = rustix::process::geteuid().as_raw();
        uid == 0 || uid == own || self.uid == Some(uid) || self.gid == Some(gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: failures are told once, and tried less and less often, until one has gone well.
    #[test]
    fn pauses_grow_up_to_a_bound_and_begin_anew() {
        let mut rest = Rest::default();
        let mut now = Time(1);
        assert!(rest.is_over(now));
        let mut pauses = Vec::new();
        for number in 0..9 {
            assert_eq!(rest.failed(now), number == 0);
            let (pause, until) = rest.now.unwrap();
            assert!(!rest.is_over(Time(until.0 - 1)));
            now = now.after(pause);
            assert!(rest.is_over(now));
            pauses.push(pause);
        }
        assert_eq!(pauses[0], CLOSED_FOR.0);
        assert_eq!(pauses[8], CLOSED_FOR.1);
        assert!(pauses.is_sorted());
        assert!(rest.succeeded());
        assert!(!rest.succeeded());
        assert!(rest.is_over(Time(1)));
        assert!(rest.failed(now), "told again");
    }
}
