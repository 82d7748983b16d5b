//! Whether backends answer.

use std::net::SocketAddrV4;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

/// Between two looks at a backend.
const INTERVAL: Duration = Duration::from_millis(300);

/// A backend that has not taken a connection by then does not answer.
const TIME_MAX: Duration = Duration::from_millis(500);

/// So many looks in a row have to fail: a lost packet is no dead backend.
const FAILURES_MAX: u32 = 2;

/// Looks at `backends` from now on; those that answer.
pub(crate) fn start(backends: &[SocketAddrV4]) -> watch::Receiver<Vec<SocketAddrV4>> {
    let (answering, seen) = watch::channel(Vec::new());
    for backend in backends {
        tokio::spawn(look(*backend, answering.clone()));
    }
    seen
}

async fn look(backend: SocketAddrV4, answering: watch::Sender<Vec<SocketAddrV4>>) {
    let mut failures = FAILURES_MAX;
    while !answering.is_closed() {
        let connected = tokio::time::timeout(TIME_MAX, TcpStream::connect(backend)).await;
        failures = match connected {
            Ok(Ok(_)) => 0,
            _ => failures.saturating_add(1),
        };
        let answers = failures < FAILURES_MAX;
        answering.send_if_modified(|all| {
            let is_news = all.contains(&backend) != answers;
            if is_news {
                tracing::info!(%backend, answers, "a backend");
                all.retain(|known| *known != backend);
                all.extend(answers.then_some(backend));
            }
            is_news
        });
        tokio::time::sleep(INTERVAL).await;
    }
}
