//! What the stream of the active writes into a class.

use std::sync::Arc;

use bytes::Bytes;
use vnfpool_model::Time;

use super::class::Class;
use super::log::Item;
use super::table::Full;

/// Keys of one part of a sweep.
const SWEEP_CHUNK: usize = 4_096;

/// The standby's end of a class; of one thread.
#[derive(Debug)]
pub(crate) struct Sink {
    class: Arc<Class>,
    /// The stream has made the copy whole.
    is_in_sync: bool,
    sweep: Option<Sweep>,
}

#[derive(Debug)]
struct Sweep {
    number: u16,
    after: Bytes,
}

/// A part of the keys of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SweepChunk {
    pub(crate) sweep: u16,
    pub(crate) keys: Vec<Bytes>,
    pub(crate) is_last: bool,
}

impl Sink {
    pub(crate) const fn new(class: Arc<Class>) -> Self {
        Self {
            class,
            is_in_sync: false,
            sweep: None,
        }
    }

    /// Writes an entry.
    ///
    /// # Errors
    /// [`Full`]: it is not in the copy.
    pub(crate) fn put(&self, item: Item, now: Time) -> Result<(), Full> {
        let mut state = self.class.state();
        if !self.is_in_sync {
            // A part of what is new and a part of what is old.
            state.table.set_complete(false, now);
        }
        state.table.put(item, now)
    }

    /// Deletes an entry.
    pub(crate) fn delete(&self, key: Bytes, now: Time) {
        let mut state = self.class.state();
        if !self.is_in_sync {
            state.table.set_complete(false, now);
        }
        state.table.delete(key);
    }

    /// The copy became whole, or the stream begins to make it whole, or ends. What was whole stays so
    /// until something is written.
    pub(crate) fn set_in_sync(&mut self, is_in_sync: bool, now: Time) {
        self.is_in_sync = is_in_sync;
        if is_in_sync {
            self.class.state().table.set_complete(true, now);
        }
    }

    /// Tells those who watch the class of what was written.
    pub(crate) fn flush(&self, now: Time) {
        self.class.state().table.ring(now);
    }

    /// Begins to read the keys of the whole copy; a reading under way is dropped.
    pub(crate) fn start_sweep(&mut self, number: u16) {
        let after = Bytes::new();
        self.sweep = Some(Sweep { number, after });
    }

    /// Whether a sweep is under way.
    pub(crate) const fn sweeps(&self) -> bool {
        self.sweep.is_some()
    }

    /// The next part of the sweep; none without one.
    pub(crate) fn read_sweep(&mut self) -> Option<SweepChunk> {
        let sweep = self.sweep.as_mut()?;
        let mut keys = Vec::new();
        let has_more = self
            .class
            .state()
            .table
            .keys(&sweep.after, SWEEP_CHUNK, &mut keys);
        let number = sweep.number;
        match keys.last() {
            Some(last) if has_more => sweep.after = last.clone(),
            _ => self.sweep = None,
        }
        Some(SweepChunk {
            sweep: number,
            keys,
            is_last: !has_more,
        })
    }
}
