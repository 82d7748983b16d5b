//! The end of a pool: first nobody serves it any more, then it is forgotten.
//!
//! An armed pair needs no manager and would serve on, so the pool is closed in steps:
//! 1. everybody who has registered since the pool was created has to be connected, or fenced:
//!    otherwise nothing changes. Whom the records name is not enough: who was split off while cut
//!    off may know only its own old term, and would serve in it once only its LANs are back;
//! 2. it is on disk that the pool closes and for whom, and the slots' machines end;
//! 3. the elements are told to have no slots, and each of those says that it has closed its gates;
//! 4. the pool is gone.
//!
//! From step 2 on a pool never serves again, also after a restart of the manager: an element that
//! has given a slot up has forgotten its promises. Whoever deletes it again goes on at step 3.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vnfpool_model::{ElementId, PoolHandle, SlotId};
use vnfpool_northbound::{Code, Problem};
use vnfpool_wire::control::ElementReport;
use vnfpool_wire::datagram::NodeId;

use super::operations::{no_pool, store_problem};
use super::pulse::Command;
use super::registry::Registry;
use super::shared::Shared;

/// How long elements may take to close and to say so.
pub(super) const CLOSING_TIME_MAX: Duration = Duration::from_secs(5);

/// How often it is looked whether they have.
const CLOSING_STEP: Duration = Duration::from_millis(10);

/// A pool that is being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closing {
    /// Who has registered since the pool was created: they may serve until they have closed.
    pub(crate) members: BTreeSet<NodeId>,
    /// Who has said that it has closed.
    pub(crate) closed: BTreeSet<NodeId>,
}

impl Shared {
    /// Deletes a pool once nobody serves it.
    pub(super) async fn delete_pool(&self, handle: &PoolHandle) -> Result<(), Problem> {
        self.close_pool(handle).await?;
        self.steer();
        let began = Instant::now();
        while began.elapsed() < self.closing_time_max
            && !self.registry().everybody_has_closed(handle)
        {
            tokio::time::sleep(CLOSING_STEP).await;
        }
        if let Some(element) = self.registry().may_still_serve(handle) {
            let text = format!(
                "{element} has not confirmed that it serves pool {handle} no more; nobody is told \
                 to serve it again, and the pool is kept until then: delete it again, or, if \
                 {element} is off, say so before that with `vnfpool fence {handle} {element} \
                 --it-is-off`"
            );
            return Err(Problem::new(Code::Timeout, text));
        }
        let _one_at_a_time = self.changes.lock().await;
        if self.pool(handle).is_none() {
            // Somebody else has deleted it meanwhile.
            return Ok(());
        }
        let mut change = self.db.change();
        change.delete_pool(handle);
        let departed = {
            let registry = self.registry();
            let names = registry.elements_of(handle).map(|(name, _)| name.clone());
            names.collect::<Vec<_>>()
        };
        let noted = change.put_departed(handle, &departed);
        noted.map_err(store_problem)?;
        if let Err(error) = self.db.commit(change).await {
            let text = format!(
                "nobody serves pool {handle} any more, but the store does not forget it: {error}; \
                 delete it again when the store works"
            );
            return Err(Problem::new(Code::StoreUnavailable, text));
        }
        self.registry().forget_pool(handle);
        Ok(())
    }

    /// Steps 1 and 2.
    async fn close_pool(&self, handle: &PoolHandle) -> Result<(), Problem> {
        let _one_at_a_time = self.changes.lock().await;
        let Some(pool) = self.pool(handle) else {
            return Err(no_pool(handle));
        };
        let closing = self.registry().closing.contains_key(handle);
        if closing {
            // Whoever could not do as it was told is told again.
            self.registry().forget_told(handle);
            return Ok(());
        }
        if let Some(element) = self.registry().out_of_reach(handle) {
            let text = format!(
                "{element} has been told to serve pool {handle} and is not connected to this \
                 manager, so it cannot be told that the pool is gone: nothing was changed. Connect \
                 it, or, if it is off, say so with `vnfpool fence {handle} {element} --it-is-off`"
            );
            return Err(Problem::new(Code::PoolBusy, text));
        }
        let members = self.registry().involved(handle);
        let mut change = self.db.change();
        change
            .put_closing(handle, &members)
            .map_err(store_problem)?;
        // First, since a machine that has ended is not started again: while the disk refuses this,
        // the pool is managed on.
        self.db.commit(change).await.map_err(store_problem)?;
        for slot in pool.slots.values() {
            self.end_slot(*slot).await;
        }
        let closed = BTreeSet::new();
        let closing = Closing { members, closed };
        self.registry().closing.insert(handle.clone(), closing);
        Ok(())
    }

