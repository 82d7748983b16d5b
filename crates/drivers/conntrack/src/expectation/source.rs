//! The kernel's expectations: their comings and goings, and all of them.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{Expectation, ExpectationKey};
use crate::dump::Fetcher;
use crate::entry::Entry;
use crate::event::ReadOutcome;
use crate::netlink::constants::{EXP_DELETE, EXP_NEW, EXPECTATION_GROUPS, NLMSG_DONE, NLMSG_ERROR};
use crate::netlink::expect;
use crate::netlink::parse::{self, Message, ParseError};
use crate::netlink::socket::{NetlinkError, Received, Socket};
use crate::tuple::Key;

/// A good size of the socket's receive buffer: some thousand waiting events.
pub const EXPECTATION_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Most events that one [`ExpectationSource::read`] hands out, about.
pub const EXPECTATIONS_PER_READ_MAX: usize = 256;

/// Most masters that wait to be read again; more are reported as an overrun.
pub const MASTERS_WAITING_MAX: usize = 4096;

/// From the event to the reading of the master. The kernel announces the expectation before it
/// changes the packet, in one go.
const MASTER_DELAY: Duration = Duration::from_millis(5);

const DUMP_RECEIVE_BYTES: usize = 256 * 1024;
const DUMP: &str = "dump the expectations";

/// A change of the kernel's expectations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectationEvent {
    /// There is one.
    New(Expectation),
    /// It came, expired or went with its master.
    Destroy(ExpectationKey),
}

/// A subscription to the expectations of one network namespace.
///
/// A helper that announces a connection may also have changed the length of the master's data.
/// The kernel sends no event when it does, so the masters of expectations are read again
/// ([`ExpectationSource::masters`]): without their sequence adjustment, a master ends with the
/// failover.
#[derive(Debug)]
pub struct ExpectationSource {
    socket: Socket,
    fetcher: Fetcher,
    masters: VecDeque<(Instant, Key)>,
    malformed: u64,
}

impl ExpectationSource {
    /// Subscribes in the network namespace of the calling thread, with a receive buffer of
    /// `buffer_bytes` ([`EXPECTATION_BUFFER_BYTES`] is a good choice). The kernel tells only of
    /// masters that were made when [`crate::enable_events`] was in force.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open(buffer_bytes: usize) -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(EXPECTATION_GROUPS, buffer_bytes)?,
            fetcher: Fetcher::open()?,
            masters: VecDeque::new(),
            malformed: 0,
        })
    }

    /// Appends waiting events to `out`; never blocks. After [`ReadOutcome::Overrun`] the copy has
    /// to be brought up to date by [`dump_expectations`] and the masters by a dump.
    ///
    /// # Errors
    /// [`NetlinkError::Receive`] when the socket is broken: open another one and resynchronise.
    pub fn read(&mut self, out: &mut Vec<ExpectationEvent>) -> Result<ReadOutcome, NetlinkError> {
        for _ in 0..EXPECTATIONS_PER_READ_MAX {
            match self.socket.receive()? {
                Received::Empty => return Ok(ReadOutcome::Drained),
                Received::Overrun => return Ok(ReadOutcome::Overrun { lost: None }),
                Received::Datagram(datagram) => {
                    for message in parse::messages(datagram) {
                        match event(&message) {
                            Some(Ok(event)) => {
                                if let ExpectationEvent::New(expectation) = &event {
                                    let due = Instant::now() + MASTER_DELAY;
                                    self.masters.push_back((due, expectation.key.master));
                                }
                                out.push(event);
                            }
                            Some(Err(_)) => self.malformed += 1,
                            None => {}
                        }
                    }
                }
            }
            if self.masters.len() > MASTERS_WAITING_MAX {
                self.masters.clear();
                return Ok(ReadOutcome::Overrun { lost: None });
            }
        }
        Ok(ReadOutcome::More)
    }

    /// Appends the masters of new expectations as they are now, some milliseconds after their
    /// event: to be sent as updates, also because they show the helper. Call it when
    /// [`ExpectationSource::masters_due`] says.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub fn masters(&mut self, now: Instant, out: &mut Vec<Entry>) -> Result<(), NetlinkError> {
        let mut last = None;
        while let Some((_, key)) = self.masters.pop_front_if(|(due, _)| *due <= now) {
            // One command may announce several connections.
            if last != Some(key) {
                out.extend(self.fetcher.get(&key)?);
            }
            last = Some(key);
        }
        Ok(())
    }

    /// When [`ExpectationSource::masters`] has something to do; none while nothing waits.
    #[must_use]
    pub fn masters_due(&self) -> Option<Instant> {
        self.masters.front().map(|(due, _)| *due)
    }

    /// Events that were not understood; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for ExpectationSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads all expectations of the calling thread's network namespace. The kernel holds some
/// thousand at most (`nf_conntrack_expect_max`). Those that are not understood are left out.
///
/// # Errors
/// [`NetlinkError`] when there is no socket or the kernel refuses.
pub fn dump_expectations() -> Result<Vec<Expectation>, NetlinkError> {
    let mut socket = Socket::open(0, DUMP_RECEIVE_BYTES)?;
    let sequence = 1;
    let mut request = Vec::new();
    expect::dump(&mut request, sequence);
    socket.send(&request)?;
    let mut expectations = Vec::new();
    loop {
        let Received::Datagram(datagram) = socket.receive()? else {
            return Err(NetlinkError::NoAnswer { attempt: DUMP });
        };
        for message in parse::messages(datagram) {
            match message.kind {
                NLMSG_DONE => return Ok(expectations),
                NLMSG_ERROR => {
                    let number = parse::error_number(&message);
                    return Err(NetlinkError::Refused {
                        attempt: DUMP,
                        error: std::io::Error::from_raw_os_error(number),
                    });
                }
                EXP_NEW => expectations.extend(expect::expectation(&message)),
                _ => {}
            }
        }
    }
}

fn event(message: &Message<'_>) -> Option<Result<ExpectationEvent, ParseError>> {
    let expectation = expect::expectation(message);
    match message.kind {
        EXP_NEW => Some(expectation.map(ExpectationEvent::New)),
        EXP_DELETE => Some(expectation.map(|gone| ExpectationEvent::Destroy(gone.key))),
        _ => None,
    }
}
