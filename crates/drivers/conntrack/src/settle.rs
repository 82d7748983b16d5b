//! Ending the lenience towards connections that were taken over ([`TcpInfo::learning`]).
//!
//! [`TcpInfo::learning`]: crate::TcpInfo::learning

use crate::dump::{Dump, DumpProgress, Family};
use crate::entry::ProtocolState;
use crate::inject::Injector;
use crate::netlink::socket::NetlinkError;
use crate::scope::Scope;

/// Makes the tracking of all TCP connections within `scope` strict again, in the network namespace
/// of the calling thread. Call it when a new active has seen packets of them in both directions.
///
/// Between chunks of some hundred connections it asks `goes_on`, which may take its time, since
/// each change is an event that goes to the standby. Returns how many were changed.
///
/// # Errors
/// [`NetlinkError`] when the kernel cannot be reached; what was not reached stays lenient.
pub fn make_strict(scope: &Scope, mut goes_on: impl FnMut() -> bool) -> Result<u64, NetlinkError> {
    let mut injector = Injector::open()?;
    let mut dump = Dump::start(Family::All)?;
    let mut chunk = Vec::new();
    let mut restarts = 0..RESTARTS_MAX;
    loop {
        let progress = dump.next_chunk(&mut chunk)?;
        for entry in chunk.drain(..) {
            let learning = matches!(entry.state, ProtocolState::Tcp(tcp) if tcp.is_learning());
            if learning && scope.covers(&entry) {
                injector.make_strict(entry.key)?;
            }
        }
        injector.flush()?;
        if progress == DumpProgress::Done {
            // The kernel says when it left entries out.
            if !dump.interrupted() || restarts.next().is_none() {
                return Ok(injector.stats().updated);
            }
            dump = Dump::start(Family::All)?;
        }
        if !goes_on() {
            return Ok(injector.stats().updated);
        }
    }
}

/// How often a dump that left entries out is begun again.
const RESTARTS_MAX: u32 = 8;
