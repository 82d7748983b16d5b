//! Connections to the other elements of the pool: one for each pair, called by the element with
//! the lower number, over whichever path answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use prost::Message as _;
use tokio::task::JoinHandle;
use vnfpool_model::{ElementId, Incarnation, PoolHandle};
use vnfpool_transport::link::{LinkListener, MemberAddresses};
use vnfpool_transport::pki::Credentials;
use vnfpool_transport::quic::{
    Acceptance, Arrival, Connection, Continuity, Endpoint, EndpointOptions, FrameReader,
    FrameWriter, Listener, StreamKind,
};
use vnfpool_transport::{Identity, PeerPolicy, RejectionCounters};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{self, Frame, PeerHello, Refusal};
use vnfpool_wire::datagram::{Member, NodeId};

use super::pulse::{Command, Pulse};
use super::sync::SyncHub;
use crate::pulse::KEY_LABEL;

/// Between two rounds of calls to a peer that does not answer.
const CALL_AGAIN: Duration = Duration::from_millis(200);

/// After a connection that served its time: the peer may be there again already, in another process
/// of the same life, and for as long as nobody calls it the copy of service state grows older.
const CALL_BACK: Duration = Duration::from_millis(20);

/// A caller has to say who it is within this time.
const HELLO_TIME_MAX: Duration = Duration::from_secs(2);

/// Where a peer is, as the manager says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) node: NodeId,
    pub(crate) element: ElementId,
    /// Addresses of its endpoint, best path first.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// All connections to peers.
#[derive(Debug)]
pub(crate) struct Mesh {
    pool: PoolHandle,
    endpoint: Endpoint,
    pulse: Pulse,
    sync: Arc<SyncHub>,
    callers: MemberAddresses,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    me: Option<Member>,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Debug)]
struct Peer {
    address: PeerAddress,
    connection: Option<(Member, Connection)>,
    caller: Option<JoinHandle<()>>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(caller) = &self.caller {
            caller.abort();
        }
        if let Some((_, connection)) = &self.connection {
            connection.close(0, "no longer of the pool");
        }
    }
}

