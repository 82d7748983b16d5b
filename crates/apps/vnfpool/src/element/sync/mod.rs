//! Service state between this element and its peers: who sends, who receives, in which epoch.
//!
//! ```text
//!  kernel --events--> sender thread --bytes--> writer task ==QUIC==> reader task --> receiver thread --> kernel
//!                         ^                                              |
//!                         +--------------- acknowledgements -------------+
//! ```
//!
//! The active sends to one standby at a time: the armed one, or the candidate that the manager
//! named. What a stream carries, and when a copy is complete, is decided by the machines of
//! `vnfpool-statesync`; the threads here feed them.

mod receiver;
mod sender;
mod settle;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use vnfpool_conntrack::Scope;
use vnfpool_heartbeat::Waker;
use vnfpool_model::{Epoch, Role, SlotId};
use vnfpool_statesync::{ReceiverStatus, SenderStatus};
use vnfpool_succession::element::Input;
use vnfpool_transport::quic::{Connection, FrameReader, FrameWriter, StreamKind};
use vnfpool_wire::datagram::{Member, NodeId};

use super::pulse::{Pulse, SlotView};
use settle::Settling;

/// A stream that ended is opened again after this time.
const REOPEN_AFTER: Duration = Duration::from_millis(50);

/// A stream may come before the record that says why; it waits for so long, in steps.
const RECORD_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(2));

/// All streams of this element.
#[derive(Debug)]
pub(crate) struct SyncHub {
    pulse: Pulse,
    scope: Scope,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: BTreeMap<SlotId, SlotState>,
    settling: Settling,
}

#[derive(Debug, Default)]
struct SlotState {
    /// Whom the manager wants brought into sync while nobody is armed.
    candidate: Option<NodeId>,
    sending: Option<Sending>,
    /// Whether the thread of the stream before has ended. Until then it may still say that the
    /// standby is not in sync, which would be taken for news of the next one.
    former_ended: Option<Arc<AtomicBool>>,
    receiving: Option<Receiving>,
    ended_at: Option<Instant>,
    was_active: bool,
}

#[derive(Debug)]
struct Sending {
    to: Member,
    connection: usize,
    handle: sender::Handle,
}

#[derive(Debug)]
struct Receiving {
    from: Member,
    handle: receiver::Handle,
}

/// Figures of a slot's replication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SyncFigures {
    pub(crate) sender: Option<SenderStatus>,
    pub(crate) receiver: Option<ReceiverStatus>,
}

