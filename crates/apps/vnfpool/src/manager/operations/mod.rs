//! What operators ask of the manager.

mod state;
mod status;
mod switchover;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use vnfpool_model::{ElementId, PoolHandle, PoolSpec, SlotId, SlotName, Time};
use vnfpool_northbound::{
    Applied, AuditEntry, Code, EventStream, FenceRequest, ManagerStatus, Operations, PardonRequest,
    Problem, Status, SwitchoverDone, SwitchoverRequest, Token, TokenRequest,
};
use vnfpool_succession::manager::Input;
use vnfpool_transport::Identity;
use vnfpool_wire::datagram::NodeId;

use self::status::pool_status;
pub(super) use self::switchover::{SWITCHOVER_TIME_MAX, SwitchbackPatience, switch_back};
use super::db::DbError;
use super::events::Happening;
use super::pulse::{Command, SlotView};
use super::registry::PoolRecord;
use super::shared::Shared;
use crate::pulse::now;

/// An element that was heard so recently is not believed to be off.
pub(super) const ALIVE: Duration = Duration::from_secs(2);

/// The operator API of this manager.
#[derive(Debug)]
pub(super) struct Api(pub(super) Arc<Shared>);

impl Operations for Api {
    async fn status(&self) -> Result<Status, Problem> {
        let view = self.0.pulse.view();
        let registry = self.0.registry();
        let paces = self.0.paces();
        let pools = registry
            .pools
            .values()
            .map(|pool| pool_status(&registry, &view, &paces, pool));
        Ok(Status {
            manager: ManagerStatus {
                id: self.0.id.clone(),
                version: crate::VERSION.to_owned(),
                commit: crate::COMMIT.to_owned(),
                uptime_s: self.0.started.elapsed().as_secs(),
                store: self.0.db.health(),
            },
            pools: pools.collect(),
        })
    }

    async fn pools(&self) -> Result<Vec<PoolSpec>, Problem> {
        Ok(self
            .0
            .registry()
            .pools
            .values()
            .map(|pool| pool.spec.clone())
            .collect())
    }

    async fn apply_pool(&self, spec: PoolSpec, by: &Identity) -> Result<Applied, Problem> {
        let shared = &self.0;
        let _one_at_a_time = shared.changes.lock().await;
        let others: Vec<_> = {
            let registry = shared.registry();
            let others = registry
                .pools
                .values()
                .filter(|p| p.spec.handle != spec.handle);
            others.map(|p| p.spec.clone()).collect()
        };
        let conflicts = vnfpool_config::overlaps(&others, &spec);
        if let Some(problem) = Problem::from_conflicts(&spec.handle, &conflicts) {
            return Err(problem);
        }
        let before = shared.pool(&spec.handle);
        let closing = shared.registry().closing.contains_key(&spec.handle);
        if closing {
            return Err(being_deleted(&spec.handle));
        }
        if before.as_ref().is_some_and(|b| b.spec == spec) {
            return Ok(Applied {
                handle: spec.handle,
                created: false,
                changed: false,
            });
        }
        if let Some(before) = &before {
            may_change(&before.spec, &spec)?;
        }
        let created = before.is_none();
        let mut numbers = shared.registry().numbers.clone();
        let mut slots = before.map(|b| b.slots).unwrap_or_default();
        let mut new_slots = Vec::new();
        for slot in &spec.slots {
            if !slots.contains_key(&slot.name) {
                let id = SlotId(numbers.slot);
                numbers.slot += 1;
                slots.insert(slot.name.clone(), id);
                new_slots.push((slot.clone(), id));
            }
        }
        let record = PoolRecord {
            spec: spec.clone(),
            slots,
        };
        let mut change = shared.db.change();
        change.put_numbers(&numbers).map_err(store_problem)?;
        change.put_pool(&record).map_err(store_problem)?;
        shared.db.commit(change).await.map_err(store_problem)?;
        {
            let mut registry = shared.registry();
            registry.numbers = numbers;
            registry.pools.insert(spec.handle.clone(), record);
        }
        for (slot, id) in new_slots {
            shared.remember_lease(id, spec.timing.manager_lease_ms);
            shared.start_slot(&spec, &slot, id, None);
        }
        let text = format!(
            "pool {} was {}",
            spec.handle,
            if created { "created" } else { "changed" }
        );
        self.record("pool-applied", by, &spec.handle, None, text);
        shared.steer();
        Ok(Applied {
            handle: spec.handle,
            created,
            changed: true,
        })
    }

