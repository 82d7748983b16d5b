//! A function that keeps its own state ends what it can before a planned handover.

mod failures;

use std::path::PathBuf;
use std::time::Duration;

use vnfpool_config::Drain;
use vnfpool_linux::control_socket;

pub(super) use self::failures::{Failures, Step};

/// What the function's control socket may take for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);

/// Tells the function to drain, gives it its time, lets `hand_over` happen, and tells it that it is
/// over. The handover never waits for more than that: a function that does not answer is handed over
/// as it is. `failed` hears at once what was not taken, and why.
pub(super) async fn around(
    drain: Option<Drain>,
    failed: impl Fn(Step, String),
    hand_over: impl Future<Output = ()>,
) {
    let Some(drain) = drain else {
        return hand_over.await;
    };
    tracing::info!(time_ms = drain.time.as_millis(), "draining the function");
    match say(drain.socket.clone(), drain.begin).await {
        Said::Taken => tokio::time::sleep(drain.time).await,
        // It may drain all the same.
        Said::Answered(reason) => {
            failed(Step::Begin, reason);
            tokio::time::sleep(drain.time).await;
        }
        Said::Unheard(reason) => failed(Step::Begin, reason),
    }
    hand_over.await;
    match say(drain.socket, drain.end).await {
        Said::Taken => {}
        Said::Answered(reason) | Said::Unheard(reason) => failed(Step::End, reason),
    }
}

/// What became of a line.
enum Said {
    Taken,
    /// The function answered something, which it does to what it cannot do.
    Answered(String),
    Unheard(String),
}

/// Says a line to the function.
async fn say(socket: PathBuf, line: String) -> Said {
    let said = tokio::task::spawn_blocking(move || {
        match control_socket::ask(&socket, &line, ANSWER_TIME_MAX) {
            Ok(answer) if answer.trim().is_empty() => Said::Taken,
            Ok(answer) => {
                let answer = answer.trim().escape_debug();
                Said::Answered(format!("the function answers {line:?} with \"{answer}\""))
            }
            Err(error) => Said::Unheard(format!("{error} ({})", error.source)),
        }
    });
    said.await
        .unwrap_or_else(|error| Said::Unheard(format!("the question ended with {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::sync::mpsc::{self, Sender};

    use super::*;

    /// What a program does that takes a line for each of `answers`.
    fn start_function(socket: &Path, answers: [&'static str; 2], heard: Sender<String>) {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for answer in answers {
                let mut stream = BufReader::new(listener.accept().unwrap().0);
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                heard.send(line.trim().to_owned()).unwrap();
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
    }

    /// What happens around a handover, in order; without answers there is no function.
    async fn course(answers: Option<[&'static str; 2]>) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let (happened, course) = mpsc::channel();
        if let Some(answers) = answers {
            start_function(&socket, answers, happened.clone());
        }
        let drain = Drain {
            socket,
            begin: "begin".to_owned(),
            end: "end".to_owned(),
            time: Duration::from_millis(1),
        };
        let note = |what: String| happened.send(what).unwrap();
        let failed = |step, reason| note(format!("{step:?}: {reason}"));
        around(Some(drain), failed, async {
            note("handed over".to_owned())
        })
        .await;
        course.try_iter().collect()
    }

    #[tokio::test]
    async fn a_handover_is_between_both_lines() {
        let course = course(Some(["", "\n"])).await;
        assert_eq!(course, ["begin", "handed over", "end"]);
    }

    /// Goal: the handover happens without a function as well, and both failures are told, the first one
    /// before it.
    #[tokio::test]
    async fn a_function_that_is_not_there_is_told() {
        let course = course(None).await;
        let [begin, handed_over, end] = &course[..] else {
            panic!("{course:?}");
        };
        assert!(begin.starts_with("Begin: no answer from"), "{begin}");
        assert_eq!(handed_over, "handed over");
        assert!(end.starts_with("End: no answer from"), "{end}");
    }

    #[tokio::test]
    async fn a_function_that_says_no_is_told() {
        let course = course(Some(["No such server.\n", ""])).await;
        let answer = "Begin: the function answers \"begin\" with \"No such server.\"";
        assert_eq!(course, ["begin", answer, "handed over", "end"]);
    }
}
