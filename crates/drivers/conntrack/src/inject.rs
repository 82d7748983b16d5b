//! Writing connections into the kernel, in batches.
//!
//! A batch holds at most one operation per connection: a later one on the same connection
//! replaces the earlier one, so what failed in the first pass can be tried in another way without
//! undoing anything later. Each pass is one send with one acknowledgement; the kernel answers
//! failures one by one.
//!
//! ```text
//! create --EEXIST--> replace (delete, create) --EEXIST--> replace both (delete by original
//!    |                                                    and by reply tuple, create)
//!    +----EOPNOTSUPP, helper named--> the same step without the helper
//!    +----ENOENT, master named--> the same step once more, after the others; then without it
//! update --ENOENT--> create          update --EBUSY, EOPNOTSUPP--> replace
//! delete --ENOENT--> done
//! ```

use std::collections::HashMap;
use std::io;

use rustix::io::Errno;

use crate::entry::Entry;
use crate::netlink::build::{self, CreateOptions};
use crate::netlink::constants::NLMSG_ERROR;
use crate::netlink::parse;
use crate::netlink::socket::{NetlinkError, Received, Socket};
use crate::tuple::Key;

/// Operations per send: enough for the kernel's full rate, few enough to wait for.
pub const BATCH_OPERATIONS_MAX: usize = 128;

/// Room for one refusal, with the refused request in it, per message of a batch.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;
/// Longest chain of attempts: update, create, replace, replace both, one of them without helper, two
/// for want of the master.
const PASSES_MAX: usize = 8;
const INJECT: &str = "change connections";

/// What was done since the injector was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InjectStats {
    /// Connections created, replaced ones included.
    pub created: u64,
    /// Connections brought up to date.
    pub updated: u64,
    /// Connections deleted.
    pub deleted: u64,
    /// Deletions of connections that were not there.
    pub already_gone: u64,
    /// Of `created`: a connection with the same tuple stood in the way and was deleted.
    pub replaced: u64,
    /// Of `created`: made without the helper, which this kernel does not have.
    pub without_helper: u64,
    /// Of `created`: made without the master, which is not in this table (any more). Its next
    /// change makes it again, with the master if that has come.
    pub without_master: u64,
    /// Operations overtaken by a later one on the same connection before they were sent.
    pub coalesced: u64,
    /// Operations that the kernel refused for good, see [`Failure`].
    pub failed: u64,
}

/// An operation that the kernel refused for good.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the connection {}: {error}", key.original)]
#[non_exhaustive]
pub struct Failure {
    /// The connection.
    pub key: Key,
    /// What was tried last.
    pub attempt: &'static str,
    /// The kernel's reason; ENOENT for an update of an unknown connection that came without the
    /// protocol state needed to create it.
    #[source]
    pub error: io::Error,
}

/// Writes connections into the table of one network namespace.
#[derive(Debug)]
pub struct Injector {
    socket: Socket,
    sequence: u32,
    pending: Vec<Pending>,
    index: HashMap<Key, usize>,
    failures: Vec<Failure>,
    stats: InjectStats,
}

#[derive(Debug)]
struct Pending {
    key: Key,
    /// None: delete.
    entry: Option<Entry>,
    step: Step,
    helper: bool,
    master: Master,
}

/// What a creation does about the master of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Master {
    /// Names it.
    Named,
    /// Names it once more: it may come in the same batch, later.
    Awaited,
    /// Does without.
    Without,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Replace,
    ReplaceBoth,
    Update,
    MakeStrict,
    Delete,
}

