//! The active's end: a thread between the kernel's events and the stream to one standby.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;
use vnfpool_conntrack::{EVENT_BUFFER_BYTES, ReadOutcome, Scope, Source};
use vnfpool_heartbeat::{Poller, Waker};
use vnfpool_model::{Epoch, SlotId, Time};
use vnfpool_statesync::wire::Decoder;
use vnfpool_statesync::{Effects, Limits, Sender, SenderAction, SenderInput, SenderStatus};
use vnfpool_succession::element::Input;
use vnfpool_wire::datagram::Member;

use super::{Io, SetAtEnd, Taken, WakeAtEnd};
use crate::element::pulse::Pulse;
use crate::pulse::now;

/// Messages that wait for the thread.
const COMMANDS_MAX: usize = 256;

/// Chunks of bytes that wait for the network; the machine bounds their size.
const OUTGOING_MAX: usize = 8_192;

/// Reads of events before the network is looked at again.
const READS_AT_ONCE: usize = 2;

/// Frames below the transport's bound.
const FRAME_BYTES_MAX: usize = 256 * 1024;

enum Command {
    Bytes(Bytes),
    Epoch { token: u64, is_active: bool },
    Drain,
}

/// The thread ends when its handle is dropped or the stream ends.
#[derive(Debug)]
pub(super) struct Handle {
    commands: SyncSender<Command>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    told: Mutex<Option<(u64, bool)>>,
    status: Arc<Mutex<SenderStatus>>,
}

impl Handle {
    pub(super) fn set_epoch(&self, epoch: Epoch, is_active: bool) {
        let news = (epoch.fencing_token(), is_active);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != Some(news) {
            let command = Command::Epoch {
                token: news.0,
                is_active,
            };
            if self.commands.try_send(command).is_ok() {
                *told = Some(news);
                self.waker.wake();
            }
        }
    }

    pub(super) fn drain(&self) {
        // A full queue answers by the machine's own patience with handovers.
        if self.commands.try_send(Command::Drain).is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Set when the thread has ended and will say nothing more.
    pub(super) fn ended(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.ended)
    }

    pub(super) fn status(&self) -> SenderStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Starts the thread. Without a kernel to listen to it ends at once and says why in the log.
pub(super) fn start(
    slot: SlotId,
    to: Member,
    pulse: Pulse,
    scope: Scope,
    epoch: Epoch,
) -> anyhow::Result<(Handle, Io)> {
    let (commands, received) = sync_channel(COMMANDS_MAX);
    let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING_MAX);
    let (stop, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let status = Arc::new(Mutex::new(SenderStatus::default()));
    let poller = Poller::new()?;
    let waker = poller.waker();
    let parts = Parts {
        slot,
        to,
        pulse,
        scope,
        poller,
        commands: received,
        outgoing,
        status: Arc::clone(&status),
        stop: Arc::clone(&stop),
    };
    let over = SetAtEnd(Arc::clone(&ended));
    std::thread::Builder::new().name("state-out".into()).spawn(move || {
        let _over = over;
        let outcome = Thread::open(parts).and_then(|mut thread| thread.run(epoch));
        if let Err(error) = outcome {
            tracing::warn!(%slot, peer = to.node.0, "the state stream to the standby ended: {error:#}");
        }
    })?;
    let handle = Handle {
        commands: commands.clone(),
        waker: waker.clone(),
        stop,
        ended,
        told: Mutex::new(None),
        status,
    };
    let at_end = WakeAtEnd(Some(waker.clone()));
    let incoming = Box::new(move |bytes| {
        let taken = match commands.try_send(Command::Bytes(bytes)) {
            Ok(()) => Taken::Yes,
            Err(TrySendError::Full(Command::Bytes(bytes))) => Taken::Later(bytes),
            Err(_) => Taken::Never,
        };
        waker.wake();
        taken
    });
    Ok((
        handle,
        Io {
            outgoing: outgoing_receiver,
            incoming,
            at_end,
        },
    ))
}

struct Parts {
    slot: SlotId,
    to: Member,
    pulse: Pulse,
    scope: Scope,
    poller: Poller,
    commands: Receiver<Command>,
    outgoing: mpsc::Sender<Bytes>,
    status: Arc<Mutex<SenderStatus>>,
    stop: Arc<AtomicBool>,
}

struct Thread {
    parts: Parts,
    machine: Sender,
    decoder: Decoder,
    effects: Effects<SenderAction>,
    source: Source,
    inputs: Vec<SenderInput>,
    drains: u64,
    in_sync: bool,
    over: bool,
}

impl Thread {
    fn open(parts: Parts) -> anyhow::Result<Self> {
        let source = Source::open(parts.scope.clone(), EVENT_BUFFER_BYTES)?;
        Ok(Self {
            parts,
            machine: Sender::new(Limits::default()),
            decoder: Decoder::new(),
            effects: Effects::default(),
            source,
            inputs: Vec::new(),
            drains: 0,
            in_sync: false,
            over: false,
        })
    }

