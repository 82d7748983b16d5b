//! The operator's commands on changes of role: in order, one at a time, with a time limit, never
//! in the way of a takeover.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::process::Command;
use tokio::sync::Notify;
use vnfpool_config::Hooks;
use vnfpool_model::{Epoch, PoolHandle, Role, SlotId};

use crate::command;

/// Calls that may wait. With more, the oldest one that newer news has overtaken is left out; the
/// newest about a slot never is, so with very many slots it may be one or two for each of them.
const WAITING_MAX: usize = 64;

/// How long an agent that ends lets its hooks tell that it has.
const FINISH_TIME_MAX: Duration = Duration::from_secs(5);

/// Which hook, and about what.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: HookKind,
    pub(crate) slot: String,
    pub(crate) epoch: Epoch,
    pub(crate) reason: String,
}

/// When a hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    Active,
    Standby,
    /// Neither active nor standby any more, or not yet: `on_standby` as well.
    Spare,
    Fault,
}

impl From<Role> for HookKind {
    fn from(role: Role) -> Self {
        match role {
            Role::Active => Self::Active,
            Role::Standby => Self::Standby,
            Role::Spare => Self::Spare,
        }
    }
}

/// The role that the hooks have been told last, for each slot. Records come and go without a
/// change of role, and what `on_active` has switched on has to be switched off in the end.
#[derive(Debug, Default)]
pub(crate) struct RolesTold(BTreeMap<SlotId, Role>);

impl RolesTold {
    /// Whether that is news. A new life always tells: it does not know what the last one did.
    pub(crate) fn is_news(&mut self, slot: SlotId, role: Role) -> bool {
        self.0.insert(slot, role) != Some(role)
    }

    /// The slot is gone. Whether that has to be told.
    pub(crate) fn forget(&mut self, slot: SlotId) -> bool {
        let told = self.0.remove(&slot);
        told.is_some_and(|role| role != Role::Spare)
    }
}

impl Call {
    /// Whether `newer` says what this call says now: the role of the slot, or its faults.
    fn is_overtaken_by(&self, newer: &Self) -> bool {
        let is_fault = |call: &Self| call.kind == HookKind::Fault;
        self.slot == newer.slot && is_fault(self) == is_fault(newer)
    }
}

/// Queues calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct HookRunner(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Call>>,
    rung: Notify,
    is_running: AtomicBool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Call>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Call {
        loop {
            let next = {
                let mut waiting = self.waiting();
                let next = waiting.pop_front();
                self.is_running.store(next.is_some(), Ordering::Relaxed);
                next
            };
            match next {
                Some(call) => return call,
                None => self.rung.notified().await,
            }
        }
    }
}

impl HookRunner {
    /// Starts the task that runs them.
    pub(crate) fn start(hooks: Hooks, pool: PoolHandle) -> Self {
        let runner = Self::default();
        let queue = Arc::clone(&runner.0);
        tokio::spawn(async move {
            loop {
                run(&hooks, &pool, &queue.next().await).await;
            }
        });
        runner
    }

