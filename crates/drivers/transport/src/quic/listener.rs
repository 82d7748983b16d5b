//! The accepting side: many handshakes at once, each bounded, each judged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use quinn::VarInt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connection::{peer_identity, protocol, rejection_of};
use super::endpoint::{Endpoint, EndpointError, server_config};
use super::{ALPN_ENROLMENT, ALPN_MEMBERS, Connection};
use crate::datagram::Side;
use crate::enrolment::Enrolment;
use crate::identity::SpiffeId;
use crate::limits::HandshakeRate;
use crate::policy::PeerPolicy;
use crate::rejection::Rejection;

/// What the accepting side sends, on a stream of its own, to somebody whom it accepts.
pub(crate) const WELCOME: &[u8] = b"vnfpool welcome 1";

/// Connections that wait for the owner of the listener; handshakes wait when it is slow.
const ARRIVALS_MAX: usize = 16;

/// Whom a listener lets in.
#[derive(Clone, Debug)]
pub struct Acceptance {
    /// Which members.
    pub members: PeerPolicy,
    /// Whether joiners without a certificate may call for enrolment.
    pub enrolment: bool,
}

/// Somebody who was let in.
#[derive(Debug)]
pub enum Arrival {
    /// A member, recognised and welcomed.
    Member(Connection),
    /// A joiner who wants a certificate.
    Joiner(Enrolment),
}

/// Accepts on one or several endpoints. Dropping it ends accepting; connections live on.
#[derive(Debug)]
pub struct Listener {
    arrivals: mpsc::Receiver<Arrival>,
    endpoints: Vec<Endpoint>,
    _tasks: JoinSet<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        for endpoint in &self.endpoints {
            endpoint.inner.set_server_config(None);
        }
    }
}

impl Listener {
    /// Begins to accept on all of `endpoints`, within a tokio runtime.
    ///
    /// # Errors
    /// The certificates of an endpoint are missing or unusable.
    pub fn start(endpoints: &[Endpoint], acceptance: Acceptance) -> Result<Self, EndpointError> {
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut tasks = JoinSet::new();
        for endpoint in endpoints {
            let credentials = endpoint
                .credentials
                .as_ref()
                .ok_or(EndpointError::NoCredentials)?;
            let config = server_config(credentials, &endpoint.options, acceptance.enrolment)?;
            endpoint.inner.set_server_config(Some(config));
            let options = &endpoint.options;
            let door = Door {
                handshakes: Arc::new(Semaphore::new(options.handshakes_max)),
                rate: Mutex::new(HandshakeRate::new(
                    options.handshakes_per_second,
                    Instant::now(),
                )),
                own: credentials.id().clone(),
                endpoint: endpoint.clone(),
                acceptance: acceptance.clone(),
                sender: sender.clone(),
            };
            tasks.spawn(Arc::new(door).run());
        }
        Ok(Self {
            arrivals,
            endpoints: endpoints.to_vec(),
            _tasks: tasks,
        })
    }

    /// The next arrival; `None` when all endpoints are closed. May stand in a `select!`.
    pub async fn accept(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

/// One endpoint's accepting loop.
struct Door {
    endpoint: Endpoint,
    own: SpiffeId,
    acceptance: Acceptance,
    handshakes: Arc<Semaphore>,
    rate: Mutex<HandshakeRate>,
    sender: mpsc::Sender<Arrival>,
}

impl Door {
    async fn run(self: Arc<Self>) {
        // Tasks of this set end with the loop, so that a dropped listener leaves none behind.
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                incoming = self.endpoint.inner.accept() => match incoming {
                    Some(incoming) => self.admit(incoming, &mut handshakes),
                    None => return,
                },
                Some(_) = handshakes.join_next(), if !handshakes.is_empty() => {}
            }
        }
    }

    /// Decides whether a handshake may begin: nothing was spent on the caller so far.
    fn admit(self: &Arc<Self>, incoming: quinn::Incoming, handshakes: &mut JoinSet<()>) {
        let now = Instant::now();
        let remote = incoming.remote_address();
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        if rate.is_busy(now) && !incoming.remote_address_validated() && incoming.may_retry() {
            // Fails only if the address was validated already.
            let _sent = incoming.retry();
            return;
        }
        let full = self.endpoint.inner.open_connections() >= self.endpoint.options.connections_max;
        let permit = Arc::clone(&self.handshakes).try_acquire_owned();
        let (false, Ok(permit), true) = (full, permit, rate.take(now)) else {
            incoming.refuse();
            self.reject(Rejection::Busy, remote, "");
            return;
        };
        let door = Arc::clone(self);
        handshakes.spawn(async move {
            let limit = door.endpoint.options.handshake_timeout;
            let arrival = tokio::time::timeout(limit, door.handshake(incoming)).await;
            drop(permit);
            match arrival {
                Ok(Some(arrival)) => {
                    // The owner is gone: so is the connection, when the arrival is dropped here.
                    let _delivered = door.sender.send(arrival).await;
                }
                Ok(None) => {}
                Err(_) => door.reject(Rejection::Timeout, remote, ""),
            }
        });
    }

    async fn handshake(&self, incoming: quinn::Incoming) -> Option<Arrival> {
        let remote = incoming.remote_address();
        let connected = match incoming.accept() {
            Ok(connecting) => connecting.await,
            Err(error) => Err(error),
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                let reason = rejection_of(&error).unwrap_or(Rejection::Handshake);
                self.reject(reason, remote, &error.to_string());
                return None;
            }
        };
        match self.judge(&connection) {
            Ok(peer) => self.welcome(connection, peer).await,
            Err((reason, detail)) => {
                self.reject(reason, remote, &detail);
                let text = reason.to_string();
                connection.close(VarInt::from_u32(reason.code()), text.as_bytes());
                None
            }
        }
    }

    /// Who called: a member with an identity, or a joiner without one.
    fn judge(
        &self,
        connection: &quinn::Connection,
    ) -> Result<Option<SpiffeId>, (Rejection, String)> {
        let protocol = protocol(connection).unwrap_or_default();
        if protocol == ALPN_ENROLMENT && self.acceptance.enrolment {
            return Ok(None);
        }
        if protocol != ALPN_MEMBERS {
            return Err((Rejection::Protocol, String::new()));
        }
        let peer = peer_identity(connection)
            .ok_or((Rejection::NoCertificate, String::new()))?
            .map_err(|rejection| (rejection, String::new()))?;
        match self.acceptance.members.judge(&self.own, &peer) {
            Ok(()) => Ok(Some(peer)),
            Err(rejection) => Err((rejection, peer.to_string())),
        }
    }

    async fn welcome(
        &self,
        connection: quinn::Connection,
        peer: Option<SpiffeId>,
    ) -> Option<Arrival> {
        let remote = connection.remote_address();
        let said = async {
            let mut stream = connection.open_uni().await.map_err(drop)?;
            stream.write_all(WELCOME).await.map_err(drop)?;
            stream.finish().map_err(drop)
        };
        if said.await.is_err() {
            self.reject(Rejection::Handshake, remote, "left before the welcome");
            return None;
        }
        Some(match peer {
            Some(peer) => Arrival::Member(Connection::new(connection, peer, Side::Responder)),
            None => Arrival::Joiner(Enrolment::new(
                connection,
                Arc::clone(&self.endpoint.counters),
            )),
        })
    }

    fn reject(&self, reason: Rejection, remote: std::net::SocketAddr, detail: &str) {
        self.endpoint.counters.record(reason, Some(remote), detail);
    }
}