impl Injector {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(0, RECEIVE_BYTES)?,
            sequence: 0,
            pending: Vec::with_capacity(BATCH_OPERATIONS_MAX),
            index: HashMap::with_capacity(BATCH_OPERATIONS_MAX),
            failures: Vec::new(),
            stats: InjectStats::default(),
        })
    }

    /// Queues an entry: `is_new` says that the connection should not be in the table yet, and
    /// what is there in its place is replaced. An entry that is not complete is never more than
    /// an update. Sends the batch when it is full.
    ///
    /// # Errors
    /// As [`Injector::flush`].
    pub fn upsert(&mut self, mut entry: Entry, is_new: bool) -> Result<(), NetlinkError> {
        let is_new = is_new && entry.is_complete();
        let mut step = if is_new { Step::Create } else { Step::Update };
        if let Some(earlier) = self.earlier(&entry.key) {
            match (earlier.step, &earlier.entry) {
                // What was deleted has to be made anew, with nothing of the old left: of an
                // entry that is not enough for that, the deletion is all that can be told.
                (Step::Delete, _) if !entry.is_complete() => {
                    self.stats.failed += 1;
                    return Ok(());
                }
                (Step::Delete, _) => step = Step::Create,
                (earlier_step, Some(older)) if !is_new => {
                    entry.fill_from(older);
                    step = earlier_step;
                }
                _ => {}
            }
        }
        self.put(Pending {
            key: entry.key,
            entry: Some(entry),
            step,
            helper: true,
            master: Master::Named,
        })
    }

    /// Queues the deletion of a connection. Sends the batch when it is full.
    ///
    /// # Errors
    /// As [`Injector::flush`].
    pub fn delete(&mut self, key: Key) -> Result<(), NetlinkError> {
        self.put(Pending {
            key,
            entry: None,
            step: Step::Delete,
            helper: false,
            master: Master::Without,
        })
    }

    /// Queues the end of the lenience towards a TCP connection ([`crate::TcpInfo::learning`]).
    ///
    /// # Errors
    /// As [`Injector::flush`].
    pub(crate) fn make_strict(&mut self, key: Key) -> Result<(), NetlinkError> {
        self.put(Pending {
            key,
            entry: None,
            step: Step::MakeStrict,
            helper: false,
            master: Master::Without,
        })
    }

    /// Sends what is queued and waits for the kernel's answers, which are there at once. Returns
    /// what was refused since the last flush.
    ///
    /// # Errors
    /// [`NetlinkError`] when the socket is broken; the batch is lost then: open another injector
    /// and resynchronise.
    pub fn flush(&mut self) -> Result<Vec<Failure>, NetlinkError> {
        self.send_batch()?;
        Ok(std::mem::take(&mut self.failures))
    }

    /// What was done so far.
    #[must_use]
    pub const fn stats(&self) -> InjectStats {
        self.stats
    }

    /// The netlink port of its socket: events that it causes bear it.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] when the kernel does not tell it.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    fn earlier(&self, key: &Key) -> Option<&Pending> {
        self.index.get(key).and_then(|&at| self.pending.get(at))
    }

    fn put(&mut self, operation: Pending) -> Result<(), NetlinkError> {
        if let Some(slot) = self
            .index
            .get(&operation.key)
            .and_then(|&at| self.pending.get_mut(at))
        {
            *slot = operation;
            self.stats.coalesced += 1;
            return Ok(());
        }
        self.index.insert(operation.key, self.pending.len());
        self.pending.push(operation);
        if self.pending.len() >= BATCH_OPERATIONS_MAX {
            self.send_batch()?;
        }
        Ok(())
    }

    fn send_batch(&mut self) -> Result<(), NetlinkError> {
        self.index.clear();
        let mut pending = std::mem::take(&mut self.pending);
        for _ in 0..PASSES_MAX {
            if pending.is_empty() {
                break;
            }
            let errors = self.pass(&pending)?;
            let mut again = Vec::new();
            for (operation, error) in pending.drain(..).zip(errors) {
                again.extend(self.settle(operation, error));
            }
            pending = again;
        }
        // Every chain is shorter than the passes; should that change, say so.
        for operation in pending {
            self.fail(operation, Errno::LOOP.raw_os_error());
        }
        Ok(())
    }

    /// Sends one message or more per operation and returns the errno (0: done) of each.
    fn pass(&mut self, operations: &[Pending]) -> Result<Vec<i32>, NetlinkError> {
        let mut request = Vec::with_capacity(operations.len() * 256);
        // Per message: the operation whose fate it decides.
        let mut decides: Vec<Option<usize>> = Vec::with_capacity(operations.len());
        let first = self.sequence.wrapping_add(1);
        let mut last_at = 0;
        for (at, operation) in operations.iter().enumerate() {
            for &message in operation.messages() {
                self.sequence = self.sequence.wrapping_add(1);
                last_at = request.len();
                operation.build(message, &mut request, self.sequence);
                decides.push(message.decides().then_some(at));
            }
        }
        build::request_acknowledgement(&mut request, last_at);
        self.socket.send(&request)?;
        let mut errors = vec![0; operations.len()];
        loop {
            // The kernel has worked through the request when the send returns.
            let Received::Datagram(datagram) = self.socket.receive()? else {
                return Err(NetlinkError::NoAnswer { attempt: INJECT });
            };
            for message in parse::messages(datagram) {
                let offset = usize::try_from(message.sequence.wrapping_sub(first));
                let Some(&decided) = offset.ok().and_then(|offset| decides.get(offset)) else {
                    continue;
                };
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                if let Some(error) = decided.and_then(|at| errors.get_mut(at)) {
                    *error = parse::error_number(&message);
                }
                if message.sequence == self.sequence {
                    return Ok(errors);
                }
            }
        }
    }

    /// Counts an operation that is over, or returns it with its next step.
    fn settle(&mut self, mut operation: Pending, error: i32) -> Option<Pending> {
        if error == 0 {
            self.succeed(&operation);
            return None;
        }
        let has_helper = operation.helper
            && operation
                .entry
                .as_ref()
                .is_some_and(|entry| entry.helper.is_some());
        let has_master = operation.master != Master::Without
            && operation
                .entry
                .as_ref()
                .is_some_and(|entry| entry.master.is_some());
        let complete = operation.entry.as_ref().is_some_and(Entry::is_complete);
        let errno = Errno::from_raw_os_error(error);
        match (operation.step, errno) {
            (Step::Delete, Errno::NOENT) => {
                self.stats.already_gone += 1;
                return None;
            }
            // It ended meanwhile.
            (Step::MakeStrict, Errno::NOENT) => return None,
            (Step::Create, Errno::EXIST) => operation.step = Step::Replace,
            (Step::Replace, Errno::EXIST) => operation.step = Step::ReplaceBoth,
            (Step::Create | Step::Replace | Step::ReplaceBoth, Errno::OPNOTSUPP) if has_helper => {
                operation.helper = false;
            }
            (Step::Create | Step::Replace | Step::ReplaceBoth, Errno::NOENT) if has_master => {
                operation.master = match operation.master {
                    Master::Named => Master::Awaited,
                    Master::Awaited | Master::Without => Master::Without,
                };
            }
            (Step::Update, Errno::NOENT) if complete => operation.step = Step::Create,
            (Step::Update, Errno::BUSY | Errno::OPNOTSUPP) if complete => {
                operation.step = Step::Replace;
            }
            // The last thing an update sets are the labels; this kernel keeps none.
            (Step::Update, Errno::NOSPC) => {
                self.succeed(&operation);
                return None;
            }
            _ => {
                self.fail(operation, error);
                return None;
            }
        }
        Some(operation)
    }

    fn succeed(&mut self, operation: &Pending) {
        match operation.step {
            Step::Create => self.stats.created += 1,
            Step::Replace | Step::ReplaceBoth => {
                self.stats.created += 1;
                self.stats.replaced += 1;
            }
            Step::Update | Step::MakeStrict => self.stats.updated += 1,
            Step::Delete => self.stats.deleted += 1,
        }
        let created = matches!(
            operation.step,
            Step::Create | Step::Replace | Step::ReplaceBoth
        );
        if created && !operation.helper {
            self.stats.without_helper += 1;
        }
        if created && operation.master == Master::Without {
            self.stats.without_master += 1;
        }
    }

    fn fail(&mut self, operation: Pending, error: i32) {
        self.stats.failed += 1;
        // A caller that never flushes must not collect failures for ever.
        if self.failures.len() >= BATCH_OPERATIONS_MAX {
            return;
        }
        self.failures.push(Failure {
            key: operation.key,
            attempt: match operation.step {
                Step::Create => "create",
                Step::Replace | Step::ReplaceBoth => "replace",
                Step::Update | Step::MakeStrict => "update",
                Step::Delete => "delete",
            },
            error: io::Error::from_raw_os_error(error),
        });
    }
}

