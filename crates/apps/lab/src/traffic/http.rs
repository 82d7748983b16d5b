//! One bulk download over HTTP/1.1, as long as the demonstration, with a checksum at its end.
//!
//! The server sends chunks at a bounded rate until it is told to stop, then the SHA-256 of
//! everything as a trailer. The client hashes what arrives and compares.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{Context as Hash, SHA256};
use serde::Serialize;

use super::lock;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::{Namespace, SERVER_V4};

const PORT: u16 = 80;
const CHUNK: usize = 100 * 1024;
/// One chunk each 5 ms: 20 MB/s.
const INTERVAL: Nanos = 5 * MILLISECOND;
/// Longer than any outage a system under test should cause; then the download is lost.
const PATIENCE: Duration = Duration::from_secs(20);
const HEAD_MAX_LINES: usize = 32;

/// How the download went.
#[derive(Debug, Clone, Serialize)]
pub struct Download {
    /// Bytes received.
    pub bytes: u64,
    /// Whether the checksum of what arrived is the one that the server announced.
    pub intact: bool,
    /// Why not, when it is not.
    pub problem: Option<String>,
}

/// A running download.
#[derive(Debug)]
pub(crate) struct Bulk {
    finish: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    outcome: Arc<Mutex<Option<Result<u64, String>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Bulk {
    /// Starts the server in `server` and the download in `client`.
    pub(crate) fn start(client: &Namespace, server: &Namespace) -> Result<Self> {
        let finish = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU64::new(0));
        let outcome = Arc::new(Mutex::new(None));
        let listener = server.run(|| {
            TcpListener::bind(SocketAddr::new(SERVER_V4, PORT)).context("listening for HTTP")
        })?;
        let stream = client.run(|| {
            TcpStream::connect_timeout(&SocketAddr::new(SERVER_V4, PORT), PATIENCE)
                .context("connecting for the download through the gateways")
        })?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("setting a read timeout")?;
        let serving = {
            let finish = Arc::clone(&finish);
            server.spawn_ordinary("http-server", move || {
                // A broken connection is the client's to report: it misses the checksum.
                let _broken = serve(&listener, &finish);
            })?
        };
        let downloading = {
            let (received, outcome) = (Arc::clone(&received), Arc::clone(&outcome));
            client.spawn_ordinary("http-client", move || {
                let result = download(stream, &received).map_err(|error| format!("{error:#}"));
                *lock(&outcome) = Some(result);
            })?
        };
        Ok(Self {
            finish,
            received,
            outcome,
            threads: vec![serving, downloading],
        })
    }

    /// Lets the server finish and compares the checksums.
    pub(crate) fn finish(mut self) -> Download {
        self.finish.store(true, Ordering::Relaxed);
        let end = clock::now() + clock::nanos(PATIENCE);
        while lock(&self.outcome).is_none() && clock::now() < end {
            clock::sleep_until(clock::now() + 5 * MILLISECOND);
        }
        let outcome = lock(&self.outcome).take();
        // A thread that still waits for its connection ends by its read timeout.
        self.threads.retain(|thread| !thread.is_finished());
        match outcome {
            Some(Ok(bytes)) => Download {
                bytes,
                intact: true,
                problem: None,
            },
            Some(Err(problem)) => self.broken(problem),
            None => self.broken("it did not come to its end".to_owned()),
        }
    }

    fn broken(&self, problem: String) -> Download {
        let bytes = self.received.load(Ordering::Relaxed);
        Download {
            bytes,
            intact: false,
            problem: Some(problem),
        }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.finish.store(true, Ordering::Relaxed);
    }
}

fn serve(listener: &TcpListener, finish: &AtomicBool) -> Result<()> {
    let (stream, _) = listener.accept().context("accepting the download")?;
    stream
        .set_write_timeout(Some(PATIENCE))
        .context("setting a write timeout")?;
    read_head(&mut BufReader::new(&stream))?;
    let mut stream = &stream;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\
          Transfer-Encoding: chunked\r\nTrailer: X-Sha256\r\n\r\n",
    )?;
    let mut hash = Hash::new(&SHA256);
    let mut content = Content::default();
    let mut next = clock::now();
    while !finish.load(Ordering::Relaxed) {
        let chunk = content.next_chunk();
        hash.update(chunk);
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
        next = (next + INTERVAL).max(clock::now());
        clock::sleep_until(next);
    }
    write!(
        stream,
        "0\r\nX-Sha256: {}\r\n\r\n",
        hexadecimal(hash.finish().as_ref())
    )?;
    Ok(())
}

fn download(stream: TcpStream, received: &AtomicU64) -> Result<u64> {
    let mut output = &stream;
    output.write_all(b"GET /bulk HTTP/1.1\r\nHost: server.lab.example\r\n\r\n")?;
    let mut input = BufReader::with_capacity(CHUNK, &stream);
    let head = read_head(&mut input)?;
    if !head.first().is_some_and(|status| status.contains(" 200 ")) {
        bail!("the server answered {head:?}");
    }
    let mut hash = Hash::new(&SHA256);
    let mut chunk = vec![0; CHUNK + 2];
    loop {
        let size = read_line(&mut input)?;
        let size = usize::from_str_radix(&size, 16)
            .ok()
            .filter(|size| *size <= CHUNK)
            .with_context(|| format!("reading the chunk size {size:?}"))?;
        if size == 0 {
            break;
        }
        input
            .read_exact(&mut chunk[..size + 2])
            .context("reading a chunk")?;
        hash.update(&chunk[..size]);
        received.fetch_add(u64::try_from(size)?, Ordering::Relaxed);
    }
    let own = hexadecimal(hash.finish().as_ref());
    let trailer = read_head(&mut input)?;
    let announced = trailer
        .first()
        .and_then(|line| line.strip_prefix("X-Sha256: "));
    if announced != Some(&own) {
        bail!("the checksum is {own}, the server announced {announced:?}");
    }
    Ok(received.load(Ordering::Relaxed))
}

/// Lines up to the empty one.
fn read_head(input: &mut impl std::io::BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for _ in 0..HEAD_MAX_LINES {
        let line = read_line(input)?;
        if line.is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
    bail!("an HTTP head of more than {HEAD_MAX_LINES} lines")
}

fn read_line(input: &mut impl std::io::BufRead) -> Result<String> {
    let mut line = String::new();
    if input
        .take(4096)
        .read_line(&mut line)
        .context("reading a line")?
        == 0
    {
        bail!("the connection was closed");
    }
    Ok(line.trim_end().to_owned())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes without period: a simple generator (xorshift64) is enough, it only has to differ.
struct Content {
    state: u64,
    chunk: Vec<u8>,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            chunk: vec![0; CHUNK],
        }
    }
}

impl Content {
    fn next_chunk(&mut self) -> &[u8] {
        for word in self.chunk.chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes());
        }
        &self.chunk
    }
}
