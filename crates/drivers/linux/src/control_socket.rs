//! A question to a program's control socket, as HAProxy and others have one: a line of text, and an
//! answer after which the program closes the connection.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// An answer is read so far. More is cut off: what was asked for should be near the beginning.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// A program's control socket does not answer.
#[derive(Debug, thiserror::Error)]
#[error("no answer from the control socket {}: does its program run?", path.display())]
#[non_exhaustive]
pub struct ControlSocketError {
    /// The socket.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Sends `line` to the socket at `path` and returns the answer.
///
/// # Errors
/// [`ControlSocketError`] if nobody listens there, or the answer takes longer than `timeout`.
pub fn ask(path: &Path, line: &str, timeout: Duration) -> Result<String, ControlSocketError> {
    exchange(path, line, Instant::now() + timeout).map_err(|source| ControlSocketError {
        path: path.to_owned(),
        source,
    })
}

fn exchange(path: &Path, line: &str, deadline: Instant) -> io::Result<String> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Else it would wait for a program that takes no connections for as long as that lasts.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    let mut stream = UnixStream::from(socket);
    stream.set_write_timeout(Some(left_until(deadline)?))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    while answer.len() < ANSWER_BYTES_MAX {
        stream.set_read_timeout(Some(left_until(deadline)?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
    }
    answer.truncate(ANSWER_BYTES_MAX);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn left_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// Goal: an answer is read to its end, one without an end is cut off, and whoever is silent or
    /// not there is an error. Method: a program of each kind.
    #[test]
    fn programs_answer_or_are_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(ask(&path, "show info", LONG).is_err(), "not there");
        let listener = UnixListener::bind(&path).unwrap();
        let program = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            io::BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(b"Stopping: ").unwrap();
            stream.write_all(b"0\n").unwrap();
            drop(stream);
            let (mut endless, _) = listener.accept().unwrap();
            while endless.write_all(&[b'x'; 1_000]).is_ok() {}
            (line, listener)
        });
        assert_eq!(ask(&path, "show info", LONG).unwrap(), "Stopping: 0\n");
        assert_eq!(ask(&path, "x", LONG).unwrap().len(), ANSWER_BYTES_MAX);
        let (line, _listener) = program.join().unwrap();
        assert_eq!(line, "show info\n");
        let silent = ask(&path, "x", Duration::from_millis(20)).unwrap_err();
        assert_eq!(silent.source.kind(), io::ErrorKind::TimedOut);
    }
}