impl Mesh {
    /// Opens the endpoint and begins to accept peers of the pool.
    pub(crate) fn start(
        pool: PoolHandle,
        credentials: Credentials,
        listen: SocketAddr,
        pulse: Pulse,
        sync: Arc<SyncHub>,
        rejections: Arc<RejectionCounters>,
        continuity: Continuity,
    ) -> anyhow::Result<Arc<Self>> {
        // A dead peer has to be noticed before a copy of its connection is missed, and one that is
        // another process by now says so when it hears something.
        let options = EndpointOptions {
            keep_alive_interval: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(2),
            connections_max: 64,
            continuity: Some(continuity),
            ..EndpointOptions::default()
        };
        let endpoint = Endpoint::bind(
            listen,
            credentials.clone(),
            options,
            Arc::clone(&rejections),
        )?;
        let members = PeerPolicy::ElementOf(pool.clone());
        // Beside the endpoint, so that whoever is heard there can be given state.
        let address = endpoint.local_address()?;
        let links = LinkListener::bind(address, &credentials, members.clone(), rejections)
            .with_context(|| format!("listen for service state at TCP {address}"))?;
        let acceptance = Acceptance {
            members,
            enrolment: false,
        };
        let listener = Listener::start(std::slice::from_ref(&endpoint), acceptance)?;
        let state = Mutex::new(State::default());
        let mesh = Arc::new(Self {
            pool,
            endpoint,
            pulse,
            sync,
            callers: links.members(),
            state,
        });
        tokio::spawn(Arc::clone(&mesh).accept(listener));
        tokio::spawn(Arc::clone(&mesh).accept_links(links));
        Ok(mesh)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who we are, who the others are, and where some of them are now; connections to anybody
    /// else are closed.
    pub(crate) fn set_peers(
        self: &Arc<Self>,
        me: Member,
        peers: &BTreeSet<NodeId>,
        addresses: Vec<PeerAddress>,
    ) {
        let mut state = self.state();
        state.me = Some(me);
        state.peers.retain(|node, _| peers.contains(node));
        for address in addresses {
            match state.peers.get_mut(&address.node) {
                Some(peer) => peer.address = address,
                None => {
                    let node = address.node;
                    // One calls, the other waits: two connections would be two sets of keys.
                    let calls = me.node < node;
                    let caller = calls.then(|| tokio::spawn(Arc::clone(self).call(node)));
                    state.peers.insert(
                        node,
                        Peer {
                            address,
                            connection: None,
                            caller,
                        },
                    );
                }
            }
        }
        let known = state
            .peers
            .values()
            .flat_map(|peer| &peer.address.addresses);
        self.callers.set(known.map(SocketAddr::ip));
    }

    /// The living connections.
    pub(crate) fn connections(&self) -> BTreeMap<NodeId, (Member, Connection)> {
        let state = self.state();
        let living = state.peers.iter().filter_map(|(node, peer)| {
            let (member, connection) = peer.connection.as_ref()?;
            connection
                .close_reason()
                .is_none()
                .then(|| (*node, (*member, connection.clone())))
        });
        living.collect()
    }

    /// Closes everything.
    pub(crate) async fn close(&self) {
        self.state().peers.clear();
        self.endpoint.close().await;
    }

    async fn call(self: Arc<Self>, node: NodeId) {
        loop {
            let Some((me, address)) = ({
                let state = self.state();
                state
                    .me
                    .zip(state.peers.get(&node).map(|p| p.address.clone()))
            }) else {
                return;
            };
            let mut pause = CALL_AGAIN;
            for remote in &address.addresses {
                match self.call_at(me, &address, *remote).await {
                    Ok(()) => {
                        pause = CALL_BACK;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(peer = %address.element, %remote, "no connection: {error:#}");
                    }
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Calls, greets, and serves the connection to its end.
    async fn call_at(
        self: &Arc<Self>,
        me: Member,
        address: &PeerAddress,
        remote: SocketAddr,
    ) -> anyhow::Result<()> {
        let expected = PeerPolicy::Element {
            pool: self.pool.clone(),
            element: address.element.clone(),
        };
        let connection = self.endpoint.connect(remote, expected).await?;
        let greeting = async {
            let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await?;
            send_hello(&mut writer, me).await?;
            let hello = receive_hello(&mut reader).await?;
            anyhow::Ok((hello, writer, reader))
        };
        let (hello, writer, reader) = tokio::time::timeout(HELLO_TIME_MAX, greeting)
            .await
            .context("no hello in time")??;
        if hello.node != address.node {
            // Its certificate says who it is, the manager which number that has; not the hello.
            bail!(
                "it calls itself node {}, the manager says {}",
                hello.node.0,
                address.node.0
            );
        }
        self.install(&connection, hello)?;
        self.serve(connection, hello, (writer, reader)).await;
        Ok(())
    }

    async fn accept(self: Arc<Self>, mut listener: Listener) {
        while let Some(arrival) = listener.accept().await {
            if let Arrival::Member(connection) = arrival {
                let mesh = Arc::clone(&self);
                tokio::spawn(async move {
                    if let Err(error) = mesh.welcome(connection.clone()).await {
                        tracing::warn!(peer = %connection.peer(), "a peer was turned away: {error:#}");
                    }
                });
            }
        }
    }

    async fn welcome(self: &Arc<Self>, connection: Connection) -> anyhow::Result<()> {
        let greeting = async {
            let (kind, writer, mut reader) = connection.accept_stream().await?;
            if kind != StreamKind::Control {
                bail!("the first stream is not a control stream");
            }
            let hello = receive_hello(&mut reader).await?;
            anyhow::Ok((hello, writer, reader))
        };
        let (hello, mut writer, reader) = tokio::time::timeout(HELLO_TIME_MAX, greeting)
            .await
            .context("no hello in time")??;
        let Identity::Element { element, .. } = connection.peer() else {
            bail!("it is no element");
        };
        let me = {
            let state = self.state();
            let known = state.peers.get(&hello.node).map(|p| &p.address.element);
            match (state.me, known) {
                (Some(me), Some(known)) if known == element => me,
                _ => bail!("the manager has not named it yet"),
            }
        };
        // The keys are in place before the caller may use them.
        self.install(&connection, hello)?;
        send_hello(&mut writer, me).await?;
        self.serve(connection, hello, (writer, reader)).await;
        Ok(())
    }

    /// Takes links for service state; each runs in a thread of its own.
    async fn accept_links(self: Arc<Self>, mut links: LinkListener) {
        while let Some(link) = links.accept().await {
            let mesh = Arc::clone(&self);
            let run = move || mesh.sync.accept(link, |peer| mesh.member_of(peer));
            let spawned = std::thread::Builder::new()
                .name("state-in".into())
                .spawn(run);
            if let Err(error) = spawned {
                tracing::warn!(%error, "cannot start the thread of a state stream");
            }
        }
    }

    /// The life of `peer` that is connected.
    fn member_of(&self, peer: &Identity) -> Option<Member> {
        let Identity::Element { element, .. } = peer else {
            return None;
        };
        let state = self.state();
        let known = state
            .peers
            .values()
            .find(|known| known.address.element == *element)?;
        known.connection.as_ref().map(|(member, _)| *member)
    }

    fn install(&self, connection: &Connection, peer: Member) -> anyhow::Result<()> {
        let secret = connection.export_key(KEY_LABEL, b"")?;
        let side = connection.side();
        let mut state = self.state();
        let Some(known) = state.peers.get_mut(&peer.node) else {
            bail!("it left the pool")
        };
        self.pulse.send(Command::Keys {
            node: peer.node,
            secret,
            side,
        });
        if let Some((_, old)) = known.connection.replace((peer, connection.clone())) {
            old.close(0, "replaced by a newer connection");
        }
        tracing::info!(peer = %known.address.element, remote = %connection.remote_address(), "connected to a peer");
        Ok(())
    }

    async fn serve(
        self: &Arc<Self>,
        connection: Connection,
        peer: Member,
        _control: (FrameWriter, FrameReader),
    ) {
        let reason = loop {
            match connection.accept_stream().await {
                // A newer peer may open what we do not know; its streams are dropped.
                Ok(_) => {}
                Err(reason) => break reason,
            }
        };
        tracing::info!(peer = peer.node.0, %reason, "the connection to a peer is over");
        let mut state = self.state();
        if let Some(known) = state.peers.get_mut(&peer.node) {
            let ours = known.connection.as_ref().map(|(_, c)| c.stable_id());
            if ours == Some(connection.stable_id()) {
                known.connection = None;
            }
        }
    }
}

async fn send_hello(writer: &mut FrameWriter, me: Member) -> anyhow::Result<()> {
    let hello = PeerHello {
        version_min: *control::VERSIONS.start(),
        version_max: *control::VERSIONS.end(),
        node: me.node.0,
        incarnation: me.incarnation.0,
    };
    let frame = Frame {
        kind: Some(Kind::PeerHello(hello)),
    };
    Ok(writer.send(frame.encode_to_vec()).await?)
}

async fn receive_hello(reader: &mut FrameReader) -> anyhow::Result<Member> {
    let bytes = reader.recv().await?.context("no hello")?;
    match Frame::decode(bytes).context("decode the hello")?.kind {
        Some(Kind::PeerHello(hello)) => {
            control::negotiate(hello.version_min, hello.version_max).with_context(|| {
                format!(
                    "the peer speaks control versions {} to {}, this element up to {}: upgrade the older one",
                    hello.version_min, hello.version_max, control::VERSIONS.end()
                )
            })?;
            let node = NodeId(hello.node);
            Ok(Member {
                node,
                incarnation: Incarnation(hello.incarnation),
            })
        }
        Some(Kind::Refusal(Refusal { code, text })) => bail!("refused ({code}): {text}"),
        _ => bail!("the first message is not a hello"),
    }
}

#[cfg(test)]
mod tests;
