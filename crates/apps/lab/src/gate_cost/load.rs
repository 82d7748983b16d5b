//! The sender: 64-byte frames as fast as one thread can make them.
#![expect(unsafe_code, reason = "UDP_SEGMENT has no safe wrapper")]

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::namespaces::{Namespace, SERVER_V4};
use crate::realtime;

/// With the headers of UDP, IPv4 and Ethernet and the checksum: 64 bytes.
const PAYLOAD: usize = 18;
/// Datagrams in one system call; the kernel cuts them apart before they leave. Less than the
/// backlog of a processor holds, so nothing is lost on the way.
const BATCH: usize = 64;
/// The discard port: nobody is meant to answer.
pub(super) const PORT: u16 = 9;
/// Below whoever renews the lease, above everything ordinary.
const PRIORITY: i32 = 1;

/// A running sender. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    /// Why it has ended by itself, as an error number; 0 while it runs.
    failed: Arc<AtomicI32>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Starts to send from `source` to the address behind the gateway.
    pub(super) fn start(source: &Namespace) -> Result<Self> {
        let socket = source.run(|| {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).context("opening the sender's socket")?;
            socket
                .connect((SERVER_V4, PORT))
                .context("addressing the sender's socket")?;
            segment(&socket).context("asking for segmented datagrams (Linux 4.18)")?;
            Ok(socket)
        })?;
        let (stop, failed) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicI32::new(0)),
        );
        let (is_over, failure) = (Arc::clone(&stop), Arc::clone(&failed));
        let thread = source.spawn_ordinary("load", move || {
            stay_on_one_processor();
            realtime::set_round_robin(PRIORITY);
            let datagrams = [0; PAYLOAD * BATCH];
            while !is_over.load(Ordering::Relaxed) {
                if let Err(error) = socket.send(&datagrams)
                    && !is_of_the_path(&error)
                {
                    failure.store(error.raw_os_error().unwrap_or(-1), Ordering::Relaxed);
                    return;
                }
            }
        })?;
        Ok(Self {
            stop,
            failed,
            thread: Some(thread),
        })
    }

    /// Fails once the sender has ended by itself.
    pub(super) fn check(&self) -> Result<()> {
        match self.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            number => {
                let error = std::io::Error::from_raw_os_error(number);
                bail!("the sender has ended: {error}")
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

/// A gateway that drops says so, now and then; the next datagram may pass.
fn is_of_the_path(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOBUFS
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ECONNREFUSED
                | libc::EINTR
        )
    )
}

fn segment(socket: &UdpSocket) -> std::io::Result<()> {
    let size = libc::c_int::try_from(PAYLOAD).unwrap_or(libc::c_int::MAX);
    // SAFETY: `size` is an int that outlives the call, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            (&raw const size).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4),
        )
    };
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Where it is by now: the whole path of a packet follows the sender's processor.
fn stay_on_one_processor() {
    let mut here = CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    // Not pinned, the figures only spread more.
    let _not_permitted = sched_setaffinity(None, &here);
}
