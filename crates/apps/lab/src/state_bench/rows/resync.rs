//! A standby that has nothing is brought everything.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::super::bed::Bed;
use super::super::ctnetlink;
use super::super::subject::Kind;
use super::{Figures, Run, entries};
use crate::clock::{self, Nanos};
use crate::namespaces::Gateway;
use crate::report::Spread;
use crate::rival::ask_conntrackd;
use crate::signals;

const RUNS: usize = 3;
/// Nobody waits longer for a table.
const LIMIT: Duration = Duration::from_secs(60);
/// So much in one look, of about 5 ms, is more than heartbeats, a registration or a handshake: the
/// state is on its way.
const FIRST_BYTES: u64 = 10_000;

/// How long it took one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct ResyncFigures {
    pub(in super::super) system: Kind,
    pub(in super::super) entries: u32,
    pub(in super::super) runs: usize,
    /// From the start of the standby's process, or from the request for a resynchronisation, until it
    /// holds all entries.
    pub(in super::super) whole_ms: Option<Spread>,
    /// From the first bytes of the state that reach the standby, where it started anew.
    pub(in super::super) transfer_ms: Option<Spread>,
    /// From there, where it holds them itself, until all are in its kernel: the commit.
    pub(in super::super) commit_ms: Option<Spread>,
    /// Entries that the standby's kernel lacked in the end, or had in another form, over all runs.
    pub(in super::super) different: usize,
}

/// One bringing, in nanoseconds.
struct Once {
    whole: Nanos,
    transfer: Option<Nanos>,
    commit: Option<Nanos>,
    different: usize,
}

/// conntrackd without its external cache is left out: of half a million entries at once its standby
/// drops a third, and does not ask for them again.
pub(super) fn measure(run: &mut Run<'_>) -> Result<()> {
    for kind in run.contenders(&[Kind::Vnfpool, Kind::Ftfw]) {
        let figures = resync(run, kind).map(Figures::Resync);
        run.settle("resync", kind, figures)?;
    }
    Ok(())
}

fn resync(run: &mut Run<'_>, kind: Kind) -> Result<ResyncFigures> {
    let entries = entries(run);
    let runs = run.runs(RUNS);
    let mut bed = Bed::build_filled(kind, entries)?;
    bed.wait_held(entries, LIMIT)?;
    let mut all = Vec::new();
    for number in 1..=runs {
        let once = once(&mut bed, kind, entries)?;
        let commit = once.commit.map_or_else(String::new, |commit| {
            format!(", commit {:.0} ms", clock::millis(commit))
        });
        let name = kind.name();
        let (whole, different) = (clock::millis(once.whole), once.different);
        writeln!(
            run.progress,
            "{name} resync {number}/{runs}: {entries} entries in {whole:.0} ms{commit}, {different} \
             different"
        )?;
        all.push(once);
    }
    let spread = |of: &dyn Fn(&Once) -> Option<Nanos>| {
        Spread::of(all.iter().filter_map(of).map(clock::millis))
    };
    Ok(ResyncFigures {
        system: kind,
        entries,
        runs,
        whole_ms: spread(&|once| Some(once.whole)),
        transfer_ms: spread(&|once| once.transfer),
        commit_ms: spread(&|once| once.commit),
        different: all.iter().map(|once| once.different).sum(),
    })
}

fn once(bed: &mut Bed, kind: Kind, entries: u32) -> Result<Once> {
    match kind {
        Kind::Vnfpool | Kind::Commit => start_anew(bed, entries),
        Kind::Ftfw | Kind::Direct => ask_for_everything(bed, entries),
    }
}

/// The standby's processes die, its kernel forgets, and it starts again.
fn start_anew(bed: &mut Bed, entries: u32) -> Result<Once> {
    bed.kill_standby()?;
    ctnetlink::flush(bed.gateway(Gateway::Gw2)?)?;
    let began = clock::now();
    bed.start_standby()?;
    let mut heard = bed.scene.lab.bytes_heard(Gateway::Gw2)?;
    signals::wait_for("the first bytes of the state", LIMIT, || {
        let before = std::mem::replace(&mut heard, bed.scene.lab.bytes_heard(Gateway::Gw2)?);
        let is_state = heard.saturating_sub(before) > FIRST_BYTES;
        // Of a small table the whole may be there before its bytes are noticed.
        Ok((is_state || bed.held()? >= u64::from(entries)).then_some(()))
    })?;
    let first = clock::now();
    let complete = bed.wait_held(entries, LIMIT)?;
    bed.check().context("after a resynchronisation")?;
    Ok(Once {
        whole: complete - began,
        transfer: Some(complete.saturating_sub(first)),
        commit: None,
        different: bed.compare()?.missing,
    })
}

/// conntrackd's own way: the standby forgets and asks for everything (`-n`), and commits (`-c`)
/// what it has in its own memory.
fn ask_for_everything(bed: &Bed, entries: u32) -> Result<Once> {
    let standby = bed.gateway(Gateway::Gw2)?.clone();
    ctnetlink::flush(&standby)?;
    ask_conntrackd(&bed.scene.lab, Gateway::Gw2, &["-f"])?;
    // What the flush makes its own kernel tell it is over by then.
    signals::sleep(Duration::from_secs(2))?;
    let began = clock::now();
    ask_conntrackd(&bed.scene.lab, Gateway::Gw2, &["-n"])?;
    let complete = bed.wait_held(entries, LIMIT)?;
    let asked = clock::now();
    ask_conntrackd(&bed.scene.lab, Gateway::Gw2, &["-c"])?;
    signals::wait_for("a commit", LIMIT, || {
        Ok((ctnetlink::count(&standby)? >= u64::from(entries)).then_some(()))
    })?;
    let commit = clock::now() - asked;
    Ok(Once {
        whole: complete - began,
        transfer: None,
        commit: Some(commit),
        different: bed.compare_kernels()?.missing,
    })
}
