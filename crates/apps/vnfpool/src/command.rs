//! The operator's commands, of either daemon: with a time limit, and ended with all they started.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::process::Command;

use crate::element::INHERITANCE;

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("cannot start it: {0}")]
    Start(#[source] io::Error),
    #[error("cannot wait for its end: {0}")]
    Wait(#[source] io::Error),
    #[error("it ended with {0}")]
    Exit(ExitStatus),
    #[error("it took longer than {} ms and was ended", .0.as_millis())]
    TimeLimit(Duration),
}

/// Runs a command to its end, which is the limit at the latest; good is only exit code 0.
///
/// At the limit, or when nobody waits for it any more, everything is killed that it has started.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<(), CommandError> {
    command.stdin(Stdio::null()).process_group(0);
    // Those are the daemon's own: a command must not speak for it.
    command.env_remove("NOTIFY_SOCKET").env_remove(INHERITANCE);
    let mut child = command.spawn().map_err(CommandError::Start)?;
    let mut group = Group(child.id());
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(ended) => {
            // Its number may be somebody else's from now on.
            group.0 = None;
            match ended.map_err(CommandError::Wait)? {
                good if good.success() => Ok(()),
                bad => Err(CommandError::Exit(bad)),
            }
        }
        Err(_) => {
            drop(group);
            let _ = child.wait().await;
            Err(CommandError::TimeLimit(limit))
        }
    }
}

/// A command and all it has started, by the number of its process. Dropping it ends them.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(leader) = leader.and_then(Pid::from_raw) {
            // It may have ended just now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// What is in the way of running a file as a command, in words; none when nothing is.
pub(crate) fn obstacle(program: &Path) -> Option<String> {
    let name = program.display();
    match std::fs::metadata(program) {
        Err(error) => Some(format!("{name} cannot be run: {error}")),
        Ok(found) if !found.is_file() => Some(format!("{name} cannot be run: it is no file")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => Some(format!(
            "{name} cannot be run: it is not executable, `chmod +x` it"
        )),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn only_exit_code_0_is_good() {
        let limit = Duration::from_secs(60);
        assert!(run(shell("exit 0"), limit).await.is_ok());
        let failed = run(shell("exit 3"), limit).await;
        assert!(matches!(failed, Err(CommandError::Exit(s)) if s.code() == Some(3)));
        let missing = run(Command::new("/nowhere/command"), limit).await;
        assert!(matches!(missing, Err(CommandError::Start(_))));
    }

    /// Goal: a hanging command ends with everything it has started. Method: what it starts holds
    /// a pipe open, whose reader sees the end.
    #[tokio::test]
    async fn a_hanging_command_is_ended_with_its_children() {
        use std::io::Read as _;
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = shell("sleep 1000 & sleep 1000");
        command.stdout(writer);
        let ended = run(command, Duration::from_millis(200)).await;
        assert!(matches!(ended, Err(CommandError::TimeLimit(_))));
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fence");
        assert!(obstacle(&file).unwrap().contains("No such file"));
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(obstacle(&file).unwrap().contains("chmod"));
        assert!(obstacle(dir.path()).unwrap().contains("no file"));
        assert_eq!(obstacle(Path::new("/bin/sh")), None);
    }
}
