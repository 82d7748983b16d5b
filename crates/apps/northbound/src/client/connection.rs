//! One HTTP/1.1 connection to a manager.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use vnfpool_transport::https::{self, HttpsClient, HttpsError};

use super::ClientError;

/// A connection, with the task that moves its bytes; dropping it ends the task.
#[derive(Debug)]
pub(super) struct Connection {
    url: Uri,
    sender: Mutex<SendRequest<Full<Bytes>>>,
    task: JoinHandle<()>,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Connection {
    pub(super) async fn open(url: &Uri, https: &HttpsClient) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            url: url.clone(),
            source,
        };
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, connect(url)).await;
        let stream = stream.map_err(|_| unreachable(io::ErrorKind::TimedOut.into()))?;
        let stream = stream.map_err(unreachable)?;
        let stream = https.connect(stream).await.map_err(|source| match source {
            HttpsError::Io(source) => unreachable(source),
            source => ClientError::Handshake {
                url: url.clone(),
                source,
            },
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(url, &error))?;
        let task = tokio::spawn(async move {
            // Whoever waits for an answer gets the same error.
            let _ = connection.await;
        });
        Ok(Self {
            url: url.clone(),
            sender: Mutex::new(sender),
            task,
        })
    }

    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let authority = self
            .url
            .authority()
            .map_or("", |authority| authority.as_str());
        let mut request = Request::new(Full::from(body.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|_| self.protocol("a path that is none"))?;
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(authority) {
            headers.insert(HOST, host);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let response = self.sender.lock().await.send_request(request).await;
        response.map_err(|error| failure(&self.url, &error))
    }

    /// Reads a whole answer, as long as it stays within bounds.
    pub(super) async fn read(&self, response: Response<Incoming>) -> Result<Reply, ClientError> {
        let status = response.status();
        let body = Limited::new(response.into_body(), REPLY_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| self.protocol(&error.to_string()))?
            .to_bytes();
        Ok(Reply { status, body })
    }

    pub(super) fn timed_out(&self, limit: Duration) -> ClientError {
        self.protocol(&format!("none came within {} s", limit.as_secs()))
    }

    pub(super) fn protocol(&self, reason: &str) -> ClientError {
        ClientError::Protocol {
            url: self.url.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connect(url: &Uri) -> io::Result<TcpStream> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(vnfpool_config::PORT_OPERATOR);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The manager may refuse our certificate only when we speak (TLS 1.3): then say that.
fn failure(url: &Uri, error: &hyper::Error) -> ClientError {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && let Some(rejection) = https::refusal(error)
        {
            return ClientError::Handshake {
                url: url.clone(),
                source: HttpsError::Refused(rejection),
            };
        }
        cause = error.source();
    }
    let reason = error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    ClientError::Protocol {
        url: url.clone(),
        reason,
    }
}

/// Reads the next part of a body; none at its end.
pub(super) async fn next_part(
    body: &mut Incoming,
    into: &mut BytesMut,
) -> Option<Result<(), hyper::Error>> {
    match body.frame().await? {
        Ok(frame) => {
            if let Ok(data) = frame.into_data() {
                into.extend_from_slice(&data);
            }
            Some(Ok(()))
        }
        Err(error) => Some(Err(error)),
    }
}

const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// The audit log of ten thousand entries fits.
const REPLY_BYTES_MAX: usize = 16 << 20;
