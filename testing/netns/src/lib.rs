//! Network namespaces for tests of drivers: they vanish with the value, also when a test fails. What
//! goes wrong here is a failure of the test, so it panics. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, reason = "for tests alone")]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one, with `role` in its name. Addresses of IPv6 are there at once.
    ///
    /// # Panics
    /// As everything here: when it cannot be done.
    #[must_use]
    pub fn new(role: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vpn{}-{number}-{role}", std::process::id());
        command("ip", &["netns", "add", &name], "");
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace.enter(|| {
            for setting in ["all", "default"] {
                set(&format!("ipv6/conf/{setting}/accept_dad"), "0");
                set(&format!("ipv6/conf/{setting}/accept_ra"), "0");
            }
        });
        namespace
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `ip` with the words of `arguments`; what it printed.
    pub fn ip(&self, arguments: &str) -> String {
        let mut words = vec!["-n", &self.name];
        words.extend(arguments.split_whitespace());
        command("ip", &words, "")
    }

    /// `program` inside the namespace, given `input`; what it printed.
    pub fn run(&self, program: &str, arguments: &str, input: &str) -> String {
        let mut words = vec!["netns", "exec", &self.name, program];
        words.extend(arguments.split_whitespace());
        command("ip", &words, input)
    }

    /// A cable from `interface` here to `other_interface` in `other`.
    pub fn connect(&self, interface: &str, other: &Self, other_interface: &str) {
        self.ip(&format!(
            "link add {interface} type veth peer name {other_interface} netns {}",
            other.name
        ));
        self.ip(&format!("link set {interface} up"));
        other.ip(&format!("link set {other_interface} up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failure here must not hide the one that unwinds.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Writes a setting below `/proc/sys/net` of the calling thread's namespace.
pub fn set(setting: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{setting}"), value)
        .unwrap_or_else(|error| panic!("cannot set {setting}: {error}"));
}

fn command(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
