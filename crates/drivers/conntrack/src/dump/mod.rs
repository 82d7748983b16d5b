//! Reading the kernel's table: all of it in chunks, or one connection.

mod ahead;

use std::io;

use crate::entry::Entry;
use crate::netlink::constants::{
    AF_INET, AF_INET6, AF_UNSPEC, CT_NEW, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR,
};
use crate::netlink::socket::{NetlinkError, Received, Socket};
use crate::netlink::{build, parse};
use crate::tuple::Key;

pub(crate) use ahead::{Chunk, DumpAhead};

const RECEIVE_BYTES: usize = 256 * 1024;
const DUMP: &str = "dump the connection table";
const GET: &str = "read a connection";

/// Which part of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    All,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How far a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpProgress {
    /// There are more chunks.
    More,
    /// That was the last chunk.
    Done,
}

/// A dump under way. Dropping it ends it; starting another one starts from the beginning.
///
/// The kernel fills each chunk while it hands out the one before, so the entries of a chunk are
/// as old as the previous call of [`Dump::next_chunk`]. Entries that change or move meanwhile may
/// come twice; none that exists all the time is left out.
#[derive(Debug)]
pub struct Dump {
    socket: Socket,
    sequence: u32,
    interrupted: bool,
    malformed: u64,
}

impl Dump {
    /// Starts a dump in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError`] when there is no socket or the request is not taken.
    pub fn start(family: Family) -> Result<Self, NetlinkError> {
        let socket = Socket::open(0, RECEIVE_BYTES)?;
        let sequence = 1;
        let mut request = Vec::new();
        let family = match family {
            Family::All => AF_UNSPEC,
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        };
        build::dump(&mut request, sequence, family);
        socket.send(&request)?;
        Ok(Self {
            socket,
            sequence,
            interrupted: false,
            malformed: 0,
        })
    }

    /// Appends the next chunk (some hundred entries) to `out`.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel ends the dump with an error: start another one.
    pub fn next_chunk(&mut self, out: &mut Vec<Entry>) -> Result<DumpProgress, NetlinkError> {
        let datagram = match self.socket.receive()? {
            Received::Datagram(datagram) => datagram,
            Received::Empty | Received::Overrun => {
                return Err(NetlinkError::NoAnswer { attempt: DUMP });
            }
        };
        for message in parse::messages(datagram) {
            if message.sequence != self.sequence {
                continue;
            }
            self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                NLMSG_DONE => return Ok(DumpProgress::Done),
                NLMSG_ERROR => return Err(refused(DUMP, parse::error_number(&message))),
                CT_NEW => match parse::entry(&message) {
                    Ok(entry) => out.push(entry),
                    Err(_) => self.malformed += 1,
                },
                _ => {}
            }
        }
        Ok(DumpProgress::More)
    }

    /// Whether the kernel said that the table was rebuilt meanwhile, so that entries may be
    /// missing: dump again.
    #[must_use]
    pub const fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Entries that were not understood; 0 with a known kernel.
    #[must_use]
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// Reads the whole table. For tests and small tables; use [`Dump`] where the size is unknown.
///
/// # Errors
/// As [`Dump::start`] and [`Dump::next_chunk`].
pub fn dump_all(family: Family) -> Result<Vec<Entry>, NetlinkError> {
    let mut dump = Dump::start(family)?;
    let mut entries = Vec::new();
    while dump.next_chunk(&mut entries)? == DumpProgress::More {}
    Ok(entries)
}

/// Reads single connections, to complete an UPDATE event.
#[derive(Debug)]
pub struct Fetcher {
    socket: Socket,
    sequence: u32,
    request: Vec<u8>,
}

impl Fetcher {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(0, RECEIVE_BYTES)?,
            sequence: 0,
            request: Vec::new(),
        })
    }

    /// The connection of `key` as it is now, or none if there is none.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel refuses or does not answer.
    pub fn get(&mut self, key: &Key) -> Result<Option<Entry>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.request.clear();
        build::get(&mut self.request, self.sequence, key);
        self.socket.send(&self.request)?;
        // The kernel answers within the send; older answers cannot be waiting for long.
        while let Received::Datagram(datagram) = self.socket.receive()? {
            for message in parse::messages(datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_ERROR => match parse::error_number(&message) {
                        NO_ENTRY => return Ok(None),
                        number => return Err(refused(GET, number)),
                    },
                    // An entry that is not understood cannot be replicated: as good as none.
                    CT_NEW => return Ok(parse::entry(&message).ok()),
                    _ => {}
                }
            }
        }
        Err(NetlinkError::NoAnswer { attempt: GET })
    }
}

/// ENOENT.
const NO_ENTRY: i32 = rustix::io::Errno::NOENT.raw_os_error();

fn refused(attempt: &'static str, number: i32) -> NetlinkError {
    NetlinkError::Refused {
        attempt,
        error: io::Error::from_raw_os_error(number),
    }
}
