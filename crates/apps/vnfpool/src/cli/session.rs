//! A connection to the manager for one command.

use std::future::Future;
use std::path::Path;

use anyhow::Context;
use tokio::runtime::Runtime;
use vnfpool_northbound::client::{ClientError, OperatorClient};

/// The operator's client with a runtime to wait on it.
pub(super) struct Session {
    runtime: Runtime,
    pub(super) client: OperatorClient,
}

impl Session {
    /// Reads the operator's directory; nothing is connected yet.
    pub(super) fn open(admin: &Path) -> anyhow::Result<Self> {
        let client = OperatorClient::new(admin)?;
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        Ok(Self { runtime, client })
    }

    /// Waits for a call of [`Session::client`].
    pub(super) fn wait<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(call)?)
    }
}
