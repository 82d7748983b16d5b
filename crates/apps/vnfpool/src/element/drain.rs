//! A function that keeps its own state ends what it can before a planned handover.

use std::path::PathBuf;
use std::time::Duration;

use vnfpool_config::Drain;
use vnfpool_linux::control_socket;

/// What the function's control socket may take for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);

/// Tells the function to drain, gives it its time, lets `hand_over` happen, and tells it that it is
/// over. The handover never waits for more than that: a function that does not answer is handed over as it is.
pub(super) async fn around(drain: Option<Drain>, hand_over: impl Future<Output = ()>) {
    let Some(drain) = drain else {
        return hand_over.await;
    };
    tracing::info!(time_ms = drain.time.as_millis(), "draining the function");
    if say(drain.socket.clone(), drain.begin).await {
        tokio::time::sleep(drain.time).await;
    }
    hand_over.await;
    say(drain.socket, drain.end).await;
}

/// Says a line to the function; false if that failed.
async fn say(socket: PathBuf, line: String) -> bool {
    let said = tokio::task::spawn_blocking(move || {
        let answer = control_socket::ask(&socket, &line, ANSWER_TIME_MAX);
        match &answer {
            Ok(answer) if answer.trim().is_empty() => {}
            Ok(answer) => tracing::warn!(
                line,
                "the function answers: {}",
                answer.trim().escape_debug()
            ),
            Err(error) => tracing::error!(
                line,
                "the function is not drained: {error}: {}",
                error.source
            ),
        }
        answer.is_ok()
    });
    said.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;

    use super::*;

    /// Goal: the function hears both lines, the handover is between them, and it happens without a
    /// function as well. Method: a program that takes lines.
    #[tokio::test]
    async fn a_handover_is_between_both_lines() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let drain = Drain {
            socket: socket.clone(),
            begin: "begin".to_owned(),
            end: "end".to_owned(),
            time: Duration::from_millis(1),
        };
        let (heard, said) = mpsc::channel();
        around(Some(drain.clone()), async {
            heard.send("alone".to_owned()).unwrap()
        })
        .await;
        assert_eq!(said.try_recv().unwrap(), "alone");

        let listener = UnixListener::bind(&socket).unwrap();
        let hears = heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut line = String::new();
                BufReader::new(stream.unwrap())
                    .read_line(&mut line)
                    .unwrap();
                hears.send(line.trim().to_owned()).unwrap();
            }
        });
        around(Some(drain), async {
            heard.send("handed over".to_owned()).unwrap()
        })
        .await;
        let order: Vec<_> = said.iter().take(3).collect();
        assert_eq!(order, ["begin", "handed over", "end"]);
    }
}
