//! Whole connections over loopback sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::datagram;
use crate::policy::PeerPolicy;
use crate::rejection::{Rejection, RejectionCounters};
use crate::testing::{Domain, endpoint};
use crate::tls;

const GW1: &str = "pool/edge/element/gw1";
const GW2: &str = "pool/edge/element/gw2";

struct Server {
    listener: Listener,
    counters: Arc<RejectionCounters>,
    address: SocketAddr,
}

fn serve(credentials: &crate::pki::Credentials, members: PeerPolicy) -> Server {
    serve_with(credentials, members, EndpointOptions::default())
}

fn serve_with(
    credentials: &crate::pki::Credentials,
    members: PeerPolicy,
    options: EndpointOptions,
) -> Server {
    let (endpoint, counters, address) = endpoint(credentials, options);
    let acceptance = Acceptance {
        members,
        enrolment: true,
    };
    Server {
        listener: Listener::start(&[endpoint], acceptance).unwrap(),
        counters,
        address,
    }
}

impl Server {
    async fn member(&mut self) -> Connection {
        match self.listener.accept().await {
            Some(Arrival::Member(connection)) => connection,
            other => panic!("expected a member, not {other:?}"),
        }
    }

    /// Goal: nobody was let in, and the reason was counted once.
    async fn assert_turned_away(&mut self, reason: Rejection) {
        // The caller may hear of it a moment before the server's task has counted it.
        while self.counters.total() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.counters.count(reason), 1, "{reason:?}");
        assert_eq!(self.counters.total(), 1);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let accepting = std::pin::pin!(self.listener.accept());
        assert!(accepting.poll(&mut context).is_pending());
    }
}

fn caller(credentials: &crate::pki::Credentials) -> (Endpoint, Arc<RejectionCounters>) {
    let (endpoint, counters, _) = endpoint(credentials, EndpointOptions::default());
    (endpoint, counters)
}

async fn pair(domain: &Domain) -> (Connection, Connection) {
    let mut server = serve(&domain.member("manager/m1"), PeerPolicy::Members);
    let (endpoint, _) = caller(&domain.member(GW1));
    let calling = endpoint.connect(server.address, PeerPolicy::Manager);
    let (ours, theirs) = tokio::join!(calling, server.member());
    (ours.unwrap(), theirs)
}

#[tokio::test]
async fn members_recognise_each_other_and_talk() {
    let domain = Domain::new();
    let (ours, theirs) = pair(&domain).await;
    assert_eq!(ours.peer().to_string(), "manager/m1");
    assert_eq!(theirs.peer().to_string(), GW1);
    let (mut writer, mut reader) = ours.open_stream(StreamKind::Control).await.unwrap();
    let (kind, mut their_writer, mut their_reader) = theirs.accept_stream().await.unwrap();
    assert_eq!(kind, StreamKind::Control);
    for frame in [&b""[..], b"hello", &[7; 200_000]] {
        writer.send(Bytes::copy_from_slice(frame)).await.unwrap();
        let received = their_reader.recv().await.unwrap().unwrap();
        assert_eq!(received, frame);
        their_writer.send(received).await.unwrap();
        assert_eq!(reader.recv().await.unwrap().unwrap(), frame);
    }
    writer.finish().await.unwrap();
    assert!(their_reader.recv().await.unwrap().is_none());
    ours.close(7, "done");
    assert_eq!(
        theirs.closed().await,
        CloseReason::Peer {
            code: 7,
            reason: "done".into()
        }
    );
    assert_eq!(ours.close_reason(), Some(CloseReason::Local));
}

/// Goal: both ends export the same secret, and only for the same label and context; heartbeat
/// keys made of it open each other's datagrams.
#[tokio::test]
async fn both_ends_export_the_same_key() {
    let domain = Domain::new();
    let (ours, theirs) = pair(&domain).await;
    let key = ours
        .export_key(b"EXPORTER-vnfpool-heartbeat", b"1")
        .unwrap();
    assert_eq!(
        key,
        theirs
            .export_key(b"EXPORTER-vnfpool-heartbeat", b"1")
            .unwrap()
    );
    assert_ne!(
        key,
        theirs
            .export_key(b"EXPORTER-vnfpool-heartbeat", b"2")
            .unwrap()
    );
    let (mut seal, _) = datagram::derive(&key, ours.side()).unwrap();
    let (_, mut open) = datagram::derive(&key, theirs.side()).unwrap();
    let mut out = [0; 64];
    let length = seal.seal(1, b"beat", &mut out).unwrap();
    assert_eq!(open.open(&mut out[..length]).unwrap().body, b"beat");
    let again = pair(&Domain::new()).await;
    assert_ne!(
        key,
        again
            .0
            .export_key(b"EXPORTER-vnfpool-heartbeat", b"1")
            .unwrap()
    );
}

