//! Whether the network function on this machine can work: what the kernel says about it, whether
//! its process lives, and a probe through it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::control_socket::{self, ControlSocketError};
use crate::netlink::{self, Body, Question};
use crate::sysctl::{Family, SysctlError};

/// Whether the kernel forwards packets of a family between interfaces: looked at again and again, in
/// the network namespace of the thread that looks first.
#[derive(Debug)]
pub struct Forwarding {
    path: &'static Path,
    setting: Option<File>,
}

impl Forwarding {
    /// Of `family`; nothing is looked at yet.
    #[must_use]
    pub fn of(family: Family) -> Self {
        let path = match family {
            Family::V4 => "/proc/sys/net/ipv4/ip_forward",
            Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        };
        Self {
            path: Path::new(path),
            setting: None,
        }
    }

    /// Whether it does now.
    ///
    /// # Errors
    /// The setting could not be read; a machine without IPv6 simply does not forward it.
    pub fn is_on(&mut self) -> Result<bool, SysctlError> {
        match self.look() {
            Ok(is_on) => Ok(is_on),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                self.setting = None;
                Err(SysctlError {
                    action: "read",
                    path: self.path.into(),
                    source,
                })
            }
        }
    }

    fn look(&mut self) -> io::Result<bool> {
        let setting = match self.setting.take() {
            Some(setting) => setting,
            None => File::open(self.path)?,
        };
        let mut value = [0; 1];
        let read = setting.read_at(&mut value, 0)?;
        self.setting = Some(setting);
        Ok(value.get(..read) == Some(b"1"))
    }
}

/// A family of nftables tables, as `nft` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableFamily {
    /// `inet`.
    Inet,
    /// `ip`.
    Ip,
    /// `ip6`.
    Ip6,
    /// `arp`.
    Arp,
    /// `bridge`.
    Bridge,
    /// `netdev`.
    Netdev,
}

impl TableFamily {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }
}

/// The kernel would not say whether an nftables table exists.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot ask the kernel for the nftables table '{table}': CAP_NET_ADMIN and nf_tables are needed"
)]
#[non_exhaustive]
pub struct TableError {
    /// The table.
    pub table: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Whether there is an nftables table of some name, which an operator's ruleset would have: asked
/// again and again, in the network namespace of the thread that asks first.
#[derive(Debug)]
pub struct TableQuestion {
    table: String,
    question: Question,
}

impl TableQuestion {
    /// For the table of this family and name; nothing is asked yet.
    #[must_use]
    pub fn new(family: TableFamily, table: &str) -> Self {
        const NFT_MSG_GETTABLE: u16 = 1;
        const NFTA_TABLE_NAME: u16 = 1;
        let body = Body::new(&[family.number(), 0, 0, 0]).text(NFTA_TABLE_NAME, table);
        let kind = netlink::NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE;
        Self {
            table: table.to_owned(),
            question: Question::new(netlink::NETFILTER, kind, body),
        }
    }

    /// Whether it is there now.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn exists(&mut self) -> Result<bool, TableError> {
        match self.question.ask() {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(TableError {
                table: self.table.clone(),
                source,
            }),
        }
    }
}

/// Whether the kernel speaks nftables with us at all.
pub(crate) fn nftables_answers() -> bool {
    TableQuestion::new(TableFamily::Inet, "vnfpool-probe")
        .exists()
        .is_ok()
}

/// A process cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch process {pid}: is it running?")]
#[non_exhaustive]
pub struct ProcessError {
    /// Its number.
    pub pid: i32,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// A process, by a descriptor that becomes readable when it ends; its number may be used again,
/// this cannot.
#[derive(Debug)]
pub struct ProcessWatch {
    descriptor: OwnedFd,
}

impl ProcessWatch {
    /// Begins to watch a running process.
    ///
    /// # Errors
    /// [`ProcessError`] if there is none of this number.
    pub fn open(pid: i32) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError { pid, source };
        let process = (pid > 0).then(|| Pid::from_raw(pid)).flatten();
        let process = process.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let descriptor = pidfd_open(process, PidfdFlags::empty());
        let descriptor = descriptor.map_err(|errno| failed(errno.into()))?;
        Ok(Self { descriptor })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A descriptor that cannot be asked is taken for a living process: the other checks
        // will show if it is not.
        !ended_within(self.descriptor.as_fd(), Duration::ZERO).unwrap_or(false)
    }
}

impl AsFd for ProcessWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for ProcessWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// A test of the network function itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FunctionProbe {
    /// A command that ends with status 0 when the function works.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// How long it may take.
        timeout: Duration,
    },
    /// A question to the function's control socket; it works when the answer has some text.
    Ask {
        /// The Unix socket.
        socket: PathBuf,
        /// The line that is sent.
        send: String,
        /// What the answer has to contain.
        expect: String,
        /// How long it may take.
        timeout: Duration,
    },
}