impl SyncHub {
    /// Nothing is sent or received yet.
    pub(crate) fn new(pulse: Pulse, scope: Scope) -> Self {
        Self {
            pulse,
            scope,
            state: Mutex::new(State::default()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom the lone active of `slot` should feed.
    pub(crate) fn set_candidate(&self, slot: SlotId, candidate: Option<NodeId>) {
        self.state().slots.entry(slot).or_default().candidate = candidate;
    }

    /// The slot is no longer ours.
    pub(crate) fn remove(&self, slot: SlotId) {
        self.state().slots.remove(&slot);
    }

    /// Figures of every slot.
    pub(crate) fn figures(&self) -> BTreeMap<SlotId, SyncFigures> {
        let state = self.state();
        let figures = |slot: &SlotState| SyncFigures {
            sender: slot.sending.as_ref().map(|s| s.handle.status()),
            receiver: slot.receiving.as_ref().map(|r| r.handle.status()),
        };
        state
            .slots
            .iter()
            .map(|(id, slot)| (*id, figures(slot)))
            .collect()
    }

    /// Brings the streams in line with roles and connections. Called on every change and often.
    pub(crate) fn steer(
        self: &Arc<Self>,
        views: &BTreeMap<SlotId, SlotView>,
        connections: &BTreeMap<NodeId, (Member, Connection)>,
    ) {
        let mut state = self.state();
        let State { slots, settling } = &mut *state;
        for (id, slot) in slots.iter_mut() {
            let view = views.get(id).copied().unwrap_or_default();
            slot.tell_epoch(&view);
            let is_active = view.role == Role::Active;
            if is_active && !slot.was_active {
                settling.begin();
            }
            slot.was_active = is_active;
            let ended = slot.sending.as_ref().is_some_and(|s| s.handle.has_ended());
            if ended {
                slot.sending = None;
                slot.ended_at = Some(Instant::now());
            }
            if slot
                .receiving
                .as_ref()
                .is_some_and(|r| r.handle.has_ended())
            {
                slot.receiving = None;
            }
            let target = slot.target(&view).and_then(|node| connections.get(&node));
            let wanted = target.map(|(member, connection)| (*member, connection.stable_id()));
            let current = slot.sending.as_ref().map(|s| (s.to, s.connection));
            if current == wanted {
                continue;
            }
            if let Some(sending) = slot.sending.take() {
                slot.former_ended = Some(sending.handle.ended());
            }
            let former_ended = slot.former_ended.as_ref();
            let resting = slot.ended_at.is_some_and(|at| at.elapsed() < REOPEN_AFTER)
                || former_ended.is_some_and(|ended| !ended.load(Ordering::Acquire));
            if let Some((to, connection)) = target
                && !resting
            {
                match self.open(*id, *to, connection, view.epoch) {
                    Ok(handle) => {
                        let connection = connection.stable_id();
                        slot.sending = Some(Sending {
                            to: *to,
                            connection,
                            handle,
                        });
                    }
                    Err(error) => {
                        tracing::error!("no service state can be sent: {error:#}");
                        slot.ended_at = Some(Instant::now());
                    }
                }
            }
        }
        let is_standby = slots.values().any(|slot| slot.receiving.is_some());
        settling.run(&self.scope, is_standby);
    }

    fn open(
        self: &Arc<Self>,
        slot: SlotId,
        to: Member,
        connection: &Connection,
        epoch: Epoch,
    ) -> anyhow::Result<sender::Handle> {
        let (handle, io) = sender::start(slot, to, self.pulse.clone(), self.scope.clone(), epoch)?;
        let connection = connection.clone();
        tokio::spawn(async move {
            let peer = to.node.0;
            match connection.open_stream(StreamKind::State).await {
                Ok((mut writer, reader)) => {
                    if writer.send(slot.0.to_le_bytes().to_vec()).await.is_ok() {
                        carry(io, writer, reader).await;
                    }
                }
                Err(error) => tracing::warn!(%slot, peer, %error, "no state stream to the standby"),
            }
        });
        Ok(handle)
    }

    /// Takes a state stream that `from` has opened.
    pub(crate) async fn accept(
        self: Arc<Self>,
        from: Member,
        writer: FrameWriter,
        mut reader: FrameReader,
    ) {
        let Ok(Some(first)) = reader.recv().await else {
            return;
        };
        let Ok(slot) = <[u8; 4]>::try_from(&*first) else {
            return;
        };
        let slot = SlotId(u32::from_le_bytes(slot));
        let Some(view) = self.wait_for_record(slot, from).await else {
            // It takes nothing from the stream of the active, which may be there.
            return tracing::info!(%slot, peer = from.node.0, "a state stream is refused: not of the active");
        };
        let io = {
            let mut state = self.state();
            let Some(known) = state.slots.get_mut(&slot) else {
                return;
            };
            let (handle, io) = receiver::start(slot, self.scope.clone());
            // The older stream, if any, ends with its handle.
            known.receiving = Some(Receiving { from, handle });
            known.tell_epoch(&view);
            io
        };
        carry(io, writer, reader).await;
    }

    /// The view in which `from` is known here as the slot's active; none if it never is.
    async fn wait_for_record(&self, slot: SlotId, from: Member) -> Option<SlotView> {
        let (patience, step) = RECORD_WAIT;
        let began = Instant::now();
        while began.elapsed() < patience {
            let known = self.pulse.view().slots.get(&slot).copied();
            if let Some(view) = known.filter(|s| s.active == Some(from)) {
                return Some(view);
            }
            tokio::time::sleep(step).await;
        }
        None
    }

    /// Whose stream is taken in for a slot.
    #[cfg(test)]
    pub(super) fn receives_from(&self, slot: SlotId) -> Option<Member> {
        let state = self.state();
        Some(state.slots.get(&slot)?.receiving.as_ref()?.from)
    }

    /// Brings what the stopped data plane left to the successor, then tells the machine.
    pub(crate) fn drain(&self, slot: SlotId) {
        let state = self.state();
        match state.slots.get(&slot).and_then(|s| s.sending.as_ref()) {
            Some(sending) => sending.handle.drain(),
            None => self.pulse.input(slot, Input::Drained),
        }
    }
}

impl SlotState {
    /// The armed standby, or else the candidate.
    fn target(&self, view: &SlotView) -> Option<NodeId> {
        if view.role != Role::Active {
            return None;
        }
        view.peer.map(|peer| peer.node).or(self.candidate)
    }

    fn tell_epoch(&self, view: &SlotView) {
        if let Some(sending) = &self.sending {
            sending
                .handle
                .set_epoch(view.epoch, view.role == Role::Active);
        }
        if let Some(receiving) = &self.receiving {
            let accepts = view.active == Some(receiving.from) && view.role != Role::Active;
            receiving.handle.set_epoch(view.epoch, accepts);
        }
    }
}

/// Says that a stream's thread is over, however it ended: it is opened again then.
struct SetAtEnd(Arc<AtomicBool>);

impl Drop for SetAtEnd {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The network's side of a machine's thread. The thread ends when it is dropped.
struct Io {
    /// Bytes for the peer.
    outgoing: mpsc::Receiver<bytes::Bytes>,
    /// Bytes of the peer; false when the thread does not take them any more.
    incoming: Box<dyn FnMut(bytes::Bytes) -> Taken + Send>,
    /// Has the thread look, once `outgoing` is gone, whether the stream is over.
    at_end: WakeAtEnd,
}

/// Wakes a thread when dropped, if it waits for more than its queue.
struct WakeAtEnd(Option<Waker>);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        if let Some(waker) = &self.0 {
            waker.wake();
        }
    }
}

/// Whether the thread takes bytes.
enum Taken {
    Yes,
    /// Its queue is full: try again in a moment.
    Later(bytes::Bytes),
    /// It has ended.
    Never,
}

/// Carries bytes between a thread and a stream until either ends.
async fn carry(io: Io, mut writer: FrameWriter, mut reader: FrameReader) {
    // Declared first, dropped last: after `outgoing`.
    let _at_end = io.at_end;
    let (mut outgoing, mut incoming) = (io.outgoing, io.incoming);
    let write = async {
        while let Some(bytes) = outgoing.recv().await {
            if writer.send(bytes).await.is_err() {
                break;
            }
        }
        // The peer sees the end of the stream and ends its thread.
        let _ = writer.finish().await;
    };
    let read = async {
        while let Ok(Some(bytes)) = reader.recv().await {
            let mut bytes = bytes;
            loop {
                match incoming(bytes) {
                    Taken::Yes => break,
                    Taken::Never => return,
                    Taken::Later(back) => {
                        bytes = back;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}
