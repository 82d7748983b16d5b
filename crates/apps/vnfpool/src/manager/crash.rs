//! Death between two steps of a failover, on demand: for the laboratory.
//!
//! `VNFPOOL_CRASH_AT=<step>` in the environment makes this manager kill itself, as by `kill -9`,
//! when it gets to that step of the first failover that it sees, or prepares for. Without the variable every
//! point below is one comparison. It is not a feature of the build, so that the program which the
//! laboratory kills is the one that is installed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use rustix::process::{Signal, getpid, kill_process};

/// The steps of a failover (R8, R10, R16, 5n), each named after what has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The record that a vote would make is on disk; no vote has come.
    RecordPrepared,
    /// The successor's vote has arrived; nothing has come of it.
    VoteReceived,
    /// It was counted; the new record is about to go to the disk, or was prepared there.
    VoteCounted,
    /// The record is in force; nobody has been told.
    RecordInForce,
    /// The new active has been told; nobody else has.
    VoterAnswered,
    /// All have been told; the disk has the record only as one that was prepared.
    MembersTold,
    /// The disk has the record; if it was not prepared, nobody knows of it.
    RecordWritten,
}

impl Step {
    const ALL: [(&str, Self); 7] = [
        ("record-prepared", Self::RecordPrepared),
        ("vote-received", Self::VoteReceived),
        ("vote-counted", Self::VoteCounted),
        ("record-in-force", Self::RecordInForce),
        ("voter-answered", Self::VoterAnswered),
        ("members-told", Self::MembersTold),
        ("record-written", Self::RecordWritten),
    ];
}

static PLANNED: OnceLock<Step> = OnceLock::new();
/// The steps after the vote are passed by every record; those of a failover count.
static IN_FAILOVER: AtomicBool = AtomicBool::new(false);

/// Reads the environment, and says so when it finds something.
pub(crate) fn plan_from_environment() -> anyhow::Result<()> {
    let Ok(name) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let step = parse(&name)?;
    tracing::warn!("this manager kills itself at {name} of its first failover: {VARIABLE} is set");
    // Read once a process: a second manager in it, in tests, goes by the first one's plan.
    let _ = PLANNED.set(step);
    Ok(())
}

fn parse(name: &str) -> anyhow::Result<Step> {
    let Some((_, step)) = Step::ALL.into_iter().find(|(known, _)| *known == name) else {
        let names = Step::ALL.map(|(known, _)| known).join(", ");
        bail!("{VARIABLE} names no step of a failover: {name:?}; there are {names}")
    };
    Ok(step)
}

/// A failover has begun: the points from here on count.
pub(crate) fn failover_begins() {
    if PLANNED.get().is_some() {
        IN_FAILOVER.store(true, Ordering::Relaxed);
    }
}

/// Ends the process if it is planned to end here.
pub(crate) fn point(step: Step) {
    let counts = step == Step::RecordPrepared || IN_FAILOVER.load(Ordering::Relaxed);
    if PLANNED.get() == Some(&step) && counts {
        // Nothing is flushed, answered or cleaned up.
        let _ = kill_process(getpid(), Signal::KILL);
        std::process::abort();
    }
}

const VARIABLE: &str = "VNFPOOL_CRASH_AT";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_known_by_name_and_others_are_refused() {
        for (name, step) in Step::ALL {
            assert_eq!(parse(name).unwrap(), step);
        }
        let error = parse("vote").unwrap_err().to_string();
        assert!(
            error.contains("\"vote\"") && error.contains("vote-counted"),
            "{error}"
        );
    }

    /// Goal: without a plan nothing ends, failover or not.
    #[test]
    fn points_are_inert_without_a_plan() {
        failover_begins();
        for (_, step) in Step::ALL {
            point(step);
        }
        assert!(!IN_FAILOVER.load(Ordering::Relaxed));
    }
}
