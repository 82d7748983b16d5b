//! One connection to the agent: a task that writes, one that reads.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::request::Kind;
use vnfpool_wire::sdk::{self as wire, MarkerKind, Registered, Reply, Request, RoleKind};

use crate::event::{Active, Event, Role, SlotId};
use crate::shared::Shared;
use crate::watch::Seen;
use crate::{ConnectError, Level};

/// What is read at once.
const READ_BYTES: usize = 64 * 1024;

/// A watch whose changes nobody takes holds the connection up for so long, then it is ended.
const WATCH_PATIENCE: Duration = Duration::from_secs(1);

/// That this element has become the active waits for so long until the function has taken what its
/// watches of the slot have to show from before.
const ROLE_PATIENCE: Duration = Duration::from_millis(200);

/// The two ends of a connection after the registration.
#[derive(Debug)]
pub(crate) struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    incoming: BytesMut,
    pub(crate) registered: Registered,
}

/// Connects and registers.
pub(crate) async fn open(path: &Path, shared: &Shared) -> Result<Connection, ConnectError> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|source| ConnectError::Connect {
        path: path.to_owned(),
        source,
    })?;
    let (mut reader, mut writer) = stream.into_split();
    let mut out = BytesMut::new();
    let register = shared.function.to_wire(shared.state().has_state);
    let kind = Some(Kind::Register(register));
    wire::encode(&Request { kind }, &mut out);
    // An agent that turns it away unread may have closed already: its answer says why.
    let written = writer.write_all(&out).await;
    let mut incoming = BytesMut::with_capacity(READ_BYTES);
    loop {
        match next_reply(&mut incoming).map_err(ConnectError::Malformed)? {
            Some(ReplyKind::Registered(registered)) => {
                return Ok(Connection {
                    reader,
                    writer,
                    incoming,
                    registered,
                });
            }
            Some(ReplyKind::Failure(failure)) => {
                return Err(ConnectError::Refused {
                    code: failure.code,
                    text: failure.text,
                });
            }
            Some(_) => {
                return Err(ConnectError::Malformed("no answer to Register".to_owned()));
            }
            None if written.is_err() => return Err(ConnectError::Ended),
            None => {}
        }
        match reader.read_buf(&mut incoming).await {
            Ok(0) | Err(_) => return Err(ConnectError::Ended),
            Ok(_) => {}
        }
    }
}