/// Why a function probe did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// There is no command.
    #[error("the probe has no command: name a program and its arguments")]
    NoCommand,
    /// The command could not be run.
    #[error("cannot run the probe '{program}'")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("the probe '{program}' failed: {status}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It took too long and was killed, with all processes of its group.
    #[error("the probe '{program}' took longer than {} ms", timeout.as_millis())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it may take.
        timeout: Duration,
    },
    /// The control socket does not answer.
    #[error(transparent)]
    NoAnswer(#[from] ControlSocketError),
    /// It answers something else.
    #[error("the answer of {} to '{send}' has no '{expect}'", socket.display())]
    Unexpected {
        /// The socket.
        socket: PathBuf,
        /// What was asked.
        send: String,
        /// What was expected.
        expect: String,
    },
}

impl FunctionProbe {
    /// Runs the probe and waits for it: to be called on a thread where that does no harm.
    ///
    /// # Errors
    /// [`ProbeFailure`], which all mean that the function is not known to work.
    pub fn run(&self) -> Result<(), ProbeFailure> {
        match self {
            Self::Exec { command, timeout } => execute(command, *timeout),
            Self::Ask {
                socket,
                send,
                expect,
                timeout,
            } => match control_socket::ask(socket, send, *timeout)?.contains(expect) {
                true => Ok(()),
                false => Err(ProbeFailure::Unexpected {
                    socket: socket.clone(),
                    send: send.clone(),
                    expect: expect.clone(),
                }),
            },
        }
    }
}

fn execute(command: &[String], timeout: Duration) -> Result<(), ProbeFailure> {
    let (program, arguments) = command.split_first().ok_or(ProbeFailure::NoCommand)?;
    let failed = |source| ProbeFailure::Start {
        program: program.clone(),
        source,
    };
    let child = Command::new(program)
        // It must not speak to the service manager in the agent's name.
        .env_remove("NOTIFY_SOCKET")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // A group of its own, so that what it has started can be ended with it.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    match finish(child, timeout).map_err(failed)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(ProbeFailure::Failed {
            program: program.clone(),
            status,
        }),
        None => Err(ProbeFailure::TimedOut {
            program: program.clone(),
            timeout,
        }),
    }
}

/// Waits for a child, or kills it when the time is over. What it has started and not waited for
/// ends with it: a probe that leaves something behind each time would fill the machine.
fn finish(mut child: Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(&child);
    let ended = pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|descriptor| ended_within(descriptor.as_fd(), timeout));
    // Not waited for yet, so the number is still its own and that of its group.
    let killed = kill_process_group(pid, Signal::KILL);
    if !matches!(ended, Ok(true)) {
        // It lives on, and waiting for it might take for ever.
        killed?;
    }
    let status = child.wait()?;
    ended.map(|ended| ended.then_some(status))
}

fn ended_within(process: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&process, PollFlags::IN)];
        match poll(&mut polled, Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(script: &str, timeout: Duration) -> FunctionProbe {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        FunctionProbe::Exec { command, timeout }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn probes_succeed_fail_and_time_out() {
        assert!(exec("exit 0", LONG).run().is_ok());
        let failed = exec("exit 3", LONG).run();
        assert!(
            matches!(failed, Err(ProbeFailure::Failed { status, .. }) if status.code() == Some(3))
        );
        let missing = FunctionProbe::Exec {
            command: vec!["/nonexistent".into()],
            timeout: LONG,
        };
        assert!(matches!(missing.run(), Err(ProbeFailure::Start { .. })));
    }

    /// Whether a process has ended; whoever inherited it may not have waited for it yet.
    fn is_over(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ")
            .next()
            .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
    }

    /// Goal: nothing of a probe outlives it, whether it ends in time or not. Method: its child
    /// tells its number and sleeps.
    #[test]
    fn what_a_probe_starts_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let start = format!("sleep 3600 & echo $! > {}", file.display());
        let child = || std::fs::read_to_string(&file).unwrap().trim().to_owned();
        let gone = |pid: &str| {
            for _ in 0..500 {
                if is_over(pid) {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        };

        assert!(exec(&start, LONG).run().is_ok());
        let left_behind = child();
        assert!(gone(&left_behind), "of one that succeeded");

        let hanging = format!("{start}; sleep 3600; wait");
        let timed_out = exec(&hanging, Duration::from_millis(300)).run();
        assert!(matches!(timed_out, Err(ProbeFailure::TimedOut { .. })));
        assert_ne!(child(), left_behind);
        assert!(gone(&child()), "of one that took too long");
    }

    #[test]
    fn a_process_is_seen_to_end() {
        let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
        let watch = ProcessWatch::open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(watch.is_alive());
        child.kill().unwrap();
        assert!(ended_within(watch.as_fd(), LONG).unwrap());
        assert!(!watch.is_alive());
        child.wait().unwrap();
        assert!(!watch.is_alive());
        for pid in [0, -1, i32::MAX] {
            assert!(ProcessWatch::open(pid).is_err());
        }
    }
}