/// Goal: whoever may not come in is told why, is counted once, and reaches nobody.
#[tokio::test]
async fn wrong_pool_role_authority_and_time_are_refused_by_the_server() {
    let domain = Domain::new();
    let foreign = Domain::new();
    let gw2 = domain.member(GW2);
    let edge = || PeerPolicy::ElementOf("edge".parse().unwrap());
    let gw2_wanted = || PeerPolicy::Element {
        pool: "edge".parse().unwrap(),
        element: "gw2".parse().unwrap(),
    };
    for (credentials, expected) in [
        (domain.member("pool/core/element/gw1"), Rejection::WrongPool),
        (domain.member("operator/o"), Rejection::WrongRole),
        (domain.member("manager/m1"), Rejection::WrongRole),
        (domain.expired(GW1), Rejection::Expired),
        (foreign.forger(GW1, &domain), Rejection::UnknownAuthority),
    ] {
        let mut server = serve(&gw2, edge());
        let (endpoint, _) = caller(&credentials);
        let error = endpoint
            .connect(server.address, gw2_wanted())
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::Refused { reason, .. } if reason == expected),
            "{error:?}"
        );
        server.assert_turned_away(expected).await;
    }
}

/// Goal: a member does not talk to a server that is not the one it called.
#[tokio::test]
async fn a_wrong_server_is_refused_by_the_caller() {
    let domain = Domain::new();
    let gw1 = domain.member(GW1);
    let gw3_wanted = PeerPolicy::Element {
        pool: "edge".parse().unwrap(),
        element: "gw3".parse().unwrap(),
    };
    for (credentials, policy, expected) in [
        (
            domain.member(GW2),
            PeerPolicy::Manager,
            Rejection::WrongRole,
        ),
        (
            domain.member("pool/edge/element/gw4"),
            gw3_wanted.clone(),
            Rejection::WrongPeer,
        ),
        (
            domain.member("pool/core/element/gw3"),
            gw3_wanted,
            Rejection::WrongPool,
        ),
        (
            domain.expired("manager/m1"),
            PeerPolicy::Manager,
            Rejection::Expired,
        ),
        (
            Domain::new().member("manager/m1"),
            PeerPolicy::Manager,
            Rejection::UnknownAuthority,
        ),
    ] {
        let server = serve(&credentials, PeerPolicy::Members);
        let (endpoint, counters) = caller(&gw1);
        let error = endpoint.connect(server.address, policy).await.unwrap_err();
        assert!(
            matches!(error, ConnectError::Peer { reason, .. } if reason == expected),
            "{error:?}"
        );
        assert_eq!(counters.count(expected), 1);
    }
}

/// Goal: without a certificate, or with another protocol version, only enrolment is open.
#[tokio::test]
async fn no_certificate_and_no_common_version_are_refused() {
    let domain = Domain::new();
    let manager = domain.member("manager/m1");
    let pin = domain.authority.fingerprint();
    for (alpn, expected) in [
        (ALPN_MEMBERS, Rejection::NoCertificate),
        (&b"vnfpool/9"[..], Rejection::Protocol),
    ] {
        let mut server = serve(&manager, PeerPolicy::Members);
        let (endpoint, _) =
            caller(&domain.member(&format!("pool/edge/element/{}", expected.label())));
        let (config, exact) = tls::joiner(pin, &[alpn]).unwrap();
        let error = endpoint
            .call(server.address, config, &exact)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::Refused { reason, .. } if reason == expected),
            "{error:?}"
        );
        server.assert_turned_away(expected).await;
    }
}

