//! Server-sent events, as far as the operator API uses them (WHATWG HTML, "Server-sent events").

use std::time::Duration;

use bytes::BytesMut;
use hyper::Response;
use hyper::body::Incoming;

use super::ClientError;
use super::connection::{Connection, next_part};
use crate::api::Event;

/// Events as they come in.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    connection: Connection,
    buffer: BytesMut,
    parser: Parser,
}

impl Events {
    pub(super) fn new(response: Response<Incoming>, connection: Connection) -> Self {
        Self {
            body: response.into_body(),
            connection,
            buffer: BytesMut::new(),
            parser: Parser::default(),
        }
    }

    /// The next event; none when the manager ended the stream, because it stops or because we were
    /// too slow. Ask again after the last sequence number seen.
    ///
    /// # Errors
    /// The connection broke, was silent for longer than the manager ever is, or what came is no
    /// event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let event = self.parser.line(line.trim_ascii_end());
                if let Some(event) = event.map_err(|reason| self.connection.protocol(&reason))? {
                    return Ok(Some(event));
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self
                    .connection
                    .protocol("an event is longer than any of ours"));
            }
            let part = next_part(&mut self.body, &mut self.buffer);
            match tokio::time::timeout(SILENCE_MAX, part).await {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(error))) => {
                    return Err(self.connection.protocol(&error.to_string()));
                }
                Ok(None) => return Ok(None),
                Err(_) => return Err(self.connection.timed_out(SILENCE_MAX)),
            }
        }
    }
}

/// Collects the lines of an event.
#[derive(Debug, Default)]
struct Parser {
    data: Vec<u8>,
}

impl Parser {
    /// Takes a line without its end; an empty one completes an event.
    fn line(&mut self, line: &[u8]) -> Result<Option<Event>, String> {
        if let Some(data) = line.strip_prefix(b"data:") {
            if self.data.len() + data.len() > LINE_BYTES_MAX {
                return Err("an event is longer than any of ours".to_owned());
            }
            self.data.extend_from_slice(data);
            return Ok(None);
        }
        // Number and kind stand in the data as well; comments only keep the connection alive.
        if !line.is_empty() || self.data.is_empty() {
            return Ok(None);
        }
        let event = serde_json::from_slice(&self.data);
        self.data.clear();
        event
            .map(Some)
            .map_err(|error| format!("an event cannot be read ({error})"))
    }
}

/// The manager sends a sign of life every ten seconds.
const SILENCE_MAX: Duration = Duration::from_secs(35);
const LINE_BYTES_MAX: usize = 256 * 1024;