fn next_reply(incoming: &mut BytesMut) -> Result<Option<ReplyKind>, String> {
    loop {
        match wire::decode::<Reply>(incoming) {
            Ok(Some(Reply { kind: Some(kind) })) => return Ok(Some(kind)),
            // Of a newer agent.
            Ok(Some(Reply { kind: None })) => {}
            Ok(None) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Serves a connection to its end; why it ended.
pub(crate) async fn serve(
    connection: Connection,
    shared: &Arc<Shared>,
    events: &mpsc::Sender<Event>,
) -> String {
    let Connection {
        reader,
        writer,
        incoming,
        ..
    } = connection;
    tokio::select! {
        ended = write(writer, shared) => ended.to_string(),
        ended = read(reader, incoming, shared, events) => ended,
        () = events.closed() => "the function has dropped its events".to_owned(),
    }
}

async fn write(mut writer: OwnedWriteHalf, shared: &Shared) -> io::Error {
    let mut buffer = BytesMut::new();
    loop {
        shared.state().take_output(&mut buffer);
        if buffer.is_empty() {
            shared.work.notified().await;
            continue;
        }
        if let Err(error) = writer.write_all(&buffer).await {
            return error;
        }
        buffer.clear();
        // Requests wait for room in what was taken.
        shared.room.notify_waiters();
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    mut incoming: BytesMut,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
) -> String {
    loop {
        loop {
            match next_reply(&mut incoming) {
                Ok(Some(ReplyKind::Failure(failure))) => {
                    return format!("{}: {}", failure.code, failure.text);
                }
                Ok(Some(kind)) => take(kind, shared, events).await,
                Ok(None) => break,
                Err(error) => return error,
            }
        }
        incoming.reserve(READ_BYTES);
        match reader.read_buf(&mut incoming).await {
            Ok(0) => return "the agent closed the connection".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

async fn take(kind: ReplyKind, shared: &Shared, events: &mpsc::Sender<Event>) {
    match kind {
        ReplyKind::Taken(taken) => {
            shared.state().taken(taken.last);
            shared.room.notify_waiters();
        }
        ReplyKind::Committed(committed) => shared.state().committed(&committed),
        ReplyKind::Found(ref found) => shared.state().answer(found.id, kind.clone()),
        ReplyKind::Entries(ref entries) => shared.state().answer(entries.id, kind.clone()),
        ReplyKind::Changes(changes) => {
            let seen = changes.ops.into_iter().map(Seen::from_wire).collect();
            tell_watch(shared, changes.id, seen).await;
        }
        ReplyKind::Marker(marker) => {
            let seen = match marker.kind() {
                MarkerKind::MarkerLive => Seen::Live,
                MarkerKind::MarkerAnew => Seen::Anew,
                MarkerKind::MarkerRefused => {
                    shared.state().watches.remove(&marker.id);
                    return;
                }
            };
            tell_watch(shared, marker.id, vec![seen]).await;
        }
        ReplyKind::Refused(refused) => {
            let changes = refused.last.saturating_sub(refused.first).saturating_add(1);
            {
                let mut state = shared.state();
                state.taken(refused.last);
                let numbers = (refused.first, refused.last);
                state.refused(refused.slot, refused.class, numbers);
            }
            shared.room.notify_waiters();
            let event = Event::Refused {
                slot: SlotId(refused.slot),
                class: class_name(shared, refused.class),
                changes,
                code: refused.code,
                text: refused.text,
            };
            // Many may come at once, and they say the same: no room is waited for.
            let _ = events.try_send(event);
        }
        ReplyKind::Role(ref role) => {
            let gains = role.role() == RoleKind::RoleActive;
            if gains && shared.state().epoch(role.slot).is_none() {
                wait_for_watches(shared, role.slot).await;
            }
            send_event(kind, shared, events).await;
        }
        ReplyKind::SlotGone(_) | ReplyKind::LevelNow(_) | ReplyKind::Restore(_) => {
            send_event(kind, shared, events).await
        }
        ReplyKind::Registered(_) | ReplyKind::Failure(_) => {}
    }
}

async fn send_event(kind: ReplyKind, shared: &Shared, events: &mpsc::Sender<Event>) {
    if let Some(event) = event_of(kind, shared) {
        // Dropped with the function's end of it.
        let _ = events.send(event).await;
    }
}

/// Waits until the function has taken everything from its watches of a slot that came so far; one
/// that does not read them is not waited for long.
async fn wait_for_watches(shared: &Shared, slot: u32) {
    let ends: Vec<_> = {
        let state = shared.state();
        let watches = state.watches.values().filter(|watch| watch.slot == slot);
        watches
            .map(|watch| (watch.sent, watch.given.clone()))
            .collect()
    };
    let all = async {
        for (sent, mut given) in ends {
            // One that was dropped has taken what it wanted.
            let _ = given.wait_for(|given| *given >= sent).await;
        }
    };
    let _ = tokio::time::timeout(ROLE_PATIENCE, all).await;
}

fn event_of(kind: ReplyKind, shared: &Shared) -> Option<Event> {
    match kind {
        ReplyKind::Role(role) => {
            let (slot, epoch) = (SlotId(role.slot), role.epoch);
            let is_active = role.role() == RoleKind::RoleActive;
            shared
                .state()
                .set_tenure(role.slot, is_active.then_some(epoch));
            Some(Event::Role(match role.role() {
                RoleKind::RoleActive => Role::Active(Active { slot, epoch }),
                RoleKind::RoleStandby => Role::Standby { slot, epoch },
                RoleKind::RoleSpare => Role::Spare { slot, epoch },
            }))
        }
        ReplyKind::SlotGone(gone) => {
            shared.state().set_tenure(gone.slot, None);
            let slot = SlotId(gone.slot);
            Some(Event::Role(Role::Gone { slot }))
        }
        ReplyKind::LevelNow(now) => Some(Event::Level {
            slot: SlotId(now.slot),
            class: class_name(shared, now.class),
            level: Level::from_wire(&now.level.unwrap_or_default()),
            reason: now.reason,
        }),
        ReplyKind::Restore(restore) => {
            let epoch = shared.state().epoch(restore.slot)?;
            let slot = SlotId(restore.slot);
            Some(Event::Restore {
                active: Active { slot, epoch },
                class: class_name(shared, restore.class),
            })
        }
        _ => None,
    }
}

fn class_name(shared: &Shared, class: u32) -> String {
    let index = usize::try_from(class).unwrap_or(usize::MAX);
    let class = shared.function.classes.get(index);
    class.map_or_else(String::new, |class| class.name().to_owned())
}

/// Hands on what is to be seen. A watch that nobody reads is ended rather than everything else held up.
async fn tell_watch(shared: &Shared, id: u64, seen: Vec<Seen>) {
    if seen.is_empty() {
        return;
    }
    let watch = shared.state().watches.get_mut(&id).map(|watch| {
        watch.sent += 1;
        watch.messages.clone()
    });
    let Some(watch) = watch else {
        return;
    };
    let seen = match watch.try_send(seen) {
        Ok(()) => return,
        Err(TrySendError::Full(seen)) => seen,
        Err(TrySendError::Closed(_)) => return end_watch(shared, id),
    };
    if watch.send_timeout(seen, WATCH_PATIENCE).await.is_err() {
        end_watch(shared, id);
    }
}

/// The agent is told when the function drops its end.
fn end_watch(shared: &Shared, id: u64) {
    shared.state().watches.remove(&id);
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;
    use vnfpool_wire::sdk::{Changes, Op};

    use super::*;
    use crate::{Class, Client, Function};

    /// Goal: a function that looks at events first has all the same been shown what came before the
    /// word that it is the active. Method: the agent's answers are written by hand, at once.
    #[tokio::test]
    async fn the_active_has_been_shown_what_its_watch_had() {
        let function = Function::new("f", "1").class(Class::new("c", Level::commit(), 1));
        let shared = Arc::new(Shared::new(function));
        shared.state().connected(1024);
        let client = Client::of(Arc::clone(&shared));
        let mut watch = client.table(SlotId(1), "c").unwrap().watch().await.unwrap();
        let id = *shared.state().watches.keys().next().unwrap();
        let mut told = BytesMut::new();
        let op = Op {
            key: b"k".as_slice().into(),
            value: Some(b"v".as_slice().into()),
            ttl_s: 0,
        };
        let ops = vec![op; 3];
        let role = wire::Role {
            slot: 1,
            role: RoleKind::RoleActive.into(),
            epoch: 1,
            ..wire::Role::default()
        };
        let changes = Changes { id, ops };
        for kind in [
            ReplyKind::Changes(changes.clone()),
            ReplyKind::Changes(changes),
            ReplyKind::Role(role),
        ] {
            wire::encode(&Reply { kind: Some(kind) }, &mut told);
        }
        let (mut agent, function) = UnixStream::pair().unwrap();
        agent.write_all(&told).await.unwrap();
        let (reader, writer) = function.into_split();
        let connection = Connection {
            reader,
            writer,
            incoming: BytesMut::new(),
            registered: Registered::default(),
        };
        let (events, mut happened) = mpsc::channel(8);
        let serving = tokio::spawn(async move { serve(connection, &shared, &events).await });
        let mut seen = 0;
        let event = loop {
            tokio::select! {
                biased;
                event = happened.recv() => break event,
                next = watch.next() => seen += usize::from(next.is_some()),
            }
        };
        assert!(
            matches!(event, Some(Event::Role(Role::Active(_)))),
            "{event:?}"
        );
        assert_eq!(seen, 6);
        drop(happened);
        serving.await.unwrap();
    }
}
