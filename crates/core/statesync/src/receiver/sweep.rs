//! Looking through the copy: what it lost, what it holds and was not told, what it holds otherwise.
//!
//! What differs from the index is asked for entry by entry. An entry that is told anew and still
//! differs in the same way is one that this table cannot hold as the active's does (a helper that
//! is not loaded here, say): it is counted, and not asked for again until it is told otherwise.

use std::collections::HashSet;
use std::time::Duration;

use vnfpool_model::Time;

use super::{Open, Receiver, ReceiverAction, Ticket};
use crate::index::{Hashes, expiry};
use crate::wire::Body;
use crate::wire::record::NUMBERS_MAX;
use crate::{Effects, Item};

/// Between two sweeps at least; they also take no more than a 25th of the time, unless they are so
/// long that the pause would be longer than the greatest one.
const PAUSE: Duration = Duration::from_secs(15);
const SHARE: u32 = 25;
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// What a copy holds that expires within so many seconds is not lost if it is gone.
const EXPIRES_SOON_S: u32 = 2;

/// The sweep under way, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    number: u16,
    began: Option<Time>,
    /// Deletions are waiting to be found.
    pub(super) wanted: bool,
    /// So many, before this sweep and since it began: they are no surplus that nobody was told of.
    leftovers: [usize; 2],
    /// The resync that waits for it.
    pub(super) announce: Option<u32>,
    due: Option<Time>,
    surplus: usize,
    /// Hashes of the keys of what the copy holds otherwise than told.
    altered: Vec<u64>,
    /// Entries that were told anew in vain.
    unlike: u32,
    /// Hashes of the keys of changes since the last chunk, and between the last but one and the last: a
    /// chunk may have been filled before. A driver hands in a chunk between two frames.
    touched: [HashSet<u64>; 2],
}

impl Sweep {
    /// The entry changed, or is gone: what a chunk says of it may be older.
    pub(super) fn touched(&mut self, key: u64) {
        if self.began.is_some() {
            let [newest, _] = &mut self.touched;
            newest.insert(key);
        }
    }

    /// So many entries of the index are gone whose keys are not known: the copy may hold them.
    pub(super) fn leftover(&mut self, count: usize) {
        self.wanted |= count > 0;
        self.leftovers[1] += count;
    }

    /// What rows keep of the number of the sweep that met them last.
    pub(super) const fn mark(&self) -> u8 {
        self.number.to_be_bytes()[1]
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.filter(|_| self.began.is_none())
    }
}

impl Open {
    /// An entry that the copy holds; true if it should not.
    fn met(&mut self, hashes: Hashes, item: &Item) -> bool {
        let key = hashes.of(&item.key);
        let sweep = &mut self.sweep;
        let is_touched = sweep.touched.iter().any(|keys| keys.contains(&key));
        let Some(row) = self.index.get_mut(key) else {
            // A second deletion does no harm; only it would be wrong to call it surplus.
            return !is_touched;
        };
        row.seen_in = sweep.mark();
        if is_touched {
            return false;
        }
        let held = hashes.of_value(&item.value);
        if held == row.value {
            row.held = row.value;
        } else if row.is_wanted() {
            // It comes.
        } else if held == row.held {
            sweep.unlike += 1;
        } else {
            row.held = held;
            self.index.want(key);
            sweep.altered.push(key);
        }
        false
    }

    /// Wants what the sweep did not meet, and gives the hashes of the keys.
    fn lost(&mut self, now: Time) -> Vec<u64> {
        let mark = self.sweep.mark();
        // What expired here before the active said so is not lost.
        let soon_s = expiry(now, EXPIRES_SOON_S);
        self.index.want_where(|row| {
            let is_lost = row.seen_in != mark && row.expires_s > soon_s;
            if is_lost {
                // As if the sweep before had met it: marks come again after 256 sweeps.
                row.seen_in = mark.wrapping_sub(1);
            }
            is_lost
        })
    }
}

impl Receiver {
    /// Begins a sweep when one is due and none is under way.
    pub(super) fn sweep(&mut self, now: Time, out: &mut Effects<ReceiverAction>) {
        let Some(open) = &mut self.open else { return };
        let sweep = &mut open.sweep;
        let is_due = sweep.due.is_some_and(|due| due <= now);
        if sweep.began.is_some() || !(sweep.wanted || is_due) {
            return;
        }
        sweep.wanted = false;
        sweep.began = Some(now);
        sweep.surplus = 0;
        sweep.unlike = 0;
        sweep.leftovers = [sweep.leftovers[1], 0];
        sweep.number = sweep.number.wrapping_add(1);
        let sweep = sweep.number;
        let ticket = self.next_step();
        out.actions
            .push(ReceiverAction::StartSweep { ticket, sweep });
    }

    /// Takes in a part of the copy.
    pub(super) fn swept(
        &mut self,
        now: Time,
        number: u16,
        items: Vec<Item>,
        is_last: bool,
        out: &mut Effects<ReceiverAction>,
    ) {
        let ticket = self.next_step();
        let Some(open) = &mut self.open else { return };
        let Some(hashes) = open.hashes else { return };
        if open.sweep.began.is_none() || number != open.sweep.number {
            return;
        }
        for item in items {
            if open.met(hashes, &item) {
                open.sweep.surplus += 1;
                self.status.operations += 1;
                let key = item.key;
                out.actions.push(ReceiverAction::Delete { ticket, key });
            }
        }
        let [newest, older] = &mut open.sweep.touched;
        std::mem::swap(newest, older);
        newest.clear();
        if is_last {
            out.actions.push(ReceiverAction::Flush { ticket });
            self.end_sweep(now, ticket, out);
        }
    }

    /// Everything was met that is there: asks for what is not there as it was told.
    fn end_sweep(&mut self, now: Time, ticket: Ticket, out: &mut Effects<ReceiverAction>) {
        let Some(open) = &mut self.open else { return };
        let mut wanted = open.lost(now);
        let missing = wanted.len();
        let sweep = &mut open.sweep;
        let Some(began) = sweep.began.take() else {
            return;
        };
        sweep.touched = Default::default();
        sweep.due = Some(now.after((now.since(began) * SHARE).clamp(PAUSE, PAUSE_MAX)));
        let is_resync = sweep.announce.is_some();
        if let Some(generation) = sweep.announce.take_if(|_| !sweep.wanted) {
            open.swept = Some((ticket.step, generation));
        }
        let altered = std::mem::take(&mut sweep.altered);
        // A copy of which nothing was known had every right to hold anything.
        let surplus = std::mem::take(&mut sweep.surplus);
        let surplus = match is_resync {
            true => 0,
            false => surplus.saturating_sub(sweep.leftovers.iter().sum()),
        };
        self.status.unlike = sweep.unlike;
        self.status.missing += missing as u64;
        self.status.surplus += surplus as u64;
        self.status.altered += altered.len() as u64;
        if missing + surplus + altered.len() > 0 {
            out.actions.push(ReceiverAction::Diverged {
                buckets: 0,
                missing,
                surplus,
                altered: altered.len(),
            });
        }
        wanted.extend(altered);
        for keys in wanted.chunks(NUMBERS_MAX) {
            let keys = keys.to_vec();
            self.send(0, Body::Wants { keys }, out);
        }
    }

    /// The ticket of an action that no record asks for.
    fn next_step(&mut self) -> Ticket {
        self.step += 1;
        self.ticket()
    }
}
