//! Calls a manager's operator API: what the command line uses.

mod connection;
mod events;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use vnfpool_model::{PoolHandle, PoolSpec};
use vnfpool_transport::https::{HttpsClient, HttpsError};
use vnfpool_transport::pki::{Credentials, PkiError};

pub use events::Events;

use crate::api::{
    Applied, AuditEntry, FenceRequest, PardonRequest, Status, SwitchoverDone, SwitchoverRequest,
    Token, TokenRequest,
};
use crate::problem::{Code, Problem};
use connection::{Connection, Reply};

/// The file of an operator's directory that holds the manager's URL, one a line if there are
/// several; they are tried in turn.
pub const MANAGER_FILE: &str = "manager";

/// A manager's operator API as seen by an operator. Each call opens a connection of its own.
#[derive(Debug)]
pub struct OperatorClient {
    https: HttpsClient,
    managers: Vec<Uri>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The operator's certificate cannot be used.
    #[error("cannot use the operator's certificate in {}", dir.display())]
    Credentials {
        /// The operator's directory.
        dir: PathBuf,
        /// What is wrong.
        #[source]
        source: PkiError,
    },
    /// The file with the manager's URL cannot be read.
    #[error("cannot read the manager's URL in {}", path.display())]
    ManagerFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file with the manager's URL holds something else.
    #[error("{} holds no URL like https://10.9.0.10:7443, but \"{text}\"", path.display())]
    ManagerUrl {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
    /// No connection could be made.
    #[error("cannot reach the manager at {url}")]
    Unreachable {
        /// Where it was looked for.
        url: Uri,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The two sides do not trust each other.
    #[error("no trust between us and the manager at {url}")]
    Handshake {
        /// Where it is.
        url: Uri,
        /// What is wrong with whom.
        #[source]
        source: HttpsError,
    },
    /// The connection broke, or what came is no answer.
    #[error("the manager at {url} gave no proper answer: {reason}")]
    Protocol {
        /// Where it is.
        url: Uri,
        /// What came instead.
        reason: String,
    },
    /// The manager refused.
    #[error(transparent)]
    Refused(#[from] Problem),
}

impl ClientError {
    /// The code of a refusal by the manager.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            _ => None,
        }
    }

    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Credentials { .. } | Self::ManagerFile { .. } | Self::ManagerUrl { .. } => Some(
                "name the operator's directory with --admin DIR or VNFPOOL_ADMIN; `vnfpool manager \
                 init` makes one in DIR/operator",
            ),
            Self::Unreachable { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused => Some("is `vnfpool manager run` running there?"),
                io::ErrorKind::TimedOut => Some("is a firewall between here and there?"),
                _ => None,
            },
            Self::Handshake { .. } => {
                Some("the operator's directory must come from this manager's `manager init`")
            }
            Self::Protocol { .. } | Self::Refused(_) => None,
        }
    }
}

