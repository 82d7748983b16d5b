//! The standby's end: a thread between the stream of the active and the kernel's table.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{
    Receiver as Queue, RecvTimeoutError, SyncSender, TrySendError, sync_channel,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use vnfpool_conntrack::{Scope, Sink};
use vnfpool_model::{Epoch, SlotId};
use vnfpool_statesync::wire::Decoder;
use vnfpool_statesync::{Effects, Receiver, ReceiverAction, ReceiverInput, ReceiverStatus, Ticket};

use super::{Io, SetAtEnd, Taken, WakeAtEnd};
use crate::pulse::now;

/// Messages that wait for the thread; the stream waits when it is full.
const COMMANDS_MAX: usize = 256;

/// Acknowledgements that wait for the network.
const OUTGOING_MAX: usize = 1_024;

enum Command {
    Bytes(Bytes),
    Epoch { token: u64, accepts: bool },
}

/// The thread ends when its handle is dropped or the stream ends.
#[derive(Debug)]
pub(super) struct Handle {
    commands: SyncSender<Command>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    told: Mutex<Option<(u64, bool)>>,
    status: Arc<Mutex<ReceiverStatus>>,
}

impl Handle {
    pub(super) fn set_epoch(&self, epoch: Epoch, accepts: bool) {
        let news = (epoch.fencing_token(), accepts);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let command = Command::Epoch {
            token: news.0,
            accepts,
        };
        if *told != Some(news) && self.commands.try_send(command).is_ok() {
            *told = Some(news);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> ReceiverStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Starts the thread.
pub(super) fn start(slot: SlotId, scope: Scope) -> (Handle, Io) {
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING_MAX);
    let (stop, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let status = Arc::new(Mutex::new(ReceiverStatus::default()));
    let over = SetAtEnd(Arc::clone(&ended));
    let shared = (Arc::clone(&stop), over, Arc::clone(&status));
    let spawned = std::thread::Builder::new()
        .name("state-in".into())
        .spawn(move || {
            let (stop, _over, status) = shared;
            let opened = Sink::open().map_err(anyhow::Error::from);
            let outcome = opened.and_then(|sink| {
                let mut thread = Thread {
                    sink,
                    scope,
                    machine: Receiver::new(),
                    decoder: Decoder::new(),
                    effects: Effects::default(),
                    outgoing,
                    applied: None,
                    over: false,
                };
                thread.run(&received, &stop, &status)
            });
            if let Err(error) = outcome {
                tracing::warn!(%slot, "the state stream of the active ended: {error:#}");
            }
        });
    if let Err(error) = spawned {
        tracing::warn!(%slot, %error, "cannot start the thread of a state stream");
    }
    let told = Mutex::new(None);
    let handle = Handle {
        commands: commands.clone(),
        stop,
        ended,
        told,
        status,
    };
    let incoming = Box::new(
        move |bytes| match commands.try_send(Command::Bytes(bytes)) {
            Ok(()) => Taken::Yes,
            Err(TrySendError::Full(Command::Bytes(bytes))) => Taken::Later(bytes),
            Err(_) => Taken::Never,
        },
    );
    (
        handle,
        Io {
            outgoing: outgoing_receiver,
            incoming,
            // Its thread looks by itself, often enough: nobody waits for its end.
            at_end: WakeAtEnd(None),
        },
    )
}

struct Thread {
    sink: Sink,
    scope: Scope,
    machine: Receiver,
    decoder: Decoder,
    effects: Effects<ReceiverAction>,
    outgoing: mpsc::Sender<Bytes>,
    /// The newest action that waits for a flush.
    applied: Option<Ticket>,
    over: bool,
}

impl Thread {
    fn run(
        &mut self,
        commands: &Queue<Command>,
        stop: &AtomicBool,
        status: &Mutex<ReceiverStatus>,
    ) -> anyhow::Result<()> {
        let mut connected = false;
        while !self.over && !stop.load(Ordering::Acquire) {
            let command = match commands.try_recv() {
                Ok(command) => Some(command),
                Err(_) => {
                    // Nothing waits: what is queued goes to the kernel, nobody waits for a batch.
                    self.flush()?;
                    *status.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.status();
                    match commands.recv_timeout(Duration::from_millis(200)) {
                        Ok(command) => Some(command),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    }
                }
            };
            match command {
                Some(Command::Epoch { token, accepts }) => {
                    self.feed(ReceiverInput::Epoch { token, accepts })?;
                    // The stream's first frame waits until it is known whom we believe.
                    if !std::mem::replace(&mut connected, true) {
                        self.feed(ReceiverInput::Connected)?;
                    }
                }
                Some(Command::Bytes(bytes)) => self.take(&bytes)?,
                None => {}
            }
            if self.outgoing.is_closed() {
                self.feed(ReceiverInput::Disconnected)?;
                self.flush()?;
                return Ok(());
            }
        }
        self.flush()
    }

    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.decoder.push(bytes);
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => self.feed(ReceiverInput::Frame(frame))?,
                Ok(None) => return Ok(()),
                Err(error) => return self.feed(ReceiverInput::Malformed(error)),
            }
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let Some(ticket) = self.applied.take() else {
            return Ok(());
        };
        for failure in self.sink.flush()? {
            tracing::debug!(?failure, "the kernel refused a replicated connection");
        }
        self.feed(ReceiverInput::Applied(ticket))
    }

    fn feed(&mut self, input: ReceiverInput) -> anyhow::Result<()> {
        self.machine.handle(now(), input, &mut self.effects);
        for action in std::mem::take(&mut self.effects.actions) {
            match self.sink.apply(&action, &self.scope) {
                Ok(Some(ticket)) => {
                    self.applied = Some(ticket);
                    if matches!(action, ReceiverAction::Flush { .. }) {
                        self.flush()?;
                    }
                }
                Ok(None) => {
                    if let ReceiverAction::Close { reason } = action {
                        tracing::info!(?reason, "the state stream of the active is refused");
                        self.over = true;
                    }
                }
                Err(error) => {
                    self.over = true;
                    tracing::warn!(%error, "replicated state could not be applied");
                    self.machine
                        .handle(now(), ReceiverInput::ApplyFailed, &mut self.effects);
                    break;
                }
            }
        }
        if !self.effects.outgoing.is_empty() {
            let bytes = self.effects.outgoing.split().freeze();
            if self.outgoing.try_send(bytes).is_err() {
                self.over = true;
            }
        }
        Ok(())
    }
}
