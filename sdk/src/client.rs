//! The connection to the agent beside the function, and the next one when the agent was replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use vnfpool_wire::sdk::request::Kind;

use crate::connection::{self, Connection};
use crate::event::{Event, Events, SlotId};
use crate::shared::Shared;
use crate::{ClassError, ConnectError, Function, Health, Table};

/// Events that wait for the function.
const EVENTS_MAX: usize = 1_024;

/// Between two attempts to reach an agent that is gone: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A function's connection to its agent; cheap to clone. It ends with the last of them and its tables,
/// or with its [`Events`].
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    _alive: mpsc::Sender<()>,
}

/// Connects to the agent at `socket` and registers `function`.
///
/// When the agent goes, [`Event::Disconnected`] says so; the connection is opened and the function
/// registered again by itself, for as long as it takes.
///
/// # Errors
/// [`ConnectError`] if that cannot be done now: the first time is not tried again.
pub async fn connect(
    socket: impl AsRef<Path>,
    function: Function,
) -> Result<(Client, Events), ConnectError> {
    let shared = Arc::new(Shared::new(function));
    let socket = socket.as_ref().to_owned();
    let connection = connection::open(&socket, &shared).await?;
    let (events, received) = mpsc::channel(EVENTS_MAX);
    let (alive, ended) = mpsc::channel(1);
    begin(&connection, &shared, &events).await;
    tokio::spawn(keep(socket, connection, Arc::clone(&shared), events, ended));
    let client = Client {
        shared,
        _alive: alive,
    };
    Ok((client, Events(received)))
}

#[cfg(test)]
impl Client {
    /// Of a connection that a test serves itself.
    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        let (_alive, _) = mpsc::channel(1);
        Self { shared, _alive }
    }
}

impl Client {
    /// A class in a slot. It stays usable over reconnections.
    ///
    /// # Errors
    /// [`ClassError`] if the function has not registered it.
    pub fn table(&self, slot: SlotId, class: &str) -> Result<Table, ClassError> {
        match self.shared.function.index_of(class) {
            Some(index) => Ok(Table::new(self.clone(), slot, index)),
            None => Err(ClassError {
                class: class.to_owned(),
            }),
        }
    }

    /// Reports health and load; false without a connection. A new connection begins with what the
    /// [`Function`] said: report again after [`Event::Connected`].
    pub async fn report(&self, health: &Health) -> bool {
        self.shared.request(Kind::Health(health.to_wire())).await
    }
}

async fn begin(connection: &Connection, shared: &Shared, events: &mpsc::Sender<Event>) {
    let registered = &connection.registered;
    shared.state().connected(registered.in_flight_bytes_max);
    let event = Event::Connected {
        element: registered.element.clone(),
        pool: registered.pool.clone(),
    };
    let _ = events.send(event).await;
}

/// Serves connections until the function is done with it, or is turned away.
async fn keep(
    socket: PathBuf,
    mut connection: Connection,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    mut ended: mpsc::Receiver<()>,
) {
    loop {
        let reason = tokio::select! {
            reason = connection::serve(connection, &shared, &events) => reason,
            // Nobody ever sends: this is the last client's end.
            _ = ended.recv() => break,
        };
        let unknown = shared.state().disconnected();
        shared.room.notify_waiters();
        if events
            .send(Event::Disconnected { reason, unknown })
            .await
            .is_err()
        {
            break;
        }
        connection = tokio::select! {
            connected = reconnect(&socket, &shared) => connected,
            _ = ended.recv() => break,
            () = events.closed() => break,
        };
        begin(&connection, &shared, &events).await;
    }
    shared.state().disconnected();
    shared.room.notify_waiters();
}

async fn reconnect(socket: &Path, shared: &Shared) -> Connection {
    let (mut pause, pause_max) = BACKOFF;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(pause_max);
        // Whatever the reason is: an agent that is being replaced gives all of them.
        if let Ok(connection) = connection::open(socket, shared).await {
            return connection;
        }
    }
}
