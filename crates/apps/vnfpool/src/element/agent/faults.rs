//! What keeps this element from serving, and the one order in which that is told.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The faults of the network function and of the agent's own set-up.
///
/// Several threads change them and tell the machines. Telling happens under the lock: if what was
/// found first were told last, a machine would go on believing it.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// None until the function was looked at.
    function: Option<Vec<String>>,
    setup: Option<String>,
    /// The agent stops and has handed over what it could.
    has_left: bool,
}

/// What is said of an agent that stops.
const HAS_LEFT: &str = "the agent stops";

impl Known {
    fn list(&self) -> Vec<String> {
        let unknown = || vec!["the network function has not been looked at yet".to_owned()];
        let function = self.function.clone().unwrap_or_else(unknown);
        let left = self.has_left.then(|| HAS_LEFT.to_owned());
        let setup = self.setup.clone();
        function.into_iter().chain(setup).chain(left).collect()
    }
}

impl Faults {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process of this life has looked at the function and found it able.
    pub(super) fn inherit_able(&self) {
        self.known().function.get_or_insert_default();
    }

    /// All of them; none when this element could serve.
    pub(super) fn list(&self) -> Vec<String> {
        self.known().list()
    }

    /// Whether the set-up has a fault.
    pub(super) fn has_setup(&self) -> bool {
        self.known().setup.is_some()
    }

    /// Hands whether this element could serve to `tell`, which must not wait.
    pub(super) fn tell(&self, tell: impl FnOnce(bool)) {
        let known = self.known();
        tell(known.list().is_empty());
    }

    /// Replaces the function's faults and tells the outcome as [`Faults::tell`] does.
    pub(super) fn set_function(&self, faults: &[String], tell: impl FnOnce(bool)) {
        let mut known = self.known();
        known.function = Some(faults.to_vec());
        tell(known.list().is_empty());
    }

    /// Replaces the fault of the set-up and tells the outcome as [`Faults::tell`] does; false,
    /// and nothing is told, if it is the one that was known.
    pub(super) fn set_setup(&self, fault: Option<&str>, tell: impl FnOnce(bool)) -> bool {
        let mut known = self.known();
        if known.setup.as_deref() == fault {
            return false;
        }
        known.setup = fault.map(str::to_owned);
        tell(known.list().is_empty());
        true
    }

    /// The agent stops and has handed over what it could: for good, whatever its function says. Tells as
    /// [`Faults::tell`] does.
    pub(super) fn leave(&self, tell: impl FnOnce(bool)) {
        let mut known = self.known();
        known.has_left = true;
        tell(known.list().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// Goal: what is told last is how things are. Method: while one thread is telling "able",
    /// another one finds a fault and gets ample time to tell it in between.
    #[test]
    fn news_cannot_be_overtaken_by_what_it_replaces() {
        let faults = Faults::default();
        faults.set_function(&[], |_| {});
        let told = Mutex::new(Vec::new());
        let (ended, has_ended) = mpsc::channel();
        std::thread::scope(|scope| {
            faults.tell(|able| {
                scope.spawn(|| {
                    let tell = |able| told.lock().unwrap().push(able);
                    assert!(faults.set_setup(Some("no such interface"), tell));
                    ended.send(()).unwrap();
                });
                // It has to wait for us; if it does not, it is through by then.
                let _ = has_ended.recv_timeout(Duration::from_millis(200));
                told.lock().unwrap().push(able);
            });
        });
        assert_eq!(*told.lock().unwrap(), [true, false]);
        assert_eq!(faults.list(), ["no such interface"]);
    }

    #[test]
    fn a_fault_that_is_known_is_not_told_again() {
        let faults = Faults::default();
        faults.set_function(&[], |able| assert!(able));
        assert!(faults.set_setup(Some("taken"), |able| assert!(!able)));
        assert!(!faults.set_setup(Some("taken"), |_| panic!("told twice")));
        faults.set_function(&["down".to_owned()], |able| assert!(!able));
        assert_eq!(faults.list(), ["down", "taken"]);
    }

    #[test]
    fn an_agent_that_has_left_is_not_able_again() {
        let faults = Faults::default();
        faults.set_function(&[], |able| assert!(able));
        faults.leave(|able| assert!(!able));
        faults.set_function(&[], |able| assert!(!able));
        assert!(!faults.set_setup(None, |_| panic!("no news")));
        assert_eq!(faults.list(), [HAS_LEFT]);
    }
}
