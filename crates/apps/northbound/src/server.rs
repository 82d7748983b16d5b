//! Serves the operator API behind mutual TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt as _;
use vnfpool_transport::https::HttpsServer;

/// Binds a TCP socket for [`serve`].
///
/// # Errors
/// What the system said, such as "address in use".
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves `router` on `listener` until `shutdown` is done, then lets running requests end for at
/// most two seconds. Who calls is put into each request as [`vnfpool_transport::Identity`].
///
/// At most [`CONNECTIONS_MAX`] connections are open at a time, handshakes included; more are
/// closed at once. A connection that sends no whole request head for [`HEAD_TIME_MAX`] is closed.
pub async fn serve(
    listener: TcpListener,
    tls: HttpsServer,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = &mut shutdown => break,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly "too many open files": wait until some are closed.
                tracing::warn!(%error, "cannot accept a connection to the operator API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(%remote, "closed a connection to the operator API: too many are open");
            continue;
        };
        let (tls, router, stopping) = (tls.clone(), router.clone(), stopping.clone());
        connections.spawn(async move {
            serve_connection(stream, remote, &tls, router, stopping).await;
            drop(permit);
        });
    }
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME_MAX, drained).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve_connection(
    stream: TcpStream,
    remote: SocketAddr,
    tls: &HttpsServer,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are small; waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    // A refusal is counted and logged by the transport.
    let Ok((stream, peer)) = tls.accept(stream, remote).await else {
        return;
    };
    let service = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer.identity.clone());
        request
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let told_to_stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await.map(drop);
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = told_to_stop => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%remote, %error, "a connection to the operator API ended early");
    }
}

/// Connections open at a time.
pub const CONNECTIONS_MAX: usize = 128;
/// Time for the head of a request, and between requests.
pub const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);
