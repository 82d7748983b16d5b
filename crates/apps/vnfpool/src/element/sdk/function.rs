//! The function beside this agent, as far as the element's health goes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vnfpool_model::SlotId;

/// A function has to register again within this time after its agent was replaced.
const REGISTER_AGAIN: Duration = Duration::from_secs(2);

/// What a function says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) is_healthy: bool,
    pub(crate) reason: String,
    pub(crate) load: u32,
    pub(crate) capacity: u32,
}

#[derive(Clone, Debug)]
enum Known {
    /// None has registered in this process of the agent.
    Nothing,
    Registered {
        function: String,
        report: Report,
    },
    Gone {
        function: String,
    },
}

/// Whether there is a function and how it is.
#[derive(Debug)]
pub(crate) struct FunctionHealth {
    known: Mutex<Known>,
    /// Slots of which neither this agent nor the function has the state, and why.
    lost: Mutex<BTreeMap<SlotId, String>>,
    is_required: bool,
    began: Instant,
}

impl FunctionHealth {
    /// None is registered. With `is_required` that is a fault.
    pub(crate) fn new(is_required: bool) -> Self {
        Self {
            known: Mutex::new(Known::Nothing),
            lost: Mutex::default(),
            is_required,
            began: Instant::now(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registered(&self, function: &str, report: Report) {
        let function = function.to_owned();
        *self.known() = Known::Registered { function, report };
    }

    pub(super) fn reported(&self, news: Report) {
        if let Known::Registered { report, .. } = &mut *self.known() {
            *report = news;
        }
    }

    pub(super) fn has_gone(&self) {
        let mut known = self.known();
        if let Known::Registered { function, .. } = &*known {
            let function = function.clone();
            *known = Known::Gone { function };
        }
    }

    /// The state of a slot is not on this element: another one has to serve it.
    pub(super) fn has_lost(&self, slot: SlotId, why: String) {
        self.lost().insert(slot, why);
    }

    /// That does not matter any more.
    pub(super) fn needs_no_state(&self, slot: SlotId) {
        self.lost().remove(&slot);
    }

    fn lost(&self) -> MutexGuard<'_, BTreeMap<SlotId, String>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it said last; none while none is registered.
    pub(crate) fn report(&self) -> Option<Report> {
        match &*self.known() {
            Known::Registered { report, .. } => Some(report.clone()),
            Known::Nothing | Known::Gone { .. } => None,
        }
    }

    /// Whether it has had no time to register since this process began.
    pub(crate) fn is_unknown(&self) -> bool {
        let is_early = self.began.elapsed() <= REGISTER_AGAIN;
        is_early && matches!(*self.known(), Known::Nothing)
    }

    /// Why this element cannot serve; none if that is not because of the function.
    pub(crate) fn fault(&self) -> Option<String> {
        match &*self.known() {
            Known::Nothing if self.is_required => {
                Some("no function has registered at the SDK's socket: start it".to_owned())
            }
            Known::Nothing => None,
            Known::Registered { report, .. } if report.is_healthy => {
                self.lost().values().next().cloned()
            }
            Known::Registered { function, report } => Some(format!(
                "the function '{function}' says that it is unhealthy: {}",
                report.reason
            )),
            Known::Gone { function } => Some(format!(
                "the function '{function}' has closed its connection to the agent: start it again"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(is_healthy: bool, reason: &str) -> Report {
        Report {
            is_healthy,
            reason: reason.to_owned(),
            ..Report::default()
        }
    }

    #[test]
    fn a_function_that_is_unhealthy_or_gone_is_a_fault() {
        let health = FunctionHealth::new(false);
        assert_eq!(health.fault(), None);
        health.registered("lb", report(true, ""));
        assert_eq!(health.fault(), None);
        health.reported(report(false, "no backend answers"));
        assert!(health.fault().unwrap().contains("no backend answers"));
        health.reported(report(true, ""));
        assert_eq!(health.fault(), None);
        health.has_gone();
        assert!(health.fault().unwrap().contains("'lb' has closed"));
        assert_eq!(health.report(), None);
    }

    #[test]
    fn a_required_function_that_never_came_is_a_fault() {
        let health = FunctionHealth::new(true);
        assert!(health.is_unknown());
        assert!(
            health
                .fault()
                .unwrap()
                .contains("no function has registered")
        );
        health.registered("lb", report(true, ""));
        assert!(!health.is_unknown());
        health.has_gone();
        assert!(!health.is_unknown());
    }
}
