//! `vnfpool element supervise`: keeps the agent running.
//!
//! A process of its own, so small that it has nothing to crash with: it starts the agent, hands it
//! memory and anchor in which it leaves what the next one needs ([`super::inheritance`]), and starts the
//! next one at once when a signal has ended it. SIGHUP replaces it on purpose: by then the program
//! may be a newer one. What the agent itself decides (to stop, to refuse its configuration) is the
//! end of the supervisor too.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use vnfpool_inheritance::{Anchor, Memory};

use super::inheritance::VARIABLE;
use crate::cli::args::ElementRun;
use crate::daemon;

/// An agent that lives for less than this has died of what it was left.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// So many short lives in a row, and the supervisor gives up: somebody has to look.
const SHORT_LIVES_MAX: u32 = 5;

/// The exit code of a Rust program whose main task has panicked: it has crashed, it did not decide.
const PANICKED: i32 = 101;

/// How often a stop is asked for when the agent dies of it.
const STOPS_MAX: u32 = 3;

/// By then a program answers to signals.
const FIRST_MOMENTS: Duration = Duration::from_millis(500);

/// A new program has to accept the configuration within this time, or the old one goes on.
const CHECK_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs the agent of `args` until it stops by itself or this process is told to stop.
pub(crate) fn supervise(args: &ElementRun) -> anyhow::Result<ExitCode> {
    daemon::start_log();
    let supervisor = Supervisor {
        program: program()?,
        config: args.config.clone(),
        memory: Memory::create()?,
        anchor: Anchor::create()?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .context("start the runtime")?
        .block_on(supervisor.run())
}

struct Supervisor {
    program: PathBuf,
    config: PathBuf,
    memory: OwnedFd,
    anchor: Anchor,
}

impl Supervisor {
    async fn run(&self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut short_lives = 0;
        let mut agent = self.start()?;
        let mut began = Instant::now();
        let mut check: Option<JoinHandle<bool>> = None;
        loop {
            let checked = async {
                match &mut check {
                    Some(check) => check.await.unwrap_or(false),
                    None => std::future::pending().await,
                }
            };
            let status = tokio::select! {
                status = agent.wait() => status?,
                _ = terminate.recv() => return self.stop(agent).await,
                _ = interrupt.recv() => return self.stop(agent).await,
                _ = hangup.recv() => {
                    let accepts = accepts_configuration(self.program.clone(), self.config.clone());
                    check = Some(tokio::spawn(accepts));
                    continue;
                }
                accepted = checked => {
                    check = None;
                    if !accepted {
                        continue;
                    }
                    tracing::info!(program = %self.program.display(), "replacing the agent");
                    agent.kill().await.context("end the agent")?;
                    (agent, began) = (self.start()?, Instant::now());
                    continue;
                }
            };
            if status.signal().is_none() && status.code() != Some(PANICKED) {
                return Ok(code_of(status));
            }
            short_lives = match began.elapsed() < SHORT_LIFE {
                true => short_lives + 1,
                false => 0,
            };
            if short_lives > 0 {
                self.forget()?;
            }
            if short_lives >= SHORT_LIVES_MAX {
                bail!(
                    "the agent has died {short_lives} times at once, last by {status}: see its log"
                );
            }
            (agent, began) = (self.start()?, Instant::now());
            // After the fact: the agent has no time to lose.
            tracing::warn!("the agent has died ({status}) and has been started again");
        }
    }

    fn start(&self) -> anyhow::Result<Child> {
        let [send, receive] = self.anchor.numbers();
        let mut command = Command::new(&self.program);
        command
            .args(["element", "run", "--config"])
            .arg(&self.config)
            .env(
                VARIABLE,
                format!("{},{send},{receive}", self.memory.as_raw_fd()),
            );
        let program = self.program.display();
        command.spawn().with_context(|| format!("start {program}"))
    }

    /// A clean stop is the agent's own affair: it hands over first. One that was killed by being asked
    /// in its first moments has left everything; the next one takes it away.
    async fn stop(&self, mut agent: Child) -> anyhow::Result<ExitCode> {
        for _ in 0..STOPS_MAX {
            let pid = agent.id().and_then(|id| i32::try_from(id).ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                // It may have ended just now.
                let _ = kill_process(pid, Signal::TERM);
            }
            let status = agent.wait().await?;
            if status.signal().is_none() {
                return Ok(code_of(status));
            }
            tracing::warn!("the agent has died ({status}) instead of stopping in order");
            agent = self.start()?;
            tokio::time::sleep(FIRST_MOMENTS).await;
        }
        agent.kill().await.context("end the agent")?;
        Ok(ExitCode::FAILURE)
    }

    /// What the agent would go on with has killed it: the next one begins a new life.
    fn forget(&self) -> anyhow::Result<()> {
        let fd = self.memory.as_fd().try_clone_to_owned()?;
        Memory::adopt(fd)?.forget();
        Ok(())
    }
}

/// This program by its path, since another file may stand there by the time it is started again; as it
/// was called, since that may be a link to the newest one.
fn program() -> anyhow::Result<PathBuf> {
    let called = std::env::args_os().next().map(PathBuf::from);
    match called.filter(|path| path.is_absolute()) {
        Some(path) => Ok(path),
        None => std::env::current_exe().context("find this program"),
    }
}

/// Whether the program that stands there now would run.
async fn accepts_configuration(program: PathBuf, config: PathBuf) -> bool {
    let mut check = Command::new(&program);
    check.arg("check").arg(&config).kill_on_drop(true);
    let program = program.display();
    match tokio::time::timeout(CHECK_TIME_MAX, check.output()).await {
        Ok(Ok(output)) if output.status.success() => true,
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stderr);
            tracing::error!(%program, "not replaced: it refuses the configuration: {}", text.trim());
            false
        }
        Ok(Err(error)) => {
            tracing::error!(%program, %error, "not replaced: it cannot be started");
            false
        }
        Err(_) => {
            tracing::error!(%program, "not replaced: it does not answer");
            false
        }
    }
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