    /// Waits until all that was queued has been told, but not for long.
    pub(crate) async fn finish(&self) {
        let began = Instant::now();
        let is_busy = || {
            let waiting = self.0.waiting();
            !waiting.is_empty() || self.0.is_running.load(Ordering::Relaxed)
        };
        while is_busy() {
            if began.elapsed() > FINISH_TIME_MAX {
                return tracing::error!("the agent ends while hooks run or wait: they are ended");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Queues a call and returns at once.
    pub(crate) fn call(&self, call: Call) {
        let left_out = {
            let mut waiting = self.0.waiting();
            waiting.push_back(call);
            let overtaken = |at: &usize| {
                let (call, newer) = (&waiting[*at], waiting.range(at + 1..));
                newer.into_iter().any(|newer| call.is_overtaken_by(newer))
            };
            let oldest = match waiting.len() > WAITING_MAX {
                true => (0..waiting.len()).find(overtaken),
                false => None,
            };
            oldest.and_then(|at| waiting.remove(at))
        };
        self.0.rung.notify_one();
        if let Some(Call {
            kind, slot, epoch, ..
        }) = left_out
        {
            tracing::error!(?kind, slot, %epoch, "a hook is left out: too many wait, and this is old news");
        }
    }
}

async fn run(hooks: &Hooks, pool: &PoolHandle, call: &Call) {
    let (command, role) = match call.kind {
        HookKind::Active => (&hooks.on_active, "active"),
        HookKind::Standby => (&hooks.on_standby, "standby"),
        HookKind::Spare => (&hooks.on_standby, "spare"),
        HookKind::Fault => (&hooks.on_fault, "fault"),
    };
    let Some((program, arguments)) = command.split_first() else {
        return;
    };
    let mut hook = Command::new(program);
    hook.args(arguments)
        .env("VNFPOOL_POOL", pool.as_str())
        .env("VNFPOOL_SLOT", &call.slot)
        .env("VNFPOOL_ROLE", role)
        .env("VNFPOOL_EPOCH", call.epoch.to_string())
        .env(
            "VNFPOOL_FENCING_TOKEN",
            call.epoch.fencing_token().to_string(),
        )
        .env("VNFPOOL_REASON", &call.reason);
    match command::run(hook, hooks.timeout).await {
        Ok(()) => tracing::info!(program, "hook on_{role} done"),
        Err(error) => tracing::error!(program, "the hook on_{role} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hooks_run_one_after_the_other_and_a_hanging_one_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let shell = |script: String| vec!["sh".to_owned(), "-c".to_owned(), script];
        let log_name = log.display();
        let hooks = Hooks {
            on_active: shell(format!(
                "sleep 0.1; echo $VNFPOOL_ROLE $VNFPOOL_EPOCH >> {log_name}"
            )),
            on_standby: shell(format!("echo $VNFPOOL_ROLE >> {log_name}")),
            on_fault: shell("sleep 1000; true".to_owned()),
            timeout: Duration::from_millis(500),
        };
        let runner = HookRunner::start(hooks, "edge".parse().unwrap());
        for kind in [HookKind::Active, HookKind::Fault, HookKind::Standby] {
            let (slot, reason) = ("main".to_owned(), String::new());
            runner.call(Call {
                kind,
                slot,
                epoch: Epoch { term: 3, turn: 1 },
                reason,
            });
        }
        runner.finish().await;
        assert_eq!(
            std::fs::read_to_string(&log).unwrap(),
            "active 3.1\nstandby\n"
        );
    }

    #[test]
    fn only_changes_of_role_are_news() {
        let (mut told, slot) = (RolesTold::default(), SlotId(1));
        let roles = [Role::Spare, Role::Standby, Role::Active, Role::Active];
        let news = roles.map(|role| told.is_news(slot, role));
        assert_eq!(news, [true, true, true, false]);
        assert!(told.forget(slot), "what was switched on is switched off");
        assert!(!told.forget(slot));
        assert!(told.is_news(slot, Role::Spare));
        assert!(!told.forget(slot), "that is what spare has said");
    }

    /// Goal: of more calls than may wait the old ones are left out, and the newest role and the
    /// newest fault of every slot are seen. Method: nobody takes calls.
    #[test]
    fn the_newest_news_of_every_slot_is_kept() {
        let runner = HookRunner::default();
        let call = |kind, slot: &str, term| {
            runner.call(Call {
                kind,
                slot: slot.to_owned(),
                epoch: Epoch { term, turn: 0 },
                reason: String::new(),
            });
        };
        call(HookKind::Active, "quiet", 1);
        call(HookKind::Fault, "quiet", 1);
        for term in 1..=200 {
            call(HookKind::Active, "busy", 2 * term);
            call(HookKind::Standby, "busy", 2 * term + 1);
        }
        let waiting = runner.0.waiting();
        let kept: Vec<_> = waiting.iter().map(|c| (c.kind, c.epoch.term)).collect();
        assert_eq!(kept.len(), WAITING_MAX);
        assert_eq!(kept[..2], [(HookKind::Active, 1), (HookKind::Fault, 1)]);
        let newest: Vec<_> = kept[2..].iter().map(|(_, term)| *term).collect();
        assert_eq!(newest, (340..=401).collect::<Vec<_>>());
    }

    /// Goal: with more slots than may wait no slot's role is lost, and the queue still has an end.
    #[test]
    fn many_slots_may_wait_all() {
        let runner = HookRunner::default();
        for term in 0..3 {
            for slot in 0..100 {
                runner.call(Call {
                    kind: HookKind::Standby,
                    slot: slot.to_string(),
                    epoch: Epoch { term, turn: 0 },
                    reason: String::new(),
                });
            }
        }
        let waiting = runner.0.waiting();
        let kept: Vec<_> = waiting
            .iter()
            .map(|c| (c.slot.clone(), c.epoch.term))
            .collect();
        let newest: Vec<_> = (0..100).map(|slot| (slot.to_string(), 2)).collect();
        assert_eq!(kept, newest);
    }
}
