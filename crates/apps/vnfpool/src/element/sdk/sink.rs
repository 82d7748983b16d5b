//! What the stream of the active writes into a class.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use vnfpool_statesync::{Item, ReceiverAction, ReceiverInput, Ticket};

use super::class::{Class, State};
use crate::element::sync;
use crate::pulse::now;

/// Entries and bytes of one part of a sweep.
const SWEEP_CHUNK: (usize, usize) = (4_096, 1024 * 1024);

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

    fn put(&mut self, item: &Item) -> anyhow::Result<()> {
        let at = now();
        let mut state = self.class.state();
        check_role(&state)?;
        if !self.is_in_sync {
            // A part of what is new and a part of what is old.
            state.table.set_complete(false, at);
        }
        if let Err(error) = state.table.put(item.clone(), at) {
            drop(state);
            self.failures.push((item.key.clone(), error.to_string()));
        }
        Ok(())
    }

    fn delete(&self, key: &Bytes) -> anyhow::Result<()> {
        let mut state = self.class.state();
        check_role(&state)?;
        if !self.is_in_sync {
            state.table.set_complete(false, now());
        }
        state.table.delete(key.clone());
        Ok(())
    }

    /// The copy became whole, or the stream begins to make it whole, or ends. What was whole stays so
    /// until something is written.
    fn set_in_sync(&mut self, is_in_sync: bool) -> anyhow::Result<()> {
        let at = now();
        let mut state = self.class.state();
        if is_in_sync {
            check_role(&state)?;
            state.table.set_complete(true, at);
        }
        match (self.is_in_sync, is_in_sync) {
            (false, true) => state.begin_keeping(),
            (true, false) => state.end_keeping(at),
            (false, false) | (true, true) => {}
        }
        drop(state);
        self.is_in_sync = is_in_sync;
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.is_in_sync {
            self.class.state().end_keeping(now());
        }
    }
}

/// Under the lock under which the function's puts are taken: what the former active still sends comes
/// before all of them, or not at all. The thread of its stream hears of the role later.
fn check_role(state: &State) -> anyhow::Result<()> {
    anyhow::ensure!(
        state.tenure().is_none(),
        "this element is the active now: nothing is taken from the former one"
    );
    check_class(state)
}

/// A copy that no function here could go on with must not count as one.
fn check_class(state: &State) -> anyhow::Result<()> {
    anyhow::ensure!(
        state.is_registered(),
        "the function of this element has registered without the class"
    );
    Ok(())
}

impl sync::Sink for Sink {
    fn apply(&mut self, action: &ReceiverAction) -> anyhow::Result<Option<Ticket>> {
        Ok(match action {
            ReceiverAction::Put { ticket, item, .. } => {
                self.put(item)?;
                Some(*ticket)
            }
            ReceiverAction::Delete { ticket, key } => {
                self.delete(key)?;
                Some(*ticket)
            }
            ReceiverAction::StartSweep { ticket, sweep } => {
                let (number, after) = (*sweep, Bytes::new());
                self.sweep = Some(Sweep { number, after });
                Some(*ticket)
            }
            ReceiverAction::Flush { ticket } => Some(*ticket),
            ReceiverAction::InSync(is_in_sync) => {
                self.set_in_sync(*is_in_sync)?;
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

    /// Called at every look of the stream's thread, so a stream on which nothing comes ends here.
    fn read_sweep(&mut self) -> anyhow::Result<Option<ReceiverInput>> {
        check_class(&self.class.state())?;
        let Some(sweep) = &mut self.sweep else {
            return Ok(None);
        };
        let mut items: Vec<Item> = Vec::new();
        let state = self.class.state();
        let from = Bound::Excluded(&*sweep.after);
        let take = |item| items.push(item);
        let has_more = state
            .table
            .range(from, Bound::Unbounded, SWEEP_CHUNK, now(), take);
        drop(state);
        let number = sweep.number;
        match items.last() {
            Some(last) if has_more => sweep.after = last.key.clone(),
            _ => self.sweep = None,
        }
        Ok(Some(ReceiverInput::SweepChunk {
            sweep: number,
            items,
            is_last: !has_more,
        }))
    }

    fn sweeps(&self) -> bool {
        self.sweep.is_some()
    }
}

#[cfg(test)]
mod tests {
    use vnfpool_model::Time;
    use vnfpool_wire::sdk::Op;

    use super::*;
    use crate::element::sdk::bell::Bell;
    use crate::element::sync::Sink as _;

    /// Goal: what the former active sends at the change of roles does not replace what the function of
    /// the new one has put. Method: its stream goes on as if it had not heard of it.
    #[test]
    fn nothing_of_the_former_active_is_taken_by_the_new_one() {
        let class = Arc::new(Class::new(Bell::new().unwrap()));
        let mut sink = Sink::new(Arc::clone(&class));
        let key = Bytes::from_static(b"k");
        let item = |value: &'static [u8]| Item {
            key: Bytes::from_static(b"k"),
            value: value.into(),
            ttl_s: 0,
        };
        sink.put(&item(b"old")).unwrap();
        sink.set_in_sync(true).unwrap();
        class.state().set_tenure(Some(2), Time(1));
        let new = Op {
            key: key.clone(),
            value: Some(Bytes::from_static(b"new")),
            ttl_s: 0,
        };
        class.state().write(2, vec![new], Time(1)).unwrap();
        sink.put(&item(b"late")).unwrap_err();
        sink.delete(&key).unwrap_err();
        sink.apply(&ReceiverAction::InSync(true)).unwrap_err();
        let held = class.state().get(&key, Time(1)).unwrap();
        assert_eq!(&held.value[..], b"new");
        class.state().set_tenure(None, Time(1));
        sink.put(&item(b"next")).unwrap();
    }
}