    async fn delete_pool(&self, handle: &PoolHandle, by: &Identity) -> Result<(), Problem> {
        self.0.delete_pool(handle).await?;
        self.record(
            "pool-deleted",
            by,
            handle,
            None,
            format!("pool {handle} was deleted"),
        );
        Ok(())
    }

    async fn create_token(&self, request: TokenRequest, by: &Identity) -> Result<Token, Problem> {
        let shared = &self.0;
        let TokenRequest {
            pool,
            element,
            ttl_s,
        } = request;
        if shared.pool(&pool).is_none() {
            return Err(no_pool(&pool));
        }
        if shared.registry().closing.contains_key(&pool) {
            return Err(being_deleted(&pool));
        }
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
        let expires_ms = now_ms.saturating_add(ttl_s.saturating_mul(1_000));
        let (token, record) = vnfpool_transport::token::Token::create(
            pool.clone(),
            element.clone(),
            shared.authority.fingerprint(),
            &shared.addresses,
            expires_ms,
        )
        .map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
        let mut change = shared.db.change();
        change.put_token(&record).map_err(store_problem)?;
        shared.db.commit(change).await.map_err(store_problem)?;
        let text = format!("an enrolment token for {element} was created");
        self.record("token-created", by, &pool, None, text);
        let expires = i64::try_from(expires_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let expires = expires.unwrap_or(Timestamp::MAX);
        Ok(Token {
            token: token.to_string(),
            pool,
            element,
            expires,
        })
    }

    async fn switchover(
        &self,
        pool: &PoolHandle,
        request: SwitchoverRequest,
        by: &Identity,
    ) -> Result<SwitchoverDone, Problem> {
        self.switch_over(pool, request, by).await
    }

    async fn fence(
        &self,
        pool: &PoolHandle,
        request: FenceRequest,
        by: &Identity,
    ) -> Result<(), Problem> {
        self.0
            .declare_off(pool, &request.element, Word::Operator(by))
    }

    async fn pardon(
        &self,
        pool: &PoolHandle,
        request: PardonRequest,
        by: &Identity,
    ) -> Result<(), Problem> {
        self.0.pardon(pool, &request, by)
    }

    async fn audit(&self, lines: usize) -> Result<Vec<AuditEntry>, Problem> {
        self.0.db.audit_tail(lines).map_err(store_problem)
    }

    async fn events(&self, after: Option<u64>) -> Result<EventStream, Problem> {
        Ok(Box::pin(self.0.events.stream(after)))
    }
}

impl Api {
    fn record(
        &self,
        action: &'static str,
        by: &Identity,
        pool: &PoolHandle,
        slot: Option<SlotName>,
        text: String,
    ) {
        self.0.record(action, &by.to_string(), pool, slot, text);
    }
}

/// Who says that an element is off.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word<'a> {
    Operator(&'a Identity),
    /// The fencing command, which began then.
    Hook {
        began: Time,
    },
}

impl Shared {
    /// Declares an element gone (R14), unless it speaks.
    pub(super) fn declare_off(
        &self,
        pool: &PoolHandle,
        element: &ElementId,
        word: Word<'_>,
    ) -> Result<(), Problem> {
        let Some(record) = self.pool(pool) else {
            return Err(no_pool(pool));
        };
        let Some(node) = self.registry().node_of(pool, element) else {
            let text = format!("pool {pool} has no element {element}");
            return Err(Problem::new(Code::ElementUnknown, text));
        };
        let silence = match word {
            Word::Operator(_) => ALIVE,
            // A life that spoke since then is another one than the command was about.
            Word::Hook { began } => now().since(began).max(ALIVE),
        };
        let view = self.pulse.view();
        let heard = record
            .slots
            .values()
            .filter_map(|slot| view.slots.get(slot));
        let alive = heard
            .flat_map(|slot| &slot.heard)
            .any(|(heard, at, _)| *heard == node && now().since(*at) < silence);
        // Of a pool that is being deleted nobody speaks any more but by the control connection,
        // and a new life may have registered while the command ran.
        let connected = {
            let registry = self.registry();
            let element = registry.elements.get(&(pool.clone(), element.clone()));
            let counts = registry.closing.contains_key(pool) || matches!(word, Word::Hook { .. });
            counts && element.is_some_and(|e| e.live.is_some())
        };
        if alive || connected {
            let text = format!("{element} speaks: nobody needs to be told that it is off");
            return Err(Problem::new(Code::ElementAlive, text));
        }
        for slot in record.slots.values() {
            self.pulse.send(Command::Input {
                slot: *slot,
                input: Input::Fenced(node),
            });
        }
        self.registry().fence(pool, element, &view);
        let (by, text) = match word {
            Word::Operator(by) => (
                by.to_string(),
                format!("{element} is off, by the operator's word"),
            ),
            Word::Hook { .. } => (
                "hook/fencing".to_owned(),
                format!("{element} is off, as the fencing command has proved"),
            ),
        };
        self.record("fenced", &by, pool, None, text);
        Ok(())
    }

