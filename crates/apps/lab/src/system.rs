//! What a system under test has to offer, so that all go through the same faults.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::measure::Visits;
use crate::namespaces::{Gateway, Lab, ProcessMark};
use crate::observe::Observer;
use crate::signals;
use crate::vnfpool::{TakeoverSteps, Watermark};

/// A laboratory with its ownership probe: where systems are put to the test.
#[derive(Debug)]
pub(crate) struct Scene {
    // Dropped first: its threads live in the namespaces of the laboratory.
    pub(crate) observer: Observer,
    pub(crate) lab: Lab,
}

impl Scene {
    /// Builds a laboratory and starts the ownership probe.
    pub(crate) fn build() -> Result<Self> {
        let lab = Lab::build()?;
        let observer = Observer::start(&lab)?;
        Ok(Self { observer, lab })
    }

    /// Waits until `gateway`, and nobody else, has answered for the virtual address for 150 ms.
    pub(crate) fn wait_owner(&self, gateway: Gateway, limit: Duration) -> Result<()> {
        let mut stable_since = None;
        signals::wait_for(
            &format!("{gateway} to own the virtual address"),
            limit,
            || {
                let now = crate::clock::now();
                if self.observer.owners_now() == [gateway] {
                    let since = *stable_since.get_or_insert(now);
                    return Ok((now - since > 150 * crate::clock::MILLISECOND).then_some(()));
                }
                stable_since = None;
                Ok(None)
            },
        )
    }

    /// The one gateway that owns the virtual address now.
    pub(crate) fn sole_owner(&self) -> Result<Gateway> {
        match self.observer.owners_now().as_slice() {
            [gateway] => Ok(*gateway),
            [] => bail!("no gateway answers for the virtual address before the fault"),
            both => bail!("two gateways answer for the virtual address before the fault: {both:?}"),
        }
    }

    /// The one who is the active before a fault. Of two owners, which is what some systems make of
    /// a partition, it is the preferred one; the figures tell of the other.
    pub(crate) fn owner(&self) -> Result<Gateway> {
        match self.observer.owners_now().as_slice() {
            [gateway, ..] => Ok(*gateway),
            [] => bail!("no gateway answers for the virtual address before the fault"),
        }
    }
}

/// A pool of two gateways, however it is run.
///
/// `wait_ready`, `switchover` and the like return when the system itself says so; what traffic
/// saw is measured from outside.
pub(crate) trait System {
    /// `vnfpool`, `keepalived`.
    fn name(&self) -> &'static str;

    /// Which settings it runs with, for the report.
    fn profile(&self) -> String;

    /// How long it takes, at its settings, to notice a silent death: sizes the window.
    fn detection(&self) -> Duration;

    /// The period that the moment of a fault is spread over.
    fn heartbeat(&self) -> Duration;

    /// Puts the manager on a gateway, before the start: two boxes and no third.
    fn put_manager_on(&mut self, _scene: &Scene, _gateway: Gateway) -> Result<()> {
        bail!("{} has no manager to put somewhere", self.name())
    }

    /// Where the manager keeps its store, also before the start.
    fn store(&self, _scene: &Scene) -> Result<PathBuf> {
        bail!("{} has no manager with a store", self.name())
    }

    /// The threads that write the manager's store.
    fn store_threads(&mut self) -> Vec<i32> {
        Vec::new()
    }

    /// Starts everything, with gw1 active and gw2 synchronised when it returns.
    fn start(&mut self, scene: &Scene) -> Result<()>;

    /// Waits until the pool has an active and a synchronised standby; returns the active.
    fn wait_ready(&mut self, scene: &Scene) -> Result<Gateway>;

    /// Who has sent data to which backend, where the function is a load balancer.
    fn visits(&self) -> Option<Visits> {
        None
    }

    /// Whether the system says that it leaves `gateway` out because it flapped; none where a system
    /// knows no such thing.
    fn is_quarantined(&self, _scene: &Scene, _gateway: Gateway) -> Result<Option<bool>> {
        Ok(None)
    }

    /// Every process of the system on a gateway.
    fn processes(&mut self, gateway: Gateway) -> Vec<ProcessMark>;

    /// The processes on a gateway that can be killed alone: whoever watches over them lives on.
    fn agent_processes(&mut self, gateway: Gateway) -> Vec<ProcessMark> {
        self.processes(gateway)
    }

    /// Replaces the program that runs on a gateway, as after an upgrade.
    fn replace_agent(&mut self, scene: &Scene, gateway: Gateway) -> Result<()> {
        self.start_again(scene, gateway)
    }

    /// From now on logs are about the fault that comes.
    fn mark_logs(&mut self, _lab: &Lab) {}

    /// Where the time of the takeover by `gateway` since [`System::mark_logs`] went, if the system
    /// tells that.
    fn takeover_steps(&self, _lab: &Lab, _gateway: Gateway) -> Option<TakeoverSteps> {
        None
    }

    /// What `gateway`, which has taken over since [`System::mark_logs`], says that it may not have, if
    /// the system says such things.
    fn watermark(&self, _lab: &Lab, _gateway: Gateway) -> Option<Watermark> {
        None
    }

    /// How often the system itself has decided since [`System::mark_logs`] who serves or who may
    /// take over, if it tells that.
    fn decisions(&self, _lab: &Lab) -> Option<usize> {
        None
    }

    /// Every process of the manager, where there is one.
    fn manager_processes(&mut self) -> Vec<ProcessMark> {
        Vec::new()
    }

    /// Ends the system on a gateway in the polite way. Returns when it was asked.
    fn ask_to_stop(&mut self, gateway: Gateway) -> Result<()>;

    /// Starts the system on a gateway again after it was stopped or killed there.
    fn start_again(&mut self, scene: &Scene, gateway: Gateway) -> Result<()>;

    /// Moves the addresses to `to`, planned.
    fn switchover(&mut self, scene: &Scene, to: Gateway) -> Result<()>;

    /// Kills the manager, where there is one.
    fn kill_manager(&mut self) -> Result<()>;

    /// Starts the killed manager again.
    fn restart_manager(&mut self, scene: &Scene) -> Result<()>;

    /// Restarts the manager in such a way that it dies at this step of the next failover.
    fn crash_at(&mut self, _scene: &Scene, _step: &'static str) -> Result<()> {
        bail!(
            "{} has no manager that could die in a failover",
            self.name()
        )
    }

    /// Back to the start, gw1 active and gw2 synchronised, whatever happened; the network is
    /// mended already.
    fn reset(&mut self, scene: &Scene) -> Result<()>;
}
