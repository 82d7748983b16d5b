//! How many streams an element takes in: each has a thread.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vnfpool_transport::Identity;

/// Streams at once, those included that have not begun.
const STREAMS_MAX: usize = 64;

/// Of one peer, those that have not begun: that have not said yet what they are, or of which it is not
/// known yet whether they are the active's. So no peer uses up the streams of the others. Enough for all
/// classes of a slot at once.
const BEGINNING_MAX: usize = 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    streams: usize,
    beginning: BTreeMap<Identity, usize>,
}

impl Counts {
    fn begins(&mut self, peer: &Identity) -> bool {
        if self.streams >= STREAMS_MAX {
            return false;
        }
        let beginning = self.beginning.entry(peer.clone()).or_default();
        let is_admitted = *beginning < BEGINNING_MAX;
        *beginning += usize::from(is_admitted);
        self.streams += usize::from(is_admitted);
        is_admitted
    }

    fn has_begun(&mut self, peer: &Identity) {
        if let Some(beginning) = self.beginning.get_mut(peer) {
            *beginning -= 1;
            if *beginning == 0 {
                self.beginning.remove(peer);
            }
        }
    }
}

impl Admission {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a stream of `peer`, for as long as what is returned lives; none when there are too many.
    pub(super) fn admit(&self, peer: &Identity) -> Option<Admitted<'_>> {
        self.counts().begins(peer).then(|| Admitted {
            admission: self,
            peer: Some(peer.clone()),
        })
    }
}

/// A stream that counts.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    admission: &'a Admission,
    /// Until it has begun.
    peer: Option<Identity>,
}

impl Admitted<'_> {
    /// It is known what it is, and wanted.
    pub(super) fn has_begun(mut self) -> Self {
        if let Some(peer) = self.peer.take() {
            self.admission.counts().has_begun(&peer);
        }
        self
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.streams -= 1;
        if let Some(peer) = &self.peer {
            counts.has_begun(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(name: &str) -> Identity {
        Identity::Element {
            pool: "edge".parse().unwrap(),
            element: name.parse().unwrap(),
        }
    }

    #[test]
    fn no_peer_uses_up_the_streams_of_the_others() {
        let admission = Admission::default();
        let (rogue, active) = (element("gw9"), element("gw1"));
        let held: Vec<_> = (0..BEGINNING_MAX)
            .filter_map(|_| admission.admit(&rogue))
            .collect();
        assert_eq!(held.len(), BEGINNING_MAX);
        assert!(admission.admit(&rogue).is_none());
        let running: Vec<_> = (BEGINNING_MAX..STREAMS_MAX)
            .filter_map(|_| Some(admission.admit(&active)?.has_begun()))
            .collect();
        assert_eq!(running.len(), STREAMS_MAX - BEGINNING_MAX);
        assert!(admission.admit(&active).is_none(), "that is all there are");
        drop(held);
        assert!(admission.admit(&active).is_some());
        assert!(admission.admit(&rogue).is_some());
        drop(running);
        let counts = admission.counts();
        assert!(counts.streams == 0 && counts.beginning.is_empty());
    }
}