    /// Brings what somebody did to the audit log and to everybody who watches.
    pub(super) fn record(
        &self,
        action: &'static str,
        by: &str,
        pool: &PoolHandle,
        slot: Option<SlotName>,
        text: String,
    ) {
        let names = (&Some(pool.clone()), &slot);
        let (role, who) = by.split_once('/').unwrap_or(("", by));
        self.db.audit(role, who, action, names, &text, "");
        self.events.add(Happening {
            kind: action,
            pool: Some(pool.clone()),
            slot,
            text,
            reason: format!("by {by}"),
        });
    }
}

/// The armed member that does not serve.
pub(super) fn standby_of(view: &SlotView) -> Option<NodeId> {
    let record = view.record.filter(|r| r.armed())?;
    let active = view.active.map(|m| m.node);
    let members = [Some(record.first), record.second];
    members
        .into_iter()
        .flatten()
        .map(|m| m.node)
        .find(|node| Some(*node) != active)
}

/// What may change while elements serve: who is preferred, whether it switches back, and new slots.
fn may_change(before: &PoolSpec, after: &PoolSpec) -> Result<(), Problem> {
    let busy = |what: &str| {
        let text = format!(
            "{what} of pool {} cannot change while it exists: delete the pool and apply it again",
            before.handle
        );
        Err(Problem::new(Code::PoolBusy, text))
    };
    if (before.timing, before.lease_bounds) != (after.timing, after.lease_bounds) {
        return busy("the heartbeat and lease times");
    }
    if before.function != after.function {
        return busy("the function");
    }
    if before.on_quorum_loss != after.on_quorum_loss {
        return busy("on_quorum_loss");
    }
    for slot in &before.slots {
        let kept = after.slots.iter().find(|s| s.name == slot.name);
        if kept.is_none_or(|kept| kept.addresses != slot.addresses) {
            return busy(&format!("the addresses of slot '{}'", slot.name));
        }
        let kept = kept.and_then(|kept| kept.port_blocks.as_ref());
        if let (Some(before), Some(after)) = (&slot.port_blocks, kept)
            && !before.may_become(after)
        {
            return busy(&format!(
                "the port blocks of slot '{}', except that elements are added at the end,",
                slot.name
            ));
        }
    }
    Ok(())
}

pub(super) fn no_pool(handle: &PoolHandle) -> Problem {
    let text = format!("there is no pool {handle}: create it with `vnfpool pool apply -f FILE`");
    Problem::new(Code::PoolUnknown, text)
}

fn being_deleted(handle: &PoolHandle) -> Problem {
    let text = format!("pool {handle} is being deleted: `vnfpool pool delete {handle}` goes on");
    Problem::new(Code::PoolBusy, text)
}

pub(super) fn store_problem(error: DbError) -> Problem {
    Problem::new(
        Code::StoreUnavailable,
        format!("nothing was changed: {error}"),
    )
}