impl OperatorClient {
    /// A client with the certificate (`ca.pem`, `cert.pem`, `key.pem`) and the manager's URL
    /// (`manager`) in `admin_dir`. Nothing is connected yet.
    ///
    /// # Errors
    /// A file is missing or is not what its name says.
    pub fn new(admin_dir: &Path) -> Result<Self, ClientError> {
        let path = admin_dir.join(MANAGER_FILE);
        let credentials =
            Credentials::load(admin_dir).map_err(|source| ClientError::Credentials {
                dir: admin_dir.to_owned(),
                source,
            })?;
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ClientError::ManagerFile { path, source }),
        };
        let managers = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let managers: Option<Vec<Uri>> = managers.map(parse_url).collect();
        match managers {
            Some(managers) if !managers.is_empty() => Ok(Self {
                https: HttpsClient::new(credentials),
                managers,
            }),
            _ => Err(ClientError::ManagerUrl {
                path,
                text: text.trim().chars().take(URL_QUOTED_MAX).collect(),
            }),
        }
    }

    /// Everything at a glance.
    ///
    /// # Errors
    /// See [`ClientError`]; the same for all calls below.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// All pools.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pools(&self) -> Result<Vec<PoolSpec>, ClientError> {
        self.get("/v1/pools").await
    }

    /// One pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pool(&self, handle: &PoolHandle) -> Result<PoolSpec, ClientError> {
        self.get(&format!("/v1/pools/{handle}")).await
    }

    /// Creates or changes a pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn apply_pool(&self, spec: &PoolSpec) -> Result<Applied, ClientError> {
        let path = format!("/v1/pools/{}", spec.handle);
        self.send(Method::PUT, &path, Some(spec)).await
    }

    /// Deletes a pool.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_pool(&self, handle: &PoolHandle) -> Result<(), ClientError> {
        let path = format!("/v1/pools/{handle}");
        self.call::<()>(Method::DELETE, &path, None).await.map(drop)
    }

    /// Makes a one-time token.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_token(&self, request: &TokenRequest) -> Result<Token, ClientError> {
        self.send(Method::POST, "/v1/tokens", Some(request)).await
    }

    /// Hands a slot over; returns when the new active serves.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn switchover(
        &self,
        pool: &PoolHandle,
        request: &SwitchoverRequest,
    ) -> Result<SwitchoverDone, ClientError> {
        let path = format!("/v1/pools/{pool}/switchover");
        self.send(Method::POST, &path, Some(request)).await
    }

    /// Declares an element dead.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn fence(
        &self,
        pool: &PoolHandle,
        request: &FenceRequest,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/pools/{pool}/fence");
        self.call(Method::POST, &path, Some(request))
            .await
            .map(drop)
    }

    /// Gives an element a clean slate.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pardon(
        &self,
        pool: &PoolHandle,
        request: &PardonRequest,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/pools/{pool}/pardon");
        self.call(Method::POST, &path, Some(request))
            .await
            .map(drop)
    }

    /// The newest `lines` entries of the audit log, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(&self, lines: u32) -> Result<Vec<AuditEntry>, ClientError> {
        self.get(&format!("/v1/audit?lines={lines}")).await
    }

    /// Events after number `after`, or only new ones, of one pool or of all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(
        &self,
        after: Option<u64>,
        pool: Option<&PoolHandle>,
    ) -> Result<Events, ClientError> {
        let after = after.map(|after| format!("after={after}"));
        let pool = pool.map(|pool| format!("pool={pool}"));
        let query: Vec<String> = [after, pool].into_iter().flatten().collect();
        let connection = self.connect().await?;
        let path = format!("/v1/events?{}", query.join("&"));
        let response = connection.send(Method::GET, &path, None);
        let response = tokio::time::timeout(REQUEST_TIME_MAX, response).await;
        let response = response.map_err(|_| connection.timed_out(REQUEST_TIME_MAX))??;
        if response.status() == StatusCode::OK {
            return Ok(Events::new(response, connection));
        }
        let reply = connection.read(response).await?;
        Err(refusal(&reply, connection.url()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (reply, url) = self.call(method, path, body).await?;
        serde_json::from_slice(&reply.body).map_err(|error| ClientError::Protocol {
            url,
            reason: format!("its answer cannot be read ({error})"),
        })
    }

    async fn call<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<(Reply, Uri), ClientError> {
        let connection = self.connect().await?;
        let body = body.map(serde_json::to_vec).transpose();
        let body = body.map_err(|error| ClientError::Protocol {
            url: connection.url().clone(),
            reason: format!("the request cannot be written ({error})"),
        })?;
        let exchange = async {
            let response = connection.send(method, path, body.map(Bytes::from)).await?;
            connection.read(response).await
        };
        let reply = tokio::time::timeout(REQUEST_TIME_MAX, exchange).await;
        let reply = reply.map_err(|_| connection.timed_out(REQUEST_TIME_MAX))??;
        if reply.status.is_success() {
            Ok((reply, connection.url().clone()))
        } else {
            Err(refusal(&reply, connection.url()))
        }
    }

    /// Connects to the first manager that can be reached.
    async fn connect(&self) -> Result<Connection, ClientError> {
        let mut last = None;
        for url in &self.managers {
            match Connection::open(url, &self.https).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::ManagerUrl {
            path: PathBuf::from(MANAGER_FILE),
            text: String::new(),
        }))
    }
}

/// `https://host:port`, nothing after it.
fn parse_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let is_ours = url.scheme_str() == Some("https")
        && url.host().is_some_and(|host| !host.is_empty())
        && matches!(url.path(), "" | "/")
        && url.query().is_none();
    is_ours.then_some(url)
}

fn refusal(reply: &Reply, url: &Uri) -> ClientError {
    match serde_json::from_slice::<Problem>(&reply.body) {
        Ok(problem) => ClientError::Refused(problem),
        Err(_) => ClientError::Protocol {
            url: url.clone(),
            reason: format!("HTTP status {}", reply.status),
        },
    }
}

/// Longer than the manager takes for any request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(20);
const URL_QUOTED_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_urls_are_taken() {
        for good in [
            "https://10.9.0.10:7443",
            "https://[fd00::1]:7443/",
            "https://m.example",
        ] {
            assert!(parse_url(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "10.9.0.10:7443",
            "http://10.9.0.10",
            "https://",
            "https://a/b",
            "x y",
        ] {
            assert!(parse_url(bad).is_none(), "{bad}");
        }
    }
}
