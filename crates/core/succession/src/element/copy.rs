//! What the active knows of its standby's copy of the service state (I5).
//!
//! Like a lease, a proof has an age: what the standby acknowledged is known to be there as of the
//! moment when it was sent, and of nothing later. So a stream that ended without a word, or a thread
//! that hangs, needs nobody to notice it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Member, Time};

/// An armed successor whose copy was last proved complete longer ago is disarmed; so it bounds how
/// much a failover may lose after the state stream broke. A healthy stream proves it every 50 ms. (Of a
/// pool with longer leases nobody expects to notice anything sooner than that.)
pub(super) const COPY_AGE_MAX: Duration = Duration::from_millis(500);

/// A copy is complete *now* when it was proved that recently.
const COMPLETE_MAX: Duration = Duration::from_millis(250);

/// The copy at the standby that is fed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct StandbyCopy {
    of: Option<Member>,
    as_of: Time,
    /// Complete and fed; otherwise it only was, as of `as_of`.
    live: bool,
}

impl StandbyCopy {
    /// Its times and for how long they matter.
    #[cfg(feature = "model")]
    pub(super) fn moments(&mut self, own: &mut impl FnMut(Duration, &mut Time)) {
        let Self {
            as_of,
            of: _,
            live: _,
        } = self;
        own(COPY_AGE_MAX, as_of);
    }

    /// Takes a proof, or the news that there will be none for now.
    pub(super) fn learn(&mut self, peer: Member, as_of: Option<Time>) {
        let known = self.of == Some(peer);
        match as_of {
            Some(as_of) if known => {
                self.as_of = self.as_of.max(as_of);
                self.live = true;
            }
            Some(as_of) => {
                *self = Self {
                    of: Some(peer),
                    as_of,
                    live: true,
                };
            }
            None if known => self.live = false,
            None => {}
        }
    }

    /// The stream has ended, whoever it was for.
    pub(super) fn interrupt(&mut self) {
        self.live = false;
    }

    /// Whose copy is complete now, by a proof not older than `since`.
    pub(super) fn complete(&self, now: Time, since: Time) -> Option<Member> {
        let recent = now.since(self.as_of) < COMPLETE_MAX && self.as_of >= since;
        self.of.filter(|_| self.live && recent)
    }

    /// How old the copy of `peer` may be, if it was complete at `since`.
    pub(super) fn age(&self, now: Time, peer: Member, since: Time) -> Duration {
        match self.of == Some(peer) {
            true => now.since(self.as_of.max(since)),
            false => now.since(since),
        }
    }
}
