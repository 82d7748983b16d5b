//! What both daemons do alike: the log, signals, the service manager.

use std::future::Future;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Starts the log on standard error: `VNFPOOL_LOG` filters it (default `info`),
/// `VNFPOOL_LOG_FORMAT=json` writes it for machines.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_env("VNFPOOL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    // A second call, in tests, changes nothing.
    let _ = match std::env::var("VNFPOOL_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().try_init(),
        _ => log.with_ansi(false).try_init(),
    };
}

/// Runs a daemon on a small runtime; the real-time work is on a thread of its own.
pub(crate) fn block_on<T>(daemon: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(daemon)
}

/// Returns when the daemon is told to stop; which signal it was.
pub(crate) async fn told_to_stop() -> anyhow::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// Tells the service manager, if there is one, that the daemon is ready.
pub(crate) fn ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "no service manager was told");
    }
}
