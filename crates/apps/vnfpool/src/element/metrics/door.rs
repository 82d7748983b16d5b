//! Where the metrics are served, at once or as soon as it is possible.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use vnfpool_northbound::metrics::{self, Encode};

/// How often an address that could not be listened on is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Serves what `encode` writes on `listen`. With `resumes`, where this process goes on with the life of
/// another one, an address that cannot be listened on is tried again for as long as it takes: slots are
/// served here already, and metrics are not worth a failover.
///
/// # Errors
/// The address cannot be listened on, at a fresh start.
pub(super) async fn open(
    tasks: &mut JoinSet<()>,
    listen: SocketAddr,
    encode: Encode,
    resumes: bool,
) -> anyhow::Result<()> {
    let bound = metrics::bind(listen).await;
    match bound.with_context(|| format!("listen on {listen} for metrics")) {
        Ok(listener) => {
            tasks.spawn(metrics::serve(listener, encode, pending()));
        }
        Err(error) if resumes => {
            tracing::error!("{error:#}: the agent goes on without metrics and tries it again");
            tasks.spawn(async move {
                let listener = bind_at_last(listen).await;
                tracing::info!(%listen, "metrics are served at last");
                metrics::serve(listener, encode, pending()).await;
            });
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn bind_at_last(listen: SocketAddr) -> TcpListener {
    loop {
        tokio::time::sleep(LISTEN_AGAIN).await;
        if let Ok(listener) = metrics::bind(listen).await {
            return listener;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Far more than it takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn occupied() -> (TcpListener, SocketAddr) {
        // Not the address that calls come from: one to a free port could be answered by itself.
        let any = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
        let taken = TcpListener::bind(any).await.unwrap();
        let address = taken.local_addr().unwrap();
        (taken, address)
    }

    fn encode() -> Encode {
        Arc::new(|| "vnfpool_up 1\n".to_owned())
    }

    /// What `/metrics` at an address says; nothing while nobody answers.
    async fn scrape(address: SocketAddr) -> Option<String> {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = "GET /metrics HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// Goal: an agent that goes on with another process's life does not end for a port that is in use,
    /// and has its metrics when the port is free. Method: the port is taken, then given back.
    #[tokio::test]
    async fn an_agent_that_goes_on_waits_for_its_port() {
        let (taken, address) = occupied().await;
        let mut tasks = JoinSet::new();
        open(&mut tasks, address, encode(), true).await.unwrap();
        drop(taken);
        let scraped = async {
            loop {
                if let Some(text) = scrape(address).await {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let text = tokio::time::timeout(PATIENCE, scraped).await.unwrap();
        assert!(text.contains("vnfpool_up 1"), "{text}");
        assert!(tasks.try_join_next().is_none(), "its task goes on");
    }

    /// Goal: at a fresh start, where nothing is served yet, the operator hears of it at once.
    #[tokio::test]
    async fn a_port_in_use_is_an_error_at_a_fresh_start() {
        let (_taken, address) = occupied().await;
        let mut tasks = JoinSet::new();
        let refused = open(&mut tasks, address, encode(), false).await;
        let said = format!("{:#}", refused.unwrap_err());
        assert!(said.contains(&address.to_string()), "{said}");
        assert!(said.contains("in use"), "{said}");
        assert!(tasks.is_empty());
    }
}
