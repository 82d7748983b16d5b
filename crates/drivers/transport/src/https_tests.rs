//! Handshakes over loopback TCP.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::*;
use crate::testing::Domain;
use crate::tls::ANY_NAME;

type Served = Result<SpiffeId, Rejection>;

/// One connection: what the server made of the client, and the client of the server, each with
/// one byte sent and received.
async fn meet(
    server: &Credentials,
    client: &Credentials,
) -> (
    Served,
    Result<io::Result<()>, HttpsError>,
    Arc<RejectionCounters>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::new(RejectionCounters::default());
    let door = HttpsServer::new(server, PeerPolicy::Clients, Arc::clone(&counters)).unwrap();
    let serving = async {
        let (stream, remote) = listener.accept().await.unwrap();
        let (mut stream, peer) = door.accept(stream, remote).await?;
        let byte = stream.read_u8().await.unwrap();
        stream.write_u8(byte).await.unwrap();
        stream.flush().await.unwrap();
        Ok(peer)
    };
    let calling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = HttpsClient::new(client.clone()).connect(stream).await?;
        let talk = async {
            stream.write_u8(7).await?;
            stream.flush().await?;
            assert_eq!(stream.read_u8().await?, 7);
            Ok(())
        };
        Ok(talk.await)
    };
    let (served, called) = tokio::join!(serving, calling);
    (served, called, counters)
}

#[tokio::test]
async fn operators_come_in_under_their_name() {
    let domain = Domain::new();
    let manager = domain.member("manager/m1");
    for path in ["operator/first", "sce/orchestrator"] {
        let (served, called, counters) = meet(&manager, &domain.member(path)).await;
        assert_eq!(served.unwrap().identity.to_string(), path);
        called.unwrap().unwrap();
        assert_eq!(counters.total(), 0);
    }
}

#[tokio::test]
async fn others_are_turned_away_and_counted() {
    let domain = Domain::new();
    let foreign = Domain::new();
    let manager = domain.member("manager/m1");
    for (client, expected) in [
        (domain.member("pool/edge/element/gw1"), Rejection::WrongRole),
        (domain.expired("operator/late"), Rejection::Expired),
        (
            foreign.forger("operator/f", &domain),
            Rejection::UnknownAuthority,
        ),
    ] {
        let (served, called, counters) = meet(&manager, &client).await;
        assert_eq!(served.unwrap_err(), expected);
        assert_eq!(counters.count(expected), 1);
        // With TLS 1.3 the client learns of it at its first read.
        let error = called.unwrap().unwrap_err();
        if expected != Rejection::WrongRole {
            assert_eq!(refusal(&error), Some(expected), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_client_talks_to_a_manager_only() {
    let domain = Domain::new();
    let foreign = Domain::new();
    let operator = domain.member("operator/o");
    for (server, expected) in [
        (domain.member("pool/edge/element/gw1"), Rejection::WrongRole),
        (domain.expired("manager/old"), Rejection::Expired),
        (foreign.member("manager/m1"), Rejection::UnknownAuthority),
    ] {
        let (served, called, _) = meet(&server, &operator).await;
        assert!(served.is_err());
        assert!(
            matches!(called, Err(HttpsError::Server(reason)) if reason == expected),
            "{called:?}"
        );
    }
}

#[tokio::test]
async fn no_certificate_and_noise_are_turned_away() {
    let domain = Domain::new();
    let manager = domain.member("manager/m1");
    let counters = Arc::new(RejectionCounters::default());
    let door = HttpsServer::new(&manager, PeerPolicy::Clients, Arc::clone(&counters)).unwrap();
    let remote: SocketAddr = "127.0.0.1:1".parse().unwrap();

    let (near, mut far) = tokio::io::duplex(4096);
    far.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(
        door.accept(near, remote).await.unwrap_err(),
        Rejection::Handshake
    );

    let (near, far) = tokio::io::duplex(4096);
    let (config, _) = tls::joiner(domain.authority.fingerprint(), ALPN).unwrap();
    let name = ServerName::try_from(ANY_NAME).unwrap();
    let calling = TlsConnector::from(Arc::new(config)).connect(name, far);
    let (served, _called) = tokio::join!(door.accept(near, remote), calling);
    assert_eq!(served.unwrap_err(), Rejection::NoCertificate);
    assert_eq!(counters.total(), 2);
}
