//! Daemons in a namespace that never outlive their test.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vnfpool_lab::{Lab, Watched};

/// Where elements pin their gates.
pub(crate) const PIN_ROOT: &str = "/sys/fs/bpf/vnfpool";

/// How long anything may take that has to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Asks `condition` every 20 ms until it gives a value.
pub(crate) fn wait<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < give_up, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `program` as a command inside a namespace; it ends with the thread that starts it, however
/// that ends.
pub(crate) fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["setpriv", "--pdeathsig", "KILL", "--", program])
        .env_remove("VNFPOOL_BIN")
        .env_remove("VNFPOOL_LOG")
        .stdin(Stdio::null());
    command
}

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: RefCell<Child>,
    log: PathBuf,
    /// In the laboratory's record: with it goes what it pins, also when this test is killed.
    /// None if it ended at once.
    watched: Option<Watched>,
}

/// SIGKILL to a process that a daemon of ours has started.
pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended just now.
    let _ = kill_process(pid, Signal::KILL);
}

impl Daemon {
    /// Starts `command`, with its output appended to `log`.
    pub(crate) fn start(mut command: Command, log: &Path, lab: &Lab) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let errors = output.try_clone().unwrap();
        let child = command.stdout(output).stderr(errors).spawn().unwrap();
        Self {
            watched: lab.watch(child.id(), &log.display().to_string()).ok(),
            child: RefCell::new(child),
            log: log.to_owned(),
        }
    }

    /// Everything it has said so far, earlier lives with the same log included.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has said something.
    pub(crate) fn wait_log(&self, text: &str) {
        let said = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait(text, || self.log().contains(text).then_some(()));
        }));
        assert!(said.is_ok(), "{text:?} was not said, but\n{}", self.log());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Processes that it has started and that run.
    pub(crate) fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let text = text.unwrap_or_default();
        text.split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.note_pins();
        let child = self.child.borrow();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().try_wait().unwrap()
    }

    /// Waits for its end by itself.
    pub(crate) fn wait_end(&self) -> ExitStatus {
        wait("the end of a daemon", || self.ended())
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_end()
    }

    /// SIGKILL, and waits.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait_end();
    }

    /// SIGKILL for both in the same moment, so that neither can act on the other's death.
    pub(crate) fn kill_together(one: &Self, other: &Self) {
        let both = [one, other];
        let pid = |daemon: &Self| i32::try_from(daemon.child.borrow().id()).unwrap();
        let pids = both.map(|daemon| Pid::from_raw(pid(daemon)).unwrap());
        both.iter().for_each(|daemon| daemon.note_pins());
        let killed = pids.map(|pid| kill_process(pid, Signal::KILL));
        assert_eq!(killed, [Ok(()), Ok(())]);
        for daemon in both {
            daemon.wait_end();
        }
    }

    /// What it has pinned outlives it by design if it is killed.
    fn note_pins(&self) {
        if let Some(watched) = &self.watched {
            watched.note().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(watched) = &self.watched {
            // No panic here: another one may be under way.
            let _ = watched.note();
        }
        let child = self.child.get_mut();
        // It may have ended already.
        let _ = child.kill();
        let _ = child.wait();
        // What the library with the wrong clocks leaves behind, if it was used.
        let pid = child.id();
        let _ = fs::remove_file(format!("/dev/shm/faketime_shm_{pid}"));
        let _ = fs::remove_file(format!("/dev/shm/sem.faketime_sem_{pid}"));
    }
}
