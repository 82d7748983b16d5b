//! Ending the lenience towards connections that were taken over ([`TcpInfo::learning`]).
//!
//! [`TcpInfo::learning`]: crate::TcpInfo::learning

use crate::dump::{Dump, DumpProgress, Family};
use crate::entry::{Entry, ProtocolState, TcpInfo, tcp_flags, tcp_state};
use crate::inject::Injector;
use crate::netlink::socket::NetlinkError;
use crate::reset;
use crate::scope::Scope;

/// What [`settle`] did and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Connections that are tracked strictly from now on.
    pub made_strict: u64,
    /// Connections brought back that a reset was about to end, unjudged.
    pub restored: u64,
    /// Connections that are still to be learnt: call again.
    pub learning: u64,
}

impl Settled {
    const fn changed(&self) -> u64 {
        self.made_strict + self.restored
    }
}

/// Makes the tracking of those TCP connections within `scope` strict again with which the kernel
/// is in step, in the network namespace of the calling thread. The others stay lenient: nothing
/// has come of them, or what came answered packets that were lost in the failover.
///
/// Between chunks of some hundred connections it asks `goes_on` and says how many of the last ones
/// it changed. That may take its time, since each change is an event that goes to the standby.
///
/// # Errors
/// [`NetlinkError`] when the kernel cannot be reached; what was not reached stays lenient.
pub fn settle(
    scope: &Scope,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Settled, NetlinkError> {
    let mut injector = Injector::open()?;
    let mut scope = scope.clone();
    let mut dump = Dump::start(Family::All)?;
    let mut chunk = Vec::new();
    let mut restarts = 0..RESTARTS_MAX;
    let mut settled = Settled::default();
    loop {
        let progress = dump.next_chunk(&mut chunk)?;
        scope.look()?;
        for entry in chunk.drain(..).filter(|entry| scope.covers(entry)) {
            match judge(&entry) {
                Judgement::Settled => {}
                Judgement::Learning => settled.learning += 1,
                Judgement::InStep => injector.make_strict(entry.key)?,
                Judgement::Doubtful => {
                    injector.upsert(reset::restored(entry), true)?;
                }
            }
        }
        injector.flush()?;
        let changed_before = settled.changed();
        settled.made_strict = injector.stats().updated;
        settled.restored = injector.stats().replaced;
        if progress == DumpProgress::Done {
            // The kernel says when it left entries out.
            if !dump.interrupted() || restarts.next().is_none() {
                return Ok(settled);
            }
            dump = Dump::start(Family::All)?;
            settled.learning = 0;
        }
        if !goes_on(settled.changed() - changed_before) {
            return Ok(settled);
        }
    }
}

/// How often a dump that left entries out is begun again.
const RESTARTS_MAX: u32 = 8;

/// What the kernel gives a connection after a reset, in seconds, also after one that it doubts
/// and lets pass for lenience; nothing else leaves so little to an established one.
const RESET_TIMEOUT_S: u32 = 10;

enum Judgement {
    Settled,
    Learning,
    InStep,
    Doubtful,
}

fn judge(entry: &Entry) -> Judgement {
    let ProtocolState::Tcp(tcp) = entry.state else {
        return Judgement::Settled;
    };
    if reset::is_reset_unjudged(entry) {
        return Judgement::Doubtful;
    }
    if !tcp.is_learning() {
        return Judgement::Settled;
    }
    // Only if a packet came since the takeover: what is idle ends in its time.
    if tcp.state == tcp_state::ESTABLISHED && entry.timeout_s < RESET_TIMEOUT_S && has_begun(tcp) {
        return Judgement::Doubtful;
    }
    match tcp.is_in_step() {
        true => Judgement::InStep,
        false => Judgement::Learning,
    }
}

fn has_begun(tcp: TcpInfo) -> bool {
    tcp.flags
        .iter()
        .any(|flags| flags & tcp_flags::IN_STEP != 0)
}
