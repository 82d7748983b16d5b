//! Server and client together over real sockets with real certificates, and `/metrics`.

#![allow(clippy::unwrap_used, reason = "a failing test is what unwrap says")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use support::{Fake, identity, pool};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vnfpool_northbound::client::{ClientError, MANAGER_FILE, OperatorClient};
use vnfpool_northbound::{
    Code, FenceRequest, PardonRequest, SwitchoverRequest, TokenRequest, metrics, router, server,
};
use vnfpool_transport::https::HttpsServer;
use vnfpool_transport::pki::{Authority, Credentials, Validity};
use vnfpool_transport::{PeerPolicy, RejectionCounters, TrustDomain};

/// A manager's door on loopback, with the directories of those who may knock.
struct Door {
    dir: TempDir,
    authority: Authority,
    address: SocketAddr,
    fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Door {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("x.example").unwrap();
        let authority = Authority::create(&dir.path().join("ca"), &domain).unwrap();
        issue(&authority, &dir.path().join("manager"), "manager/m1");
        let credentials = Credentials::load(&dir.path().join("manager")).unwrap();
        let counters = Arc::new(RejectionCounters::default());
        let tls = HttpsServer::new(&credentials, PeerPolicy::Clients, counters).unwrap();
        let listener = server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let fake = Arc::new(Fake::default());
        let router = router(Arc::clone(&fake));
        let (stop, stopping) = oneshot::channel::<()>();
        let task = tokio::spawn(server::serve(listener, tls, router, async {
            let _ = stopping.await;
        }));
        Self {
            dir,
            authority,
            address,
            fake,
            stop: Some(stop),
            task,
        }
    }

    /// A client with a certificate of this manager's authority.
    fn client(&self, path: &str) -> OperatorClient {
        let dir = self.dir.path().join(path);
        issue(&self.authority, &dir, path);
        std::fs::write(
            dir.join(MANAGER_FILE),
            format!("https://{}\n", self.address),
        )
        .unwrap();
        OperatorClient::new(&dir).unwrap()
    }
}

fn issue(authority: &Authority, dir: &Path, path: &str) {
    std::fs::create_dir_all(dir.parent().unwrap()).unwrap();
    authority
        .issue_local(dir, &identity(path), &[], Validity::standard())
        .unwrap();
}

#[tokio::test]
async fn an_operator_can_do_everything() {
    let door = Door::open().await;
    let client = door.client("operator/alice");
    assert_eq!(client.status().await.unwrap().manager.id, "m1");
    assert!(client.apply_pool(&pool()).await.unwrap().created);
    assert_eq!(client.pools().await.unwrap(), [pool()]);
    let handle = pool().handle;
    assert_eq!(client.pool(&handle).await.unwrap(), pool());
    let request = TokenRequest {
        pool: handle.clone(),
        element: "gw1".parse().unwrap(),
        ttl_s: 60,
    };
    assert_eq!(
        client.create_token(&request).await.unwrap().token,
        "vnfpool1.secret"
    );
    let to_gw2 = SwitchoverRequest {
        to: Some("gw2".parse().unwrap()),
        slot: None,
    };
    assert_eq!(
        client.switchover(&handle, &to_gw2).await.unwrap().epoch,
        "3.1"
    );
    let refused = client
        .switchover(&handle, &SwitchoverRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some(Code::NotArmed));
    assert_eq!(refused.to_string(), "slot 'main' has no armed standby");
    let fence = FenceRequest {
        element: "gw1".parse().unwrap(),
        it_is_off: true,
    };
    client.fence(&handle, &fence).await.unwrap();
    let element = fence.element.clone();
    let pardon = PardonRequest { element };
    client.pardon(&handle, &pardon).await.unwrap();
    assert_eq!(client.audit(2).await.unwrap().len(), 2);
    client.delete_pool(&handle).await.unwrap();
    let journal = door.fake.journal.lock().unwrap().clone();
    assert_eq!(journal.len(), 7);
    assert!(
        journal
            .iter()
            .all(|line| line.starts_with("operator/alice ")),
        "{journal:?}"
    );
}

