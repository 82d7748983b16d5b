//! Two ends over loopback, one of them a mesh and the other made by hand.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use bytes::BytesMut;
use tempfile::TempDir;
use vnfpool_conntrack::Scope;
use vnfpool_model::{Role, SlotId, StateLevel, StateSpec};
use vnfpool_statesync::wire::{self as statesync, Body, Refusal};
use vnfpool_succession::element::Input;
use vnfpool_transport::TrustDomain;
use vnfpool_transport::link::{self, Link, Received};
use vnfpool_transport::pki::{Authority, Validity};

use super::super::pulse::{SlotView, View};
use super::super::sync::{Class, preface};
use super::*;
use crate::pulse::Inbox;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What a test waits for comes within milliseconds; this is when it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn edge() -> PoolHandle {
    "edge".parse().unwrap()
}

fn member(node: u32) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
    }
}

/// A peer as the manager names it: number 2 is `gw2`, number 3 is `gw3`.
fn peer(node: u32, addresses: Vec<SocketAddr>) -> PeerAddress {
    PeerAddress {
        node: NodeId(node),
        element: format!("gw{node}").parse().unwrap(),
        addresses,
    }
}

struct Site {
    dir: TempDir,
    authority: Authority,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("test.example").unwrap();
        let authority = Authority::create(&dir.path().join("ca"), &domain).unwrap();
        Self { dir, authority }
    }

    fn credentials(&self, element: &str) -> Credentials {
        let identity = Identity::Element {
            pool: edge(),
            element: element.parse().unwrap(),
        };
        let dir = self.dir.path().join(element);
        if let Ok(issued) = Credentials::load(&dir) {
            return issued;
        }
        let issued = self
            .authority
            .issue_local(&dir, &identity, &[], Validity::standard());
        issued.unwrap()
    }

    fn endpoint(&self, element: &str) -> Endpoint {
        let options = EndpointOptions::default();
        Endpoint::bind(ANY, self.credentials(element), options, Arc::default()).unwrap()
    }

    /// The mesh of `gw1`, and what its real-time thread would be told.
    fn mesh(&self) -> (Arc<Mesh>, Inbox<Command, View>) {
        let (pulse, inbox) = Pulse::new().unwrap();
        let credentials = self.credentials("gw1");
        let sync = SyncHub::new(
            pulse.clone(),
            Incarnation(1),
            credentials.clone(),
            Scope::new([]),
        );
        let mesh = Mesh::start(
            edge(),
            credentials,
            ANY,
            pulse,
            Arc::new(sync),
            Arc::default(),
            Continuity::random().unwrap(),
        );
        (mesh.unwrap(), inbox)
    }
}

/// For whom keys were installed.
fn keys(inbox: &Inbox<Command, View>) -> Vec<NodeId> {
    let mut commands = VecDeque::new();
    inbox.take(&mut commands);
    let nodes = commands.into_iter().filter_map(|command| match command {
        Command::Keys { node, .. } => Some(node),
        _ => None,
    });
    nodes.collect()
}

