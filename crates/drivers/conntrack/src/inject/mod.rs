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
//! update --ENOENT--> create          update --EBUSY, EPERM, EOPNOTSUPP--> replace
//!    +----EPERM, timeout to be fixed--> the same without the timeout
//! delete --ENOENT--> done
//! ```
//!
//! An update that refuses a window scale is preceded by one that sets both to none.

mod assistant;
mod operation;
mod table;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::entry::Entry;
use crate::netlink::socket::NetlinkError;
use crate::tuple::Key;
use assistant::Assistant;
use operation::{Master, Operation, Step};
use table::Table;

/// Operations per send: enough for the kernel's full rate, few enough to wait for.
pub const BATCH_OPERATIONS_MAX: usize = 128;

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
    table: Arc<Mutex<Table>>,
    pending: Vec<Operation>,
    index: HashMap<Key, usize>,
    helped: Helped,
    /// What never reached the table.
    stats: InjectStats,
}

/// Whether full batches are written by a thread of their own.
#[derive(Debug)]
enum Helped {
    Never,
    WhenFull,
    By(Assistant),
}

impl Injector {
    /// Opens a socket in the network namespace of the calling thread, which does everything itself.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_helped(Helped::Never)
    }

    /// Like [`Injector::open`], for great numbers: from the first full batch on another thread
    /// brings full batches into the kernel while the caller prepares the next. What does not fill a
    /// batch takes no such detour.
    ///
    /// # Errors
    /// As [`Injector::open`].
    pub fn open_with_assistant() -> Result<Self, NetlinkError> {
        Self::open_helped(Helped::WhenFull)
    }

    fn open_helped(helped: Helped) -> Result<Self, NetlinkError> {
        Ok(Self {
            table: Arc::new(Mutex::new(Table::open()?)),
            pending: Vec::with_capacity(BATCH_OPERATIONS_MAX),
            index: HashMap::with_capacity(BATCH_OPERATIONS_MAX),
            helped,
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
        self.put(Operation {
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
        self.put(Operation {
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
        self.put(Operation {
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
        if let Helped::By(assistant) = &mut self.helped {
            assistant.finish()?;
        }
        self.index.clear();
        let mut batch = std::mem::take(&mut self.pending);
        let mut table = lock(&self.table);
        table.write(&mut batch)?;
        self.pending = batch;
        Ok(table.take_failures())
    }

    /// What was done so far; of batches that another thread brings into the kernel only after the
    /// flush.
    #[must_use]
    pub fn stats(&self) -> InjectStats {
        let written = lock(&self.table).stats();
        InjectStats {
            coalesced: self.stats.coalesced,
            failed: written.failed + self.stats.failed,
            ..written
        }
    }

    /// The netlink port of its socket: events that it causes bear it.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] when the kernel does not tell it.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        lock(&self.table).port()
    }

    fn earlier(&self, key: &Key) -> Option<&Operation> {
        self.index.get(key).and_then(|&at| self.pending.get(at))
    }

    fn put(&mut self, operation: Operation) -> Result<(), NetlinkError> {
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
        let mut batch = std::mem::take(&mut self.pending);
        if matches!(self.helped, Helped::WhenFull) {
            // Without another thread it goes on in this one.
            let assistant = Assistant::start(Arc::clone(&self.table));
            self.helped = assistant.map_or(Helped::Never, Helped::By);
        }
        self.pending = match &mut self.helped {
            Helped::By(assistant) => assistant.give(batch)?,
            Helped::Never | Helped::WhenFull => {
                lock(&self.table).write(&mut batch)?;
                batch
            }
        };
        Ok(())
    }
}

/// A table whose writer panicked is as good as before: a batch is missing, which its result says.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