#[tokio::test]
async fn events_arrive_and_the_end_of_the_stream_is_told() {
    let door = Door::open().await;
    let client = door.client("operator/alice");
    let handle = pool().handle;
    let mut events = client.events(Some(1), Some(&handle)).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.sequence, event.text.as_str()), (3, "two\nlines"));
    assert_eq!(events.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_service_control_entity_is_no_operator() {
    let door = Door::open().await;
    let refused = door.client("sce/s1").status().await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::RoleNotPermitted));
}

#[tokio::test]
async fn an_element_is_not_even_let_in() {
    let door = Door::open().await;
    let refused = door
        .client("pool/edge/element/gw1")
        .status()
        .await
        .unwrap_err();
    // The server closes the connection after the handshake; there is no HTTP answer.
    let is_closed = matches!(
        refused,
        ClientError::Protocol { .. }
            | ClientError::Handshake { .. }
            | ClientError::Unreachable { .. }
    );
    assert!(is_closed, "{refused:?}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_no_use() {
    let door = Door::open().await;
    let other = Door::open().await;
    let dir = other.dir.path().join("operator/eve");
    drop(other.client("operator/eve"));
    std::fs::write(dir.join(MANAGER_FILE), format!("https://{}", door.address)).unwrap();
    let refused = OperatorClient::new(&dir)
        .unwrap()
        .status()
        .await
        .unwrap_err();
    assert!(
        matches!(refused, ClientError::Handshake { .. }),
        "{refused:?}"
    );
    assert!(refused.hint().is_some());
}

#[tokio::test]
async fn an_absent_manager_is_named() {
    let door = Door::open().await;
    let client = door.client("operator/alice");
    door.task.abort();
    let _ = door.task.await;
    let error = client.status().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot reach the manager at https://{}/", door.address)
    );
    assert_eq!(
        error.hint(),
        Some("is `vnfpool manager run` running there?")
    );
}

#[tokio::test]
async fn a_directory_without_certificate_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = OperatorClient::new(dir.path()).unwrap_err();
    assert!(matches!(error, ClientError::Credentials { .. }));
    assert!(error.to_string().contains(dir.path().to_str().unwrap()));
}

#[tokio::test]
async fn random_bytes_and_silence_do_not_disturb_others() {
    let door = Door::open().await;
    let client = door.client("operator/alice");
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(door.address).await.unwrap());
        let mut noisy = TcpStream::connect(door.address).await.unwrap();
        noisy.write_all(&[0xa5; 4096]).await.unwrap();
    }
    assert_eq!(client.status().await.unwrap().manager.id, "m1");
}

#[tokio::test]
async fn the_server_stops_when_told() {
    let mut door = Door::open().await;
    let client = door.client("operator/alice");
    client.status().await.unwrap();
    drop(door.stop.take());
    door.task.await.unwrap();
    assert!(matches!(
        client.status().await,
        Err(ClientError::Unreachable { .. })
    ));
}

#[tokio::test]
async fn metrics_are_served() {
    let mut registry = Registry::default();
    let takeovers: Counter = Counter::default();
    registry.register("vnfpool_takeovers", "Takeovers", takeovers.clone());
    takeovers.inc();
    let registry = Arc::new(registry);
    let listener = metrics::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let encode: metrics::Encode = Arc::new(move || metrics::encode(&registry));
    let task = tokio::spawn(metrics::serve(listener, encode, std::future::pending()));
    let ask = async |line: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = ask("GET /metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert!(
        text.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{text}"
    );
    assert!(
        text.ends_with("vnfpool_takeovers_total 1\n# EOF\n"),
        "{text}"
    );
    assert!(ask("GET /").await.starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /metrics").await.starts_with("HTTP/1.1 405 "));
    task.abort();
}