    fn run(&mut self, epoch: Epoch) -> anyhow::Result<()> {
        self.feed(SenderInput::Epoch {
            token: epoch.fencing_token(),
            is_active: true,
        })?;
        self.feed(SenderInput::Connected)?;
        while !self.over && !self.parts.stop.load(Ordering::Acquire) {
            if self.parts.outgoing.is_closed() {
                // A standby that has everything but its acknowledgement under way gets nothing
                // more to send: it has to be looked for.
                anyhow::bail!("the standby ended it");
            }
            let drained = self.read_events()?;
            self.obey()?;
            if self.machine.deadline().is_some_and(|due| due <= now()) {
                self.feed(SenderInput::Tick)?;
            }
            let chunk = match self.machine.wants_chunk() {
                true => self.source.read_chunk()?,
                false => None,
            };
            let more = chunk.is_some();
            if let Some(chunk) = chunk {
                self.feed(chunk)?;
            }
            *self
                .parts
                .status
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = self.machine.status();
            if drained && !more {
                let due = self.machine.deadline().unwrap_or(Time::NEVER);
                let due = due.min(now().after(std::time::Duration::from_secs(1)));
                self.parts
                    .poller
                    .wait(std::iter::once(self.source.as_fd()), due.0);
            }
        }
        Ok(())
    }

    /// Hands waiting events to the machine; true when there are no more.
    fn read_events(&mut self) -> anyhow::Result<bool> {
        for _ in 0..READS_AT_ONCE {
            let outcome = self.source.read(&mut self.inputs)?;
            for input in std::mem::take(&mut self.inputs) {
                self.feed(input)?;
            }
            match outcome {
                ReadOutcome::Drained => return Ok(true),
                ReadOutcome::More => {}
                ReadOutcome::Overrun { .. } => {
                    let slot = self.parts.slot;
                    tracing::warn!(%slot, "the kernel lost connection events: resynchronising");
                }
            }
        }
        Ok(false)
    }