/// A message of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    DeleteInTheWay,
    DeleteReplyInTheWay,
    Create,
    Update,
    MakeStrict,
    Delete,
}

impl Part {
    /// Whether the operation failed if this message did.
    const fn decides(self) -> bool {
        !matches!(self, Self::DeleteInTheWay | Self::DeleteReplyInTheWay)
    }
}

impl Pending {
    const fn messages(&self) -> &'static [Part] {
        match self.step {
            Step::Create => &[Part::Create],
            Step::Replace => &[Part::DeleteInTheWay, Part::Create],
            Step::ReplaceBoth => &[
                Part::DeleteInTheWay,
                Part::DeleteReplyInTheWay,
                Part::Create,
            ],
            Step::Update => &[Part::Update],
            Step::MakeStrict => &[Part::MakeStrict],
            Step::Delete => &[Part::Delete],
        }
    }

    fn build(&self, part: Part, out: &mut Vec<u8>, sequence: u32) {
        let options = CreateOptions {
            helper: self.helper,
            master: self.master != Master::Without,
        };
        match (part, &self.entry) {
            (Part::Create, Some(entry)) => build::create(out, sequence, entry, options),
            (Part::Update, Some(entry)) => build::update(out, sequence, entry),
            (Part::DeleteReplyInTheWay, Some(entry)) => {
                build::delete_by_reply(out, sequence, &entry.reply, entry.key.zone);
            }
            (Part::MakeStrict, _) => build::make_strict(out, sequence, &self.key),
            _ => build::delete(out, sequence, &self.key),
        }
    }
}
