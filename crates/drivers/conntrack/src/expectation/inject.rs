//! Writing expectations into the kernel.

use std::io;

use rustix::io::Errno;

use super::{Expectation, ExpectationKey};
use crate::netlink::constants::NLMSG_ERROR;
use crate::netlink::socket::{NetlinkError, Received, Socket};
use crate::netlink::{expect, parse};

const RECEIVE_BYTES: usize = 64 * 1024;
const INJECT: &str = "change expectations";

/// An expectation could not be brought into the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpectationInjectError {
    /// The master is not in the table (any more), so there is nothing to expect.
    #[error("the connection {} that announced another is not in the table", master)]
    NoMaster {
        /// Its original tuple.
        master: crate::tuple::Tuple,
    },
    /// The master carries no helper.
    #[error(
        "the connection {} has no helper in this kernel: load the module of the helper here as on \
         the other gateway",
        master
    )]
    NoHelper {
        /// Its original tuple.
        master: crate::tuple::Tuple,
    },
    /// The kernel refused it for another reason, see [`crate::expectation`].
    #[error("cannot {attempt} the expectation of {expected}: {error}")]
    Refused {
        /// "create", "time" or "delete".
        attempt: &'static str,
        /// The expected tuple.
        expected: crate::tuple::Tuple,
        /// The kernel's reason: EINVAL for a function or class that it does not know, EBUSY for
        /// one that another expectation stands in the way of, EMFILE when its table is full.
        #[source]
        error: io::Error,
    },
    /// The kernel could not be reached: open another injector.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Writes expectations into the table of one network namespace, one at a time: they are rare.
#[derive(Debug)]
pub struct ExpectationInjector {
    socket: Socket,
    sequence: u32,
    request: Vec<u8>,
}

impl ExpectationInjector {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(0, RECEIVE_BYTES)?,
            sequence: 0,
            request: Vec::new(),
        })
    }

    /// Puts `expectation` into the table, in the place of what is there for the same tuple. Its
    /// master has to be there already.
    ///
    /// # Errors
    /// [`ExpectationInjectError`]; nothing is left of what was there then.
    pub fn upsert(&mut self, expectation: &Expectation) -> Result<(), ExpectationInjectError> {
        let key = &expectation.key;
        let number = self.sequence.wrapping_add(1);
        self.request.clear();
        expect::delete(&mut self.request, number, key);
        expect::create(&mut self.request, number.wrapping_add(1), expectation);
        expect::set_timeout(&mut self.request, number.wrapping_add(2), expectation);
        let [_, created, timed] = self.transact()?;
        let master = key.master.original;
        match created {
            NO_ENTRY => return Err(ExpectationInjectError::NoMaster { master }),
            NOT_SUPPORTED => return Err(ExpectationInjectError::NoHelper { master }),
            _ => refused("create", key, created)?,
        }
        refused("time", key, timed)
    }

    /// Deletes the expectation of `key`; false if there was none.
    ///
    /// # Errors
    /// [`ExpectationInjectError`].
    pub fn delete(&mut self, key: &ExpectationKey) -> Result<bool, ExpectationInjectError> {
        self.request.clear();
        expect::delete(&mut self.request, self.sequence.wrapping_add(1), key);
        let [deleted] = self.transact()?;
        if deleted == NO_ENTRY {
            return Ok(false);
        }
        refused("delete", key, deleted).map(|()| true)
    }

    /// Sends the request and returns the errno (0: done) of each of its `N` messages, which bear
    /// the next numbers.
    fn transact<const N: usize>(&mut self) -> Result<[i32; N], NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        self.socket.send(&self.request)?;
        let mut errors = [0; N];
        for _ in 0..N {
            self.sequence = self.sequence.wrapping_add(1);
        }
        let mut answers = 0;
        while answers < N {
            // The kernel has worked through the request when the send returns.
            let Received::Datagram(datagram) = self.socket.receive()? else {
                return Err(NetlinkError::NoAnswer { attempt: INJECT });
            };
            for message in parse::messages(datagram) {
                let at = usize::try_from(message.sequence.wrapping_sub(first));
                let slot = at.ok().and_then(|at| errors.get_mut(at));
                if let (NLMSG_ERROR, Some(error)) = (message.kind, slot) {
                    *error = parse::error_number(&message);
                    answers += 1;
                }
            }
        }
        Ok(errors)
    }
}

const NO_ENTRY: i32 = Errno::NOENT.raw_os_error();
const NOT_SUPPORTED: i32 = Errno::OPNOTSUPP.raw_os_error();

fn refused(
    attempt: &'static str,
    key: &ExpectationKey,
    number: i32,
) -> Result<(), ExpectationInjectError> {
    match number {
        0 => Ok(()),
        number => Err(ExpectationInjectError::Refused {
            attempt,
            expected: key.tuple,
            error: io::Error::from_raw_os_error(number),
        }),
    }
}
