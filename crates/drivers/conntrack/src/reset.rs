//! Resets of connections that this kernel did not see: not to be believed.
//!
//! A kernel that was told of a connection knows no window of it and takes the first packet of each
//! direction as it is ([`crate::TcpInfo::learning`]). If that is a reset, sent by somebody who
//! knows the addresses and ports only, the kernel closes the connection and forgets it 10 s later,
//! while the end points, which compare sequence numbers (RFC 5961 §3.2), go on. So such a
//! connection is made anew, for as long as the kernel itself believes in one with a doubtful reset.

use crate::dump::Fetcher;
use crate::entry::{Entry, ProtocolState, Status, TcpInfo, tcp_state};
use crate::event::Event;
use crate::inject::{Failure, Injector};
use crate::netlink::socket::NetlinkError;
use crate::scope::Scope;

/// Restores what a reset closed before the kernel could judge it, in the network namespace of the
/// thread that opened it. For an active, with all of its events.
#[derive(Debug)]
pub struct ResetGuard {
    fetcher: Fetcher,
    injector: Injector,
    restored: u64,
}

impl ResetGuard {
    /// Opens the kernel's table.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] without the privilege or the kernel module.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            fetcher: Fetcher::open()?,
            injector: Injector::open()?,
            restored: 0,
        })
    }

    /// Looks at an event. Cheap for all but those of connections that have just been reset.
    ///
    /// # Errors
    /// [`NetlinkError`] when the kernel cannot be reached: open another guard.
    pub fn observe(&mut self, event: &Event, scope: &Scope) -> Result<(), NetlinkError> {
        let Event::Update(changed) = event else {
            return Ok(());
        };
        if !is_reset_unjudged(changed) || !scope.covers(changed) {
            return Ok(());
        }
        // As it is now, with what an event leaves out.
        let Some(entry) = self.fetcher.get(&changed.key)? else {
            return Ok(());
        };
        if is_reset_unjudged(&entry) {
            self.injector.upsert(restored(entry), true)?;
            self.restored += 1;
        }
        Ok(())
    }

    /// Brings back what was observed. Returns what the kernel refused.
    ///
    /// # Errors
    /// As [`ResetGuard::observe`].
    pub fn flush(&mut self) -> Result<Vec<Failure>, NetlinkError> {
        self.injector.flush()
    }

    /// Connections restored since the guard was opened.
    #[must_use]
    pub const fn restored(&self) -> u64 {
        self.restored
    }
}

/// Whether a reset closed the connection before this kernel was in step with both directions. One
/// whose handshake it saw is in step from the beginning.
pub(crate) fn is_reset_unjudged(entry: &Entry) -> bool {
    let ProtocolState::Tcp(tcp) = entry.state else {
        return false;
    };
    tcp.state == tcp_state::CLOSE && entry.status.has(Status::ASSURED) && !tcp.is_in_step()
}

/// The connection as before the reset, except that it ends soon if nothing comes of it.
pub(crate) fn restored(mut entry: Entry) -> Entry {
    if let ProtocolState::Tcp(tcp) = &mut entry.state {
        *tcp = TcpInfo {
            state: tcp_state::ESTABLISHED,
            ..tcp.learnt().learning()
        };
    }
    entry.timeout_s = DOUBT_S;
    entry
}

/// The kernel's `nf_conntrack_tcp_timeout_unacknowledged` by default.
const DOUBT_S: u32 = 300;