/// Goal: bytes that are no QUIC, or begin like it, harm nobody: a connection goes on, a new one
/// is accepted.
#[tokio::test]
async fn random_bytes_on_the_port_harm_nobody() {
    let domain = Domain::new();
    let mut server = serve(&domain.member("manager/m1"), PeerPolicy::Members);
    let (endpoint, _) = caller(&domain.member(GW1));
    let calling = endpoint.connect(server.address, PeerPolicy::Manager);
    let (ours, theirs) = tokio::join!(calling, server.member());
    let ours = ours.unwrap();
    let (mut writer, _reader) = ours.open_stream(StreamKind::Control).await.unwrap();
    let (_, _writer, mut their_reader) = theirs.accept_stream().await.unwrap();
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..200_u32 {
        let mut bytes = vec![0; (round as usize * 7) % 1400];
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        if let (Some(head), 0) = (bytes.first_chunk_mut::<5>(), round % 3) {
            // A long header of QUIC version 1, then noise.
            *head = [0xc0 | head[0], 0, 0, 0, 1];
        }
        noise.send_to(&bytes, server.address).unwrap();
        writer.send(bytes.clone()).await.unwrap();
        assert_eq!(their_reader.recv().await.unwrap().unwrap(), bytes);
    }
    let (second, _) = caller(&domain.member(GW2));
    let calling = second.connect(server.address, PeerPolicy::Manager);
    let (second, _) = tokio::join!(calling, server.member());
    second.unwrap();
}

#[tokio::test]
async fn too_long_and_torn_frames_end_the_stream_only() {
    let domain = Domain::new();
    let (ours, theirs) = pair(&domain).await;
    let max = StreamKind::Control.frame_bytes_max();
    let (mut writer, _) = ours.open_stream(StreamKind::Control).await.unwrap();
    assert!(matches!(
        writer.send(vec![0; max + 1]).await,
        Err(FrameError::TooLong { .. })
    ));
    let (_, _, _) = theirs.accept_stream().await.unwrap();
    for (bytes, too_long) in [
        (&[1, 0xff, 0xff, 0xff, 0xff][..], true),
        (&[1, 0, 0, 0, 9, 1, 2], false),
        (&[1, 0, 0], false),
    ] {
        let (mut send, _recv) = ours.raw().open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        let (_, _, mut reader) = theirs.accept_stream().await.unwrap();
        match reader.recv().await.unwrap_err() {
            FrameError::TooLong { .. } => assert!(too_long),
            FrameError::Truncated => assert!(!too_long),
            other => panic!("{other:?}"),
        }
    }
    // A stream of an unknown kind, and one without any, are skipped; the connection goes on.
    for bytes in [&[200, 1, 2][..], &[]] {
        let (mut send, _recv) = ours.raw().open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
    }
    let _streams = ours.open_stream(StreamKind::Control).await.unwrap();
    assert_eq!(theirs.accept_stream().await.unwrap().0, StreamKind::Control);
}

/// Goal: a `recv` or `accept_stream` dropped in the middle loses nothing.
#[tokio::test]
async fn dropped_futures_lose_nothing() {
    let domain = Domain::new();
    let (ours, theirs) = pair(&domain).await;
    let short = Duration::from_millis(20);
    let (mut send, _recv) = ours.raw().open_bi().await.unwrap();
    assert!(
        tokio::time::timeout(short, theirs.accept_stream())
            .await
            .is_err()
    );
    send.write_all(&[1, 0, 0]).await.unwrap();
    let (_, _, mut reader) = theirs.accept_stream().await.unwrap();
    for part in [&[0, 4][..], &[1, 2], &[3]] {
        send.write_all(part).await.unwrap();
        assert!(tokio::time::timeout(short, reader.recv()).await.is_err());
    }
    send.write_all(&[4, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(&reader.recv().await.unwrap().unwrap()[..], [1, 2, 3, 4]);
    assert_eq!(&reader.recv().await.unwrap().unwrap()[..], []);
}

/// Goal: a `send` dropped while the peer does not read tears no frame: what comes out is a
/// sequence of whole frames.
#[tokio::test]
async fn a_dropped_send_tears_no_frame() {
    let domain = Domain::new();
    let (ours, theirs) = pair(&domain).await;
    let (mut writer, _reader) = ours.open_stream(StreamKind::Control).await.unwrap();
    let (_, _writer, mut reader) = theirs.accept_stream().await.unwrap();
    let frame = |n: u8| vec![n; 200_000];
    let mut begun = 0;
    // The window is full at some point, and the send is dropped in the middle of a frame.
    loop {
        begun += 1;
        let sending = writer.send(frame(begun));
        if tokio::time::timeout(Duration::from_millis(100), sending)
            .await
            .is_err()
        {
            break;
        }
    }
    let reading = async {
        for n in 1..=begun {
            let received = reader.recv().await.unwrap().unwrap();
            assert!(received == frame(n), "frame {n}");
        }
        assert!(reader.recv().await.unwrap().is_none());
    };
    let (finished, ()) = tokio::join!(writer.finish(), reading);
    finished.unwrap();
}

#[tokio::test]
async fn a_full_server_says_that_it_is_busy() {
    let domain = Domain::new();
    let options = EndpointOptions {
        connections_max: 1,
        ..EndpointOptions::default()
    };
    let mut server = serve_with(&domain.member("manager/m1"), PeerPolicy::Members, options);
    let (first, _) = caller(&domain.member(GW1));
    let calling = first.connect(server.address, PeerPolicy::Manager);
    let (ours, theirs) = tokio::join!(calling, server.member());
    let _kept = (ours.unwrap(), theirs);
    let (second, _) = caller(&domain.member(GW2));
    let error = second
        .connect(server.address, PeerPolicy::Manager)
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Refused {
                reason: Rejection::Busy,
                ..
            }
        ),
        "{error:?}"
    );
    server.assert_turned_away(Rejection::Busy).await;
}

