//! What the stream of the active writes into a class.

use std::sync::Arc;

use bytes::Bytes;
use vnfpool_statesync::{Item, ReceiverAction, ReceiverInput, Ticket};

use super::class::Class;
use crate::element::sync;
use crate::pulse::now;

/// Keys of one part of a sweep.
const SWEEP_CHUNK: usize = 4_096;

/// The standby's end of a class; of one thread.
#[derive(Debug)]
pub(super) struct Sink {
    class: Arc<Class>,
    /// The stream has made the copy whole.
    is_in_sync: bool,
    sweep: Option<Sweep>,
    failures: Vec<(Bytes, String)>,
}

#[derive(Debug)]
struct Sweep {
    number: u16,
    after: Bytes,
}

impl Sink {
    pub(super) const fn new(class: Arc<Class>) -> Self {
        Self {
            class,
            is_in_sync: false,
            sweep: None,
            failures: Vec::new(),
        }
    }

    fn put(&mut self, item: &Item) {
        let at = now();
        let mut state = self.class.state();
        if !self.is_in_sync {
            // A part of what is new and a part of what is old.
            state.table.set_complete(false, at);
        }
        if let Err(error) = state.table.put(item.clone(), at) {
            drop(state);
            self.failures.push((item.key.clone(), error.to_string()));
        }
    }

    fn delete(&self, key: &Bytes) {
        let mut state = self.class.state();
        if !self.is_in_sync {
            state.table.set_complete(false, now());
        }
        state.table.delete(key.clone());
    }

    /// The copy became whole, or the stream begins to make it whole, or ends. What was whole stays so
    /// until something is written.
    fn set_in_sync(&mut self, is_in_sync: bool) {
        self.is_in_sync = is_in_sync;
        if is_in_sync {
            self.class.state().table.set_complete(true, now());
        }
    }
}

impl sync::Sink for Sink {
    fn apply(&mut self, action: &ReceiverAction) -> anyhow::Result<Option<Ticket>> {
        Ok(match action {
            ReceiverAction::Put { ticket, item, .. } => {
                self.put(item);
                Some(*ticket)
            }
            ReceiverAction::Delete { ticket, key } => {
                self.delete(key);
                Some(*ticket)
            }
            ReceiverAction::StartSweep { ticket, sweep } => {
                let (number, after) = (*sweep, Bytes::new());
                self.sweep = Some(Sweep { number, after });
                Some(*ticket)
            }
            ReceiverAction::Flush { ticket } => Some(*ticket),
            ReceiverAction::InSync(is_in_sync) => {
                self.set_in_sync(*is_in_sync);
                None
            }
            _ => None,
        })
    }

    /// It is in the table already; those who watch it are told.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.class.state().table.ring(now());
        Ok(())
    }

    fn take_failures(&mut self) -> Vec<(Bytes, String)> {
        std::mem::take(&mut self.failures)
    }

    fn read_sweep(&mut self) -> anyhow::Result<Option<ReceiverInput>> {
        let Some(sweep) = &mut self.sweep else {
            return Ok(None);
        };
        let mut keys = Vec::new();
        let state = self.class.state();
        let has_more = state.table.keys(&sweep.after, SWEEP_CHUNK, &mut keys);
        drop(state);
        let number = sweep.number;
        match keys.last() {
            Some(last) if has_more => sweep.after = last.clone(),
            _ => self.sweep = None,
        }
        Ok(Some(ReceiverInput::SweepChunk {
            sweep: number,
            keys,
            is_last: !has_more,
        }))
    }

    fn sweeps(&self) -> bool {
        self.sweep.is_some()
    }
}