    fn obey(&mut self) -> anyhow::Result<()> {
        while let Ok(command) = self.parts.commands.try_recv() {
            match command {
                Command::Bytes(bytes) => {
                    self.decoder.push(&bytes);
                    while let Some(frame) = self.decoder.next_frame()? {
                        self.feed(SenderInput::Frame(frame))?;
                    }
                }
                Command::Epoch { token, is_active } => {
                    self.feed(SenderInput::Epoch { token, is_active })?;
                }
                Command::Drain => {
                    // The gate is closed: what the kernel has queued is all there will be.
                    while !self.read_events()? {}
                    self.drains += 1;
                    self.feed(SenderInput::Drain { id: self.drains })?;
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, input: SenderInput) -> anyhow::Result<()> {
        self.machine.handle(now(), input, &mut self.effects);
        for action in std::mem::take(&mut self.effects.actions) {
            match action {
                SenderAction::StartSnapshot { generation } => {
                    self.source.start_snapshot(generation)?;
                }
                SenderAction::AbortSnapshot => self.source.abort_snapshot(),
                SenderAction::Close => self.over = true,
                SenderAction::Drained { .. } | SenderAction::DrainFailed { .. } => {
                    self.parts.pulse.input(self.parts.slot, Input::Drained);
                }
                SenderAction::InSync(in_sync) => self.tell_in_sync(in_sync),
                SenderAction::Proved { as_of } => self.tell_copy(Some(as_of)),
                SenderAction::Lagging => {
                    tracing::warn!(slot = %self.parts.slot, "the standby does not keep up");
                }
                SenderAction::Refused { reason, version } => {
                    anyhow::bail!("the standby refuses the stream: {reason:?}, version {version}");
                }
                SenderAction::PeerMisbehaved => anyhow::bail!("the standby answered nonsense"),
                _ => {}
            }
        }
        while !self.effects.outgoing.is_empty() {
            let length = self.effects.outgoing.len().min(FRAME_BYTES_MAX);
            let bytes = self.effects.outgoing.split_to(length).freeze();
            if self.parts.outgoing.try_send(bytes).is_err() {
                anyhow::bail!("the stream is over");
            }
        }
        Ok(())
    }

    fn tell_in_sync(&mut self, in_sync: bool) {
        if self.in_sync != in_sync {
            self.in_sync = in_sync;
            let (slot, peer) = (self.parts.slot, self.parts.to);
            tracing::info!(%slot, peer = peer.node.0, in_sync, "service state of the standby");
            if !in_sync {
                self.tell_copy(None);
            }
        }
    }

    fn tell_copy(&self, as_of: Option<Time>) {
        let peer = self.parts.to;
        let input = Input::InSync { peer, as_of };
        self.parts.pulse.input(self.parts.slot, input);
    }
}

impl Drop for Thread {
    /// However it ends, also by an error: a standby that is fed no longer is not in sync (I5).
    fn drop(&mut self) {
        self.tell_in_sync(false);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::{Duration, Instant};

    use vnfpool_model::Incarnation;
    use vnfpool_statesync::wire::Body;
    use vnfpool_wire::datagram::NodeId;

    use super::*;
    use crate::element::pulse;

    fn standby() -> Member {
        Member {
            node: NodeId(2),
            incarnation: Incarnation(1),
        }
    }

    /// Goal: a standby that turns the stream away when it has everything, and so is sent nothing
    /// more, is seen to have done so; else no stream is ever opened anew. (Needs root, for the
    /// kernel's events.)
    #[test]
    fn a_stream_that_the_standby_ends_is_over() {
        let (pulse, _inbox) = Pulse::new().unwrap();
        let epoch = Epoch { term: 1, turn: 0 };
        let scope = Scope::new(std::iter::empty());
        let (handle, mut io) = start(SlotId(1), standby(), pulse, scope, epoch).unwrap();
        // The snapshot is over when the thread wants no more of the table.
        let mut decoder = Decoder::new();
        loop {
            decoder.push(&io.outgoing.blocking_recv().unwrap());
            let mut frames = std::iter::from_fn(|| decoder.next_frame().unwrap());
            if frames.any(|frame| matches!(frame.body, Body::SnapshotEnd { .. })) {
                break;
            }
        }
        drop(io);
        let asked = Instant::now();
        while !handle.has_ended() {
            assert!(asked.elapsed() < Duration::from_secs(60), "never ends");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Goal: a stream that ends by an error leaves nobody in sync (I5). Method: nobody carries
    /// its bytes. (Needs root, for the kernel's events.)
    #[test]
    fn a_standby_whose_stream_broke_is_not_in_sync() {
        let (pulse, inbox) = Pulse::new().unwrap();
        let (outgoing, nobody) = mpsc::channel(1);
        drop(nobody);
        let (_commands, received) = sync_channel(1);
        let to = standby();
        let parts = Parts {
            slot: SlotId(1),
            to,
            pulse,
            scope: Scope::new(std::iter::empty()),
            poller: Poller::new().unwrap(),
            commands: received,
            outgoing,
            status: Arc::default(),
            stop: Arc::default(),
        };
        let mut thread = Thread::open(parts).unwrap();
        thread.tell_in_sync(true);
        assert!(thread.run(Epoch { term: 1, turn: 0 }).is_err());
        drop(thread);
        let mut commands = VecDeque::new();
        inbox.take(&mut commands);
        let told = commands.into_iter().map(|command| match command {
            pulse::Command::Input {
                input: Input::InSync { peer, as_of },
                ..
            } => (peer, as_of),
            _ => panic!("only this was to be told"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [(to, None)]);
    }
}
