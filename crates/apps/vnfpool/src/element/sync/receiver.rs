//! The standby's end: a thread between the link of the active and the sink of a class.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver as Queue, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use vnfpool_heartbeat::{Interest, Poller, Waker};
use vnfpool_model::{Epoch, SlotId, Time};
use vnfpool_statesync::wire::{Decoder, Frame};
use vnfpool_statesync::{
    Effects, Receiver, ReceiverAction, ReceiverInput, ReceiverStatus, Ticket, Watermark,
};
use vnfpool_transport::link::{Link, Received};

use super::class::{Class, Sink};
use crate::pulse::now;

/// Messages that wait for the thread.
const COMMANDS_MAX: usize = 64;

/// Receipts from the network, of 16 KiB at most, before what they brought is flushed and
/// acknowledged: the kernel writes faster what comes in great numbers.
const RECEIVES_AT_ONCE: usize = 32;

/// Looks at its commands at least so often.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The thread ends when its handle is dropped or the stream ends.
#[derive(Debug)]
pub(super) struct Handle {
    commands: SyncSender<(u64, bool)>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    told: Mutex<Option<(u64, bool)>>,
    status: Arc<Mutex<(ReceiverStatus, Watermark)>>,
}

impl Handle {
    pub(super) fn set_epoch(&self, epoch: Epoch, accepts: bool) {
        let news = (epoch.fencing_token(), accepts);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(news) && self.commands.try_send(news).is_ok() {
            *told = Some(news);
            self.waker.wake();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> (ReceiverStatus, Watermark) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// A stream that has begun: everything that its thread needs.
pub(super) struct Stream {
    pub(super) slot: SlotId,
    pub(super) class: Class,
    pub(super) link: Link,
    pub(super) poller: Poller,
    /// Its first frame, the hello.
    pub(super) hello: Frame,
    pub(super) decoder: Decoder,
}

/// What runs in the thread; gives the handle to whoever decides about it.
pub(super) struct Running {
    stream: Stream,
    commands: Queue<(u64, bool)>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    status: Arc<Mutex<(ReceiverStatus, Watermark)>>,
}

/// The two sides of a stream's thread.
pub(super) fn prepare(stream: Stream) -> (Handle, Running) {
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let (stop, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let status = Arc::<Mutex<(ReceiverStatus, Watermark)>>::default();
    let handle = Handle {
        commands,
        waker: stream.poller.waker(),
        stop: Arc::clone(&stop),
        ended: Arc::clone(&ended),
        told: Mutex::new(None),
        status: Arc::clone(&status),
    };
    let running = Running {
        stream,
        commands: received,
        stop,
        ended,
        status,
    };
    (handle, running)
}

impl Running {
    /// Runs the stream to its end, in the calling thread.
    pub(super) fn run(self) {
        let _over = super::SetAtEnd(Arc::clone(&self.ended));
        let (slot, class) = (self.stream.slot, self.stream.class.name().clone());
        let outcome = (self.stream.class.open_sink)(self.stream.slot).and_then(|sink| {
            let Stream {
                class,
                link,
                poller,
                hello,
                decoder,
                ..
            } = self.stream;
            let mut thread = Thread {
                sink,
                machine: Receiver::new(class.offer),
                link,
                poller,
                decoder,
                received: BytesMut::new(),
                effects: Effects::default(),
                applied: None,
                slot,
                over: false,
            };
            thread.run(hello, &self.commands, &self.stop, &self.status)
        });
        if let Err(error) = outcome {
            tracing::warn!(%slot, %class, "the state stream of the active ended: {error:#}");
        }
    }
}

struct Thread {
    sink: Box<dyn Sink>,
    machine: Receiver,
    link: Link,
    poller: Poller,
    decoder: Decoder,
    received: BytesMut,
    effects: Effects<ReceiverAction>,
    /// The newest action that waits for a flush.
    applied: Option<Ticket>,
    slot: SlotId,
    over: bool,
}

impl Thread {
    fn run(
        &mut self,
        hello: Frame,
        commands: &Queue<(u64, bool)>,
        stop: &AtomicBool,
        status: &Mutex<(ReceiverStatus, Watermark)>,
    ) -> anyhow::Result<()> {
        // The stream waits until it is known whom we believe.
        let mut hello = Some(hello);
        let mut closed = false;
        while !self.over && !closed && !stop.load(Ordering::Acquire) {
            while let Ok((token, accepts)) = commands.try_recv() {
                self.feed(ReceiverInput::Epoch { token, accepts })?;
                if let Some(hello) = hello.take() {
                    self.feed(ReceiverInput::Connected)?;
                    self.feed(ReceiverInput::Frame(hello))?;
                }
            }
            let mut received = Received::All;
            if hello.is_none() {
                received = self.receive()?;
                closed = received == Received::Closed;
            }
            self.flush()?;
            if let Some(chunk) = self.sink.read_sweep()? {
                self.feed(chunk)?;
                self.flush()?;
            }
            if self.machine.deadline().is_some_and(|due| due <= now()) {
                self.feed(ReceiverInput::Tick)?;
            }
            let all_sent = self.link.flush()?;
            *status.lock().unwrap_or_else(PoisonError::into_inner) =
                (self.machine.status(), self.machine.watermark());
            let reads_on = self.sink.sweeps() && self.sink.sweep_fd().is_none();
            if received == Received::All && !reads_on {
                self.wait(all_sent, hello.is_none());
            }
        }
        self.flush()
    }

    fn wait(&self, all_sent: bool, listens: bool) {
        let due = self.machine.deadline().unwrap_or(Time::NEVER);
        let due = due.min(now().after(LOOK_AGAIN));
        let of_link = match all_sent {
            true => Interest::Read,
            false => Interest::ReadOrWrite,
        };
        let wanted = listens.then(|| (self.link.as_fd(), of_link));
        let sweep = self.sink.sweep_fd().map(|fd| (fd, Interest::Read));
        self.poller.wait_for(wanted.into_iter().chain(sweep), due.0);
    }

    /// Takes what has come, and what comes meanwhile, up to a limit.
    fn receive(&mut self) -> anyhow::Result<Received> {
        for _ in 0..RECEIVES_AT_ONCE {
            let received = self.link.receive(&mut self.received)?;
            self.take()?;
            if received != Received::More {
                return Ok(received);
            }
        }
        Ok(Received::More)
    }

    fn take(&mut self) -> anyhow::Result<()> {
        self.decoder.push(&self.received.split());
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.feed(ReceiverInput::Frame(frame))?,
                Ok(None) => return Ok(()),
                Err(error) => return self.feed(ReceiverInput::Malformed(error)),
            }
        }
    }

    /// Brings what was applied into the table and says so.
    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(ticket) = self.applied.take() else {
            return Ok(());
        };
        self.sink.flush()?;
        for (key, reason) in self.sink.take_failures() {
            tracing::debug!(slot = %self.slot, reason, "a replicated entry was refused");
            self.feed(ReceiverInput::Unapplied { key })?;
        }
        self.feed(ReceiverInput::Applied(ticket))
    }

    fn feed(&mut self, input: ReceiverInput) -> anyhow::Result<()> {
        let slot = self.slot;
        self.machine.handle(now(), input, &mut self.effects);
        for action in std::mem::take(&mut self.effects.actions) {
            match self.sink.apply(&action) {
                Ok(Some(ticket)) => self.applied = Some(ticket),
                Ok(None) => match action {
                    ReceiverAction::Close { reason } => {
                        tracing::info!(%slot, "the state stream of the active is refused: {reason}");
                        self.over = true;
                    }
                    ReceiverAction::Diverged {
                        buckets,
                        missing,
                        surplus,
                        altered,
                    } => {
                        tracing::warn!(%slot, buckets, missing, surplus, altered, "the copy differs from the active's state: mending it");
                    }
                    _ => {}
                },
                Err(error) => {
                    self.over = true;
                    tracing::warn!(%slot, "replicated state could not be applied: {error:#}");
                    self.machine
                        .handle(now(), ReceiverInput::ApplyFailed, &mut self.effects);
                    break;
                }
            }
        }
        if !self.effects.outgoing.is_empty() {
            let bytes = self.effects.outgoing.split();
            self.link.send(&bytes)?;
        }
        Ok(())
    }
}