/// Goal: under many handshakes callers prove their address first, and still get through.
#[tokio::test]
async fn a_busy_server_asks_for_proof_of_the_address() {
    let domain = Domain::new();
    let options = EndpointOptions {
        handshakes_per_second: 4,
        ..EndpointOptions::default()
    };
    let mut server = serve_with(&domain.member("manager/m1"), PeerPolicy::Members, options);
    let (endpoint, _) = caller(&domain.member(GW1));
    for _ in 0..6 {
        let calling = endpoint.connect(server.address, PeerPolicy::Manager);
        let (ours, _theirs) = tokio::join!(calling, server.member());
        ours.unwrap();
    }
}

/// Goal: a peer that vanishes without a word is noticed by the idle timeout.
#[test]
fn silence_ends_a_connection() {
    let domain = Domain::new();
    let manager = domain.member("manager/m1");
    let gw1 = domain.member(GW1);
    let here = tokio::runtime::Runtime::new().unwrap();
    let there = tokio::runtime::Runtime::new().unwrap();
    let options = EndpointOptions {
        idle_timeout: Duration::from_secs(1),
        keep_alive_interval: Duration::from_millis(100),
        ..EndpointOptions::default()
    };
    let mut server = {
        let _inside = there.enter();
        serve_with(&manager, PeerPolicy::Members, options)
    };
    let address = server.address;
    let ours = here.spawn(async move {
        let (endpoint, _) = caller(&gw1);
        endpoint.connect(address, PeerPolicy::Manager).await
    });
    let _theirs = there.block_on(server.member());
    let ours = here.block_on(ours).unwrap().unwrap();
    there.shutdown_background();
    assert_eq!(here.block_on(ours.closed()), CloseReason::Silence);
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let domain = Domain::new();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = EndpointOptions {
        handshake_timeout: Duration::from_millis(200),
        ..EndpointOptions::default()
    };
    let (endpoint, _, _) = endpoint(&domain.member(GW1), options);
    let error = endpoint
        .connect(silent.local_addr().unwrap(), PeerPolicy::Manager)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error:?}");
}

/// Goal: one listener serves several local addresses.
#[tokio::test]
async fn one_listener_accepts_on_several_endpoints() {
    let domain = Domain::new();
    let manager = domain.member("manager/m1");
    let (one, _, first) = endpoint(&manager, EndpointOptions::default());
    let (two, _, second) = endpoint(&manager, EndpointOptions::default());
    let acceptance = Acceptance {
        members: PeerPolicy::Members,
        enrolment: false,
    };
    let mut listener = Listener::start(&[one, two], acceptance).unwrap();
    let (endpoint, _) = caller(&domain.member(GW1));
    for address in [first, second] {
        let calling = endpoint.connect(address, PeerPolicy::Manager);
        let (ours, arrival) = tokio::join!(calling, listener.accept());
        ours.unwrap();
        assert!(matches!(arrival, Some(Arrival::Member(_))));
    }
    let exact = OnceLock::new();
    let (config, _) = tls::joiner(domain.authority.fingerprint(), &[ALPN_ENROLMENT]).unwrap();
    let error = endpoint.call(first, config, &exact).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Refused {
                reason: Rejection::Protocol,
                ..
            }
        ),
        "enrolment is closed here: {error:?}"
    );
    drop(listener);
    let calling = endpoint.connect(first, PeerPolicy::Manager);
    let answer = tokio::time::timeout(Duration::from_millis(200), calling).await;
    assert!(!matches!(answer, Ok(Ok(_))), "nobody accepts any more");
}