    /// Ends the machine of a slot.
    async fn end_slot(&self, id: SlotId) {
        let (removed, done) = oneshot::channel();
        self.pulse.send(Command::RemoveSlot { id, removed });
        self.paces().remove(id);
        // No answer: the thread has ended, and the manager is about to.
        let _ = done.await;
    }
}

impl Registry {
    /// Who may know enough of this pool to serve it, now or after a cut has healed.
    fn involved(&self, pool: &PoolHandle) -> BTreeSet<NodeId> {
        let elements = self.elements_of(pool);
        elements
            .filter(|(_, e)| !e.departed)
            .map(|(_, e)| e.node)
            .collect()
    }

    /// An element that can neither be told that its pool is gone nor is off.
    fn out_of_reach(&self, pool: &PoolHandle) -> Option<ElementId> {
        let mut elements = self.elements_of(pool);
        elements
            .find(|(_, e)| !e.departed && e.live.is_none() && !e.fenced)
            .map(|(name, _)| name.clone())
    }

    /// Notes that an element of a closing pool has no slot any more, if that is what it says.
    pub(super) fn note_closed(
        &mut self,
        pool: &PoolHandle,
        id: &ElementId,
        report: &ElementReport,
    ) {
        let told = self
            .elements
            .get(&(pool.clone(), id.clone()))
            .and_then(|e| Some((e.node, e.live.as_ref()?.configuration.as_ref()?)));
        let Some((node, told)) = told else { return };
        // Older reports may have been on their way when it was told.
        if told.slots.is_empty()
            && report.revision >= told.revision
            && report.slots.is_empty()
            && let Some(closing) = self.closing.get_mut(pool)
        {
            closing.closed.insert(node);
        }
    }

    /// Whether all members of the closing pool and all its connected elements have closed.
    fn everybody_has_closed(&self, pool: &PoolHandle) -> bool {
        let Some(closing) = self.closing.get(pool) else {
            return true;
        };
        let mut connected = self.elements_of(pool).filter(|(_, e)| e.live.is_some());
        connected.all(|(_, e)| closing.closed.contains(&e.node))
            && self.may_still_serve(pool).is_none()
    }

    /// A member of the closing pool that has neither said that it has closed nor is off.
    fn may_still_serve(&self, pool: &PoolHandle) -> Option<ElementId> {
        let closing = self.closing.get(pool)?;
        let open = |node| closing.members.contains(&node) && !closing.closed.contains(&node);
        self.elements_of(pool)
            .find(|(_, e)| open(e.node) && !e.fenced)
            .map(|(name, _)| name.clone())
    }

    /// The elements of the pool are told anew what they were told.
    fn forget_told(&mut self, pool: &PoolHandle) {
        let elements = self.elements.iter_mut();
        for (_, element) in elements.filter(|((handle, _), _)| handle == pool) {
            if let Some(live) = &mut element.live {
                live.configuration = None;
            }
        }
    }

    /// The pool is gone. The connections of its elements end, and when they call again they hear
    /// that there is no such pool.
    fn forget_pool(&mut self, pool: &PoolHandle) {
        self.pools.remove(pool);
        self.closing.remove(pool);
        let elements = self.elements.iter_mut();
        for (_, element) in elements.filter(|((handle, _), _)| handle == pool) {
            element.live = None;
            element.fenced = false;
            element.departed = true;
        }
    }
}
