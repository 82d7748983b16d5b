//! One network namespace, and how threads and processes get into it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::realtime;

/// A named network namespace below `/run/netns`.
///
/// Clones are cheap and name the same namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: Arc<str>,
    handle: Arc<File>,
}

impl Namespace {
    /// Opens an existing namespace by its name for `ip netns`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn open(name: &str) -> Result<Self> {
        let path = format!("/run/netns/{name}");
        let handle = File::open(&path).with_context(|| format!("opening {path}"))?;
        Ok(Self {
            name: Arc::from(name),
            handle: Arc::new(handle),
        })
    }

    /// The name for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does one thing inside the namespace, on a thread of its own, and waits for it.
    ///
    /// A process started by `action` lives in the namespace too: it inherits the network
    /// namespace of the thread that forks it. Unlike `ip netns exec` this leaves the mounts
    /// alone, so that `/sys/fs/bpf` stays the one that everybody sees.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or `action` fails or panics.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                action()
            });
            thread
                .join()
                .map_err(|_| anyhow!("a thread in namespace {} panicked", self.name))?
        })
    }

    /// Starts a measuring thread inside the namespace, real-time scheduled where permitted.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn spawn_measuring(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        self.spawn(name, true, body)
    }

    /// Starts an ordinary thread inside the namespace.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn spawn_ordinary(
        &self,
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        self.spawn(name, false, body)
    }

    fn spawn(
        &self,
        name: &str,
        measuring: bool,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let namespace = self.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // The namespace was opened by us and stays open: entering it fails only without
                // privileges, and then nothing of the laboratory could have been built.
                if namespace.enter().is_ok() {
                    if measuring {
                        realtime::set_round_robin(realtime::PROBE_PRIORITY);
                    }
                    body();
                }
            })
            .with_context(|| format!("starting thread {name} in namespace {}", self.name))
    }

    fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering namespace {} (are you root?)", self.name))
    }
}
