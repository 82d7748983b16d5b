//! The kernel's table, written to in batches.

use std::io;

use rustix::io::Errno;

use super::operation::{Master, Operation, Step};
use super::{BATCH_OPERATIONS_MAX, Failure, InjectStats};
use crate::entry::{Entry, Status};
use crate::netlink::build;
use crate::netlink::constants::NLMSG_ERROR;
use crate::netlink::parse;
use crate::netlink::socket::{NetlinkError, Received, Socket};

/// Room for one refusal, with the refused request in it, per message of a batch.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;
/// Longest chain of attempts: update, update of a fixed one, create, replace, replace both, one of them without helper, two
/// for want of the master.
const PASSES_MAX: usize = 8;
const INJECT: &str = "change connections";

/// What is written into.
#[derive(Debug)]
pub(super) struct Table {
    socket: Socket,
    sequence: u32,
    request: Vec<u8>,
    failures: Vec<Failure>,
    stats: InjectStats,
}

impl Table {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            socket: Socket::open(0, RECEIVE_BYTES)?,
            sequence: 0,
            request: Vec::new(),
            failures: Vec::new(),
            stats: InjectStats::default(),
        })
    }

    pub(super) const fn stats(&self) -> InjectStats {
        self.stats
    }

    pub(super) fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    /// What was refused since the last call.
    pub(super) fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// Carries out a batch, which holds one operation per connection, and empties it.
    pub(super) fn write(&mut self, batch: &mut Vec<Operation>) -> Result<(), NetlinkError> {
        for _ in 0..PASSES_MAX {
            if batch.is_empty() {
                break;
            }
            let errors = self.pass(batch)?;
            let mut again = Vec::new();
            for (operation, error) in batch.drain(..).zip(errors) {
                again.extend(self.settle(operation, error));
            }
            batch.append(&mut again);
        }
        // Every chain is shorter than the passes; should that change, say so.
        for operation in batch.drain(..) {
            self.fail(operation, Errno::LOOP.raw_os_error());
        }
        Ok(())
    }

    /// Sends one message or more per operation and returns the errno (0: done) of each.
    fn pass(&mut self, operations: &[Operation]) -> Result<Vec<i32>, NetlinkError> {
        let mut request = std::mem::take(&mut self.request);
        request.clear();
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
        let sent = self.socket.send(&request);
        self.request = request;
        sent?;
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
    fn settle(&mut self, mut operation: Operation, error: i32) -> Option<Operation> {
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
        let is_fixed = operation
            .entry
            .as_ref()
            .is_some_and(|entry| entry.status.has(Status::FIXED_TIMEOUT));
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
            // The timeout of the copy is fixed, as that of the original: it was right and runs on.
            (Step::Update, Errno::PERM) if is_fixed => operation.step = Step::UpdateFixed,
            (Step::Update | Step::UpdateFixed, Errno::NOENT) if complete => {
                operation.step = Step::Create;
            }
            // EBUSY and EPERM: the copy has a bit that it cannot lose; EPERM: that of a fixed timeout.
            (Step::Update | Step::UpdateFixed, Errno::BUSY | Errno::PERM | Errno::OPNOTSUPP)
                if complete =>
            {
                operation.step = Step::Replace;
            }
            // The last thing an update sets are the labels; this kernel keeps none.
            (Step::Update | Step::UpdateFixed, Errno::NOSPC) => {
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

    fn succeed(&mut self, operation: &Operation) {
        match operation.step {
            Step::Create => self.stats.created += 1,
            Step::Replace | Step::ReplaceBoth => {
                self.stats.created += 1;
                self.stats.replaced += 1;
            }
            Step::Update | Step::UpdateFixed | Step::MakeStrict => self.stats.updated += 1,
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

    fn fail(&mut self, operation: Operation, error: i32) {
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
                Step::Update | Step::UpdateFixed | Step::MakeStrict => "update",
                Step::Delete => "delete",
            },
            error: io::Error::from_raw_os_error(error),
        });
    }
}