async fn connected(mesh: &Mesh, node: u32) {
    let wait = async {
        while !mesh.connections().contains_key(&NodeId(node)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// Goal: a member of the pool cannot pass for another one and have its datagrams believed. Method:
/// the caller shows the certificate of gw2 and calls itself 3; then, to the same mesh, 2.
#[tokio::test]
async fn a_caller_that_names_another_number_is_refused() {
    let site = Site::new();
    let (mesh, inbox) = site.mesh();
    // The highest number calls nobody.
    let peers = BTreeSet::from([NodeId(2), NodeId(3)]);
    mesh.set_peers(member(9), &peers, vec![peer(2, vec![]), peer(3, vec![])]);
    let endpoint = site.endpoint("gw2");
    let address = mesh.endpoint.local_address().unwrap();
    let expected = || PeerPolicy::Element {
        pool: edge(),
        element: "gw1".parse().unwrap(),
    };

    for (number, accepted) in [(3, false), (2, true)] {
        let connection = endpoint.connect(address, expected()).await.unwrap();
        let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await.unwrap();
        send_hello(&mut writer, member(number)).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, receive_hello(&mut reader)).await;
        let answer = answer.unwrap();
        if accepted {
            assert_eq!(answer.unwrap(), member(9));
            connected(&mesh, number).await;
            assert_eq!(keys(&inbox), [NodeId(number)]);
        } else {
            answer.unwrap_err();
            assert!(mesh.connections().is_empty());
            assert_eq!(keys(&inbox), []);
        }
    }
}

/// The same for the one who is called: it answers as another number first, then as itself.
#[tokio::test]
async fn a_called_peer_that_names_another_number_is_refused() {
    let site = Site::new();
    let (mesh, inbox) = site.mesh();
    let endpoint = site.endpoint("gw2");
    let acceptance = Acceptance {
        members: PeerPolicy::ElementOf(edge()),
        enrolment: false,
    };
    let mut listener = Listener::start(std::slice::from_ref(&endpoint), acceptance).unwrap();
    let peers = BTreeSet::from([NodeId(2), NodeId(3)]);
    let address = endpoint.local_address().unwrap();
    mesh.set_peers(
        member(1),
        &peers,
        vec![peer(2, vec![address]), peer(3, vec![])],
    );

    let mut held = Vec::new();
    for (number, accepted) in [(3, false), (2, true)] {
        let arrival = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let Ok(Some(Arrival::Member(connection))) = arrival else {
            panic!("the mesh calls");
        };
        let (_, mut writer, mut reader) = connection.accept_stream().await.unwrap();
        assert_eq!(receive_hello(&mut reader).await.unwrap(), member(1));
        send_hello(&mut writer, member(number)).await.unwrap();
        if accepted {
            connected(&mesh, number).await;
            assert_eq!(keys(&inbox), [NodeId(number)]);
        } else {
            let closed = tokio::time::timeout(PATIENCE, connection.closed()).await;
            closed.unwrap();
            assert!(mesh.connections().is_empty());
            assert_eq!(keys(&inbox), []);
        }
        held.push((connection, writer, reader));
    }
}

/// A link of `element`, with what says that it is the stream of `slot`.
async fn link_of(site: &Site, element: &str, address: SocketAddr, slot: SlotId) -> Link {
    let credentials = site.credentials(element);
    let expected = PeerPolicy::ElementOf(edge());
    let mut link = link::connect(&credentials, expected, address)
        .await
        .unwrap();
    let demand = Class::conntrack(Scope::new([]), StateSpec::DEFAULT).demand;
    let hash_key = [3; 16];
    let hello = statesync::Frame {
        epoch: 0,
        generation: 0,
        sequence: 0,
        body: Body::Hello { demand, hash_key },
    };
    let mut bytes = BytesMut::from(&preface(slot, Incarnation(1))[..]);
    hello.encode(&mut bytes);
    link.send(&bytes).unwrap();
    assert!(link.flush().unwrap());
    link
}

/// Goal: a member that does not serve takes nothing from the stream of the one that does. Method:
/// gw2 is the active here and has its stream; gw3 opens one for the same slot. (Needs root, for the
/// kernel's table.)
#[tokio::test(flavor = "multi_thread")]
async fn a_state_stream_that_is_not_of_the_active_replaces_nothing() {
    let site = Site::new();
    let (mesh, inbox) = site.mesh();
    let slot = SlotId(7);
    mesh.sync.set_candidate(slot, None);
    let peers = BTreeSet::from([NodeId(2), NodeId(3)]);
    mesh.set_peers(member(9), &peers, vec![peer(2, vec![]), peer(3, vec![])]);
    let view = SlotView {
        active: Some(member(2)),
        ..SlotView::default()
    };
    assert!(inbox.publish(|all| {
        all.slots.insert(slot, view);
    }));
    let address = mesh.endpoint.local_address().unwrap();
    let mut held = Vec::new();
    for number in [2, 3] {
        let name = format!("gw{number}");
        let endpoint = site.endpoint(&name);
        let expected = PeerPolicy::ElementOf(edge());
        let connection = endpoint.connect(address, expected).await.unwrap();
        let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await.unwrap();
        send_hello(&mut writer, member(number)).await.unwrap();
        receive_hello(&mut reader).await.unwrap();
        let mut link = link_of(&site, &name, address, slot).await;
        let began = std::time::Instant::now();
        let mut bytes = BytesMut::new();
        loop {
            // Its end, without a word: nobody takes it in.
            let ended = link.receive(&mut bytes).unwrap() == Received::Closed;
            let is_taken = !bytes.is_empty();
            assert_eq!(
                (ended, is_taken),
                (ended && number == 3, is_taken && number == 2)
            );
            if ended || is_taken {
                break;
            }
            assert!(began.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(mesh.sync.receives_from(slot), Some(member(2)));
        held.push((endpoint, connection, writer, reader, link));
    }
}

/// Goal: what an element serves is never taken for a wrong copy of another slot: with two slots it takes
/// in no connections, and ends those that it took in. Method: gw2 is the active of one slot and has its stream;
/// then there is a second slot, and then it has to do without again. (Needs root, for the kernel's
/// table.)
#[tokio::test(flavor = "multi_thread")]
async fn connections_of_two_slots_are_not_mixed() {
    let site = Site::new();
    let (mesh, inbox) = site.mesh();
    let (first, second) = (SlotId(7), SlotId(8));
    mesh.sync.set_candidate(first, None);
    let peers = BTreeSet::from([NodeId(2)]);
    mesh.set_peers(member(9), &peers, vec![peer(2, vec![])]);
    let view = SlotView {
        active: Some(member(2)),
        ..SlotView::default()
    };
    assert!(inbox.publish(|all| {
        all.slots.insert(first, view);
        all.slots.insert(second, view);
    }));
    let address = mesh.endpoint.local_address().unwrap();
    let endpoint = site.endpoint("gw2");
    let expected = PeerPolicy::ElementOf(edge());
    let connection = endpoint.connect(address, expected).await.unwrap();
    let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await.unwrap();
    send_hello(&mut writer, member(2)).await.unwrap();
    receive_hello(&mut reader).await.unwrap();

    let mut taken = link_of(&site, "gw2", address, first).await;
    answered(&mut taken).await;
    assert_eq!(mesh.sync.receives_from(first), Some(member(2)));

    mesh.sync.set_candidate(second, None);
    for slot in [first, second] {
        let mut refused = link_of(&site, "gw2", address, slot).await;
        let body = answered(&mut refused).await;
        let is_refused = matches!(
            body,
            Body::Refused {
                reason: Refusal::Class,
                ..
            }
        );
        assert!(is_refused, "{body:?}");
    }
    let views = BTreeMap::from([(first, view), (second, view)]);
    mesh.sync.steer(&views, &BTreeMap::new());
    assert_eq!(mesh.sync.receives_from(first), None);

    mesh.sync.remove(second);
    let mut taken = link_of(&site, "gw2", address, first).await;
    answered(&mut taken).await;
    assert_eq!(mesh.sync.receives_from(first), Some(member(2)));
    // Unless the pool has another slot that is only not here yet.
    mesh.sync.demand(StateSpec::DEFAULT, 2);
    mesh.sync.steer(&views, &BTreeMap::new());
    assert_eq!(mesh.sync.receives_from(first), None);
}

/// Goal: a handover whose newest state does not get to the successor goes on, and counts as what it is.
/// Method: a successor to which there is no stream, then one that cannot be linked to, then nothing
/// to bring.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_fails_is_counted() {
    let site = Site::new();
    let (mesh, inbox) = site.mesh();
    let slot = SlotId(7);
    mesh.sync.set_candidate(slot, None);
    let peers = BTreeSet::from([NodeId(2)]);
    mesh.set_peers(member(9), &peers, vec![peer(2, vec![])]);
    let endpoint = site.endpoint("gw2");
    let expected = PeerPolicy::ElementOf(edge());
    let address = mesh.endpoint.local_address().unwrap();
    let connection = endpoint.connect(address, expected).await.unwrap();
    let (mut writer, mut reader) = connection.open_stream(StreamKind::Control).await.unwrap();
    send_hello(&mut writer, member(2)).await.unwrap();
    receive_hello(&mut reader).await.unwrap();
    connected(&mesh, 2).await;
    let view = SlotView {
        role: Role::Active,
        peer: Some(member(2)),
        ..SlotView::default()
    };
    assert!(inbox.publish(|all| {
        all.slots.insert(slot, view);
    }));

    mesh.sync.drain(slot);
    drained(&inbox).await;
    assert_eq!(mesh.sync.undrained(), 1);

    let views = BTreeMap::from([(slot, view)]);
    mesh.sync.steer(&views, &mesh.connections());
    mesh.sync.drain(slot);
    drained(&inbox).await;
    assert_eq!(mesh.sync.undrained(), 2);

    let nothing = StateSpec {
        connections: StateLevel::None,
        ..StateSpec::DEFAULT
    };
    mesh.sync.demand(nothing, 1);
    mesh.sync.steer(&views, &mesh.connections());
    mesh.sync.drain(slot);
    drained(&inbox).await;
    assert_eq!(mesh.sync.undrained(), 2);
}

/// Waits until the machine is told that everything is drained.
async fn drained(inbox: &Inbox<Command, View>) {
    let is_told = || {
        let mut commands = VecDeque::new();
        inbox.take(&mut commands);
        let mut inputs = commands.iter();
        inputs.any(|command| {
            let Command::Input { input, .. } = command else {
                return false;
            };
            matches!(input, Input::Drained)
        })
    };
    let wait = async {
        while !is_told() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

/// The first thing that the other end of a link says.
async fn answered(link: &mut Link) -> Body {
    let wait = async {
        let (mut bytes, mut decoder) = (BytesMut::new(), statesync::Decoder::new());
        loop {
            let received = link.receive(&mut bytes).unwrap();
            decoder.push(&bytes.split());
            if let Some(frame) = decoder.next_frame().unwrap() {
                return frame.body;
            }
            assert_ne!(received, Received::Closed, "without a word");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}
