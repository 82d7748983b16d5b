//! What the agent's tasks share: who we are, what the manager configured, how we are.

mod configure;
mod faults;
mod state_report;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use vnfpool_config::ElementConfig;
use vnfpool_model::{Epoch, Incarnation, Role, SlotId};
use vnfpool_succession::element::{self, Input, Notice as MachineNotice, Refusal};
use vnfpool_transport::RejectionCounters;
use vnfpool_transport::pki::Credentials;
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{
    Configuration, ElementReport, Frame, HandoverTrouble, SlotReport, SwitchoverCommand,
    SwitchoverResult,
};
use vnfpool_wire::datagram::NodeId;

pub(super) use self::configure::paths_to;
use self::faults::Faults;
use super::blocks::Blocks;
use super::drain::{self, Failures, Step};
use super::hooks::{Call, HookKind, HookRunner, RolesTold};
use super::inheritance::SetupKeeper;
use super::mesh::Mesh;
use super::plane::DataPlane;
use super::pulse::{Notice, Pulse, View};
use super::sdk::{Hub, SlotRole};
use super::sync::SyncHub;
use crate::pulse::now;

/// A switchover that has not happened by then is reported as failed.
const SWITCHOVER_TIME_MAX: Duration = Duration::from_secs(3);

/// A refusal that may pass is the answer only after this time; until then it is asked again.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);

/// A handover may be refused for a moment: the successor was armed just now and has not been
/// heard, or another handover is under way. So it is asked for again and again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(50);

/// A switchover that the manager asked for and that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    slot: SlotId,
    /// The manager's number of the command.
    id: u64,
    since: Instant,
}

/// Everything that the tasks share.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(super) config: ElementConfig,
    pub(super) credentials: Credentials,
    pub(super) incarnation: Incarnation,
    pub(super) pulse: Pulse,
    pub(super) sync: Arc<SyncHub>,
    /// None without a socket for functions of their own.
    pub(super) sdk: Option<Arc<Hub>>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) blocks: Blocks,
    pub(super) hooks: HookRunner,
    pub(super) rejections: Arc<RejectionCounters>,
    /// Rung when roles or connections have changed.
    pub(super) changed: Notify,
    pub(super) plane: Arc<Mutex<Option<DataPlane>>>,
    pub(super) realtime: Arc<Mutex<String>>,
    /// For the next process of this life.
    setup: Mutex<SetupKeeper>,
    /// What the manager configured last; locked while it is carried out.
    configuration: tokio::sync::Mutex<Option<Configuration>>,
    faults: Faults,
    pub(super) drain_failures: Failures,
    /// Held while the function is drained: two at a time would be one to it, and over with the first.
    draining: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    node: Option<NodeId>,
    slots: BTreeMap<SlotId, String>,
    roles_told: RolesTold,
    peers: BTreeSet<NodeId>,
    outbox: Option<mpsc::Sender<Frame>>,
    /// Revision of the configuration of this connection that was carried out last.
    revision: u64,
    /// Whether there has been one on this connection.
    configured: bool,
    /// Where the manager's datagrams go, as it says.
    manager: String,
    /// Commands of the manager that wait for their slot to be handed over.
    switchovers: Vec<Asked>,
    /// The agent stops: it hands over by itself, and takes on nothing new.
    departs: bool,
}

/// What [`Agent::new`] is made of.
pub(super) struct Parts {
    pub(super) config: ElementConfig,
    pub(super) credentials: Credentials,
    pub(super) incarnation: Incarnation,
    pub(super) pulse: Pulse,
    pub(super) sync: Arc<SyncHub>,
    /// None without a socket for functions of their own.
    pub(super) sdk: Option<Arc<Hub>>,
    pub(super) mesh: Arc<Mesh>,
    pub(super) blocks: Blocks,
    pub(super) rejections: Arc<RejectionCounters>,
    pub(super) plane: Arc<Mutex<Option<DataPlane>>>,
    pub(super) realtime: Arc<Mutex<String>>,
    pub(super) setup: SetupKeeper,
}

impl Agent {
    pub(super) fn new(parts: Parts) -> Self {
        let hooks = HookRunner::start(parts.config.hooks.clone(), parts.config.pool.clone());
        Self {
            config: parts.config,
            credentials: parts.credentials,
            incarnation: parts.incarnation,
            pulse: parts.pulse,
            sync: parts.sync,
            sdk: parts.sdk,
            mesh: parts.mesh,
            blocks: parts.blocks,
            hooks,
            rejections: parts.rejections,
            changed: Notify::new(),
            plane: parts.plane,
            realtime: parts.realtime,
            setup: Mutex::new(parts.setup),
            configuration: tokio::sync::Mutex::default(),
            faults: Faults::default(),
            drain_failures: Failures::default(),
            draining: tokio::sync::Mutex::default(),
            state: Mutex::new(State::default()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the manager's welcome: our number, and where its datagrams go.
    pub(super) fn set_node(&self, node: NodeId, manager: &str) {
        let mut state = self.state();
        state.node = Some(node);
        manager.clone_into(&mut state.manager);
    }

    pub(super) fn set_outbox(&self, outbox: Option<mpsc::Sender<Frame>>) {
        let mut state = self.state();
        state.outbox = outbox;
        // Another connection may be one to another boot of the manager, which counts anew.
        (state.revision, state.configured) = (0, false);
    }

    /// What keeps the configuration from being carried out; the element cannot serve with it.
    pub(super) fn set_setup_fault(&self, fault: Option<String>) {
        let tell = |able| self.pulse.input_all(Input::Able(able));
        if !self.faults.set_setup(fault.as_deref(), tell) {
            return;
        }
        match &fault {
            Some(fault) => {
                tracing::error!("the configuration of the manager cannot be carried out: {fault}");
            }
            None => tracing::info!("nothing is in the way of the manager's configuration any more"),
        }
        self.tell_others_of_faults();
    }

    /// The function's faults, as the health thread sees them.
    pub(super) fn set_faults(&self, faults: &[String]) {
        // The machines first: they are what counts.
        let tell = |able| self.pulse.input_all(Input::Able(able));
        self.faults.set_function(faults, tell);
        match faults {
            [] => tracing::info!("the network function could serve"),
            faults => tracing::warn!(
                "the network function could not serve: {}",
                faults.join("; ")
            ),
        }
        self.tell_others_of_faults();
    }

    fn tell_others_of_faults(&self) {
        self.report_now();
        let faults = self.faults.list();
        if !faults.is_empty() {
            self.call_hooks(HookKind::Fault, &faults.join("; "));
        }
    }

    fn call_hooks(&self, kind: HookKind, reason: &str) {
        let view = self.pulse.view();
        for (id, slot) in self.slot_names() {
            let epoch = epoch_in(&view, id);
            let reason = reason.to_owned();
            self.hooks.call(Call {
                kind,
                slot,
                epoch,
                reason,
            });
        }
    }

    /// Hooks hear of a role once. A slot that has been removed meanwhile has none.
    fn tell_role(&self, id: SlotId, epoch: Epoch, role: Role, reason: &str) {
        let mut state = self.state();
        let Some(slot) = state.slots.get(&id).cloned() else {
            return;
        };
        if state.roles_told.is_news(id, role) {
            self.hooks.call(Call {
                kind: role.into(),
                slot,
                epoch,
                reason: reason.to_owned(),
            });
        }
    }

    /// The function beside this agent hears of every role, in order.
    fn tell_function(&self, slot: SlotId, epoch: Epoch, role: Role) {
        let name = self.state().slots.get(&slot).cloned();
        if let Some((sdk, name)) = self.sdk.as_ref().zip(name) {
            sdk.set_role(slot, SlotRole { name, role, epoch });
        }
    }

    /// It hears of the roles of which no notice comes: those from before this process, and those
    /// whose notice was lost.
    pub(super) fn tell_function_all(&self) {
        let Some(sdk) = &self.sdk else {
            return;
        };
        let view = self.pulse.view();
        let names = self.slot_names();
        for (id, slot) in view.slots {
            if let Some(name) = names.get(&id).cloned() {
                let (role, epoch) = (slot.role, slot.epoch);
                sdk.set_seen_role(id, SlotRole { name, role, epoch }, view.notices_lost);
            }
        }
    }

    /// The streams carry what the function has registered.
    pub(super) fn take_function_classes(&self) {
        let news = self.sdk.as_ref().and_then(Hub::news_of_classes);
        if let Some(classes) = news {
            self.sync.set_function_classes(classes);
        }
    }

    /// Tells the hooks of every slot its role, whether it is news or not.
    fn tell_roles(&self, reason: &str) {
        for (id, slot) in self.pulse.view().slots {
            self.tell_role(id, slot.epoch, slot.role, reason);
        }
    }

    /// What `on_active` has switched on for a slot is switched off when the slot goes.
    fn tell_end_of_slot(&self, id: SlotId, epoch: Epoch, reason: &str) {
        let mut state = self.state();
        let is_news = state.roles_told.forget(id);
        if let Some(slot) = state.slots.remove(&id)
            && is_news
        {
            self.hooks.call(Call {
                kind: HookKind::Spare,
                slot,
                epoch,
                reason: reason.to_owned(),
            });
        }
    }

    /// The agent ends, and has closed its gates: the hooks hear of that.
    pub(super) async fn finish_hooks(&self) {
        let view = self.pulse.view();
        for id in self.slot_names().into_keys() {
            self.tell_end_of_slot(id, epoch_in(&view, id), "stopped");
        }
        self.hooks.finish().await;
    }

    fn tell_manager(&self, kind: Kind) {
        if let Some(outbox) = &self.state().outbox {
            // The next report comes within a second.
            let _ = outbox.try_send(Frame { kind: Some(kind) });
        }
    }

    pub(super) fn gate_driver(&self) -> String {
        let plane = self.plane.lock().unwrap_or_else(PoisonError::into_inner);
        plane
            .as_ref()
            .map_or_else(String::new, |plane| plane.driver().to_owned())
    }

    pub(super) fn realtime_text(&self) -> String {
        self.realtime
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The names of the slots by number.
    pub(super) fn slot_names(&self) -> BTreeMap<SlotId, String> {
        self.state().slots.clone()
    }

    /// What the element says of itself.
    pub(super) fn report(&self) -> ElementReport {
        let faults = self.faults.list();
        let (view, figures, at) = (self.pulse.view(), self.sync.figures(), now());
        let blocks = self.blocks.in_map();
        let mut rows_left = state_report::ROWS_MAX;
        let slots = view.slots.iter().map(|(id, slot)| {
            let figures = figures.get(id).cloned().unwrap_or_default();
            let margin = slot.lease_margin.map_or(0, |m| m.as_micros());
            let lag = figures.lag(at);
            let sdk = self.sdk.as_ref();
            let of_function = state_report::OfFunction {
                downgrades: sdk.map(|sdk| sdk.downgrades(*id, at)).unwrap_or_default(),
                restoring: sdk.map(|sdk| sdk.restoring(*id)).unwrap_or_default(),
            };
            let mut standings = self.sync.standings(*id);
            standings.truncate(rows_left);
            rows_left -= standings.len();
            SlotReport {
                id: id.0,
                term: slot.epoch.term,
                turn: u32::from(slot.epoch.turn),
                role: slot.role.to_string(),
                lease_margin_us: u64::try_from(margin).unwrap_or(u64::MAX),
                unconfirmed: slot.unconfirmed,
                in_sync: figures.in_sync(),
                sync_lag_frames: figures.lag_records(),
                sync_lag_us: u64::try_from(lag.as_micros()).unwrap_or(u64::MAX),
                silence_excess_us: u64::try_from(slot.silence_excess.as_micros())
                    .unwrap_or(u64::MAX),
                port_block: blocks.get(id).copied().map(u32::from),
                classes: state_report::class_reports(standings, &of_function, at),
            }
        });
        ElementReport {
            able: faults.is_empty(),
            slots: slots.collect(),
            faults,
            revision: self.state().revision,
            handover_trouble: self.handover_trouble(),
        }
    }

    /// What went wrong in planned handovers; none if nothing did.
    fn handover_trouble(&self) -> Option<HandoverTrouble> {
        let at = now();
        let trouble = HandoverTrouble {
            not_drained: self.drain_failures.report(Step::Begin, at),
            not_resumed: self.drain_failures.report(Step::End, at),
            classes_undrained: self.sync.undrained(),
        };
        (trouble != HandoverTrouble::default()).then_some(trouble)
    }

    /// The function's control socket did not take a line around a planned handover.
    pub(super) fn drain_failed(&self, step: Step, reason: String) {
        match step {
            Step::Begin => tracing::error!(
                "the function is not drained, requests in flight are cut by the handover: {reason}"
            ),
            Step::End => tracing::error!(
                "the function was not told that the handover is over, it may go on draining: {reason}"
            ),
        }
        self.drain_failures.note(step, reason, now());
        self.report_now();
    }

    /// Tells the manager how things are, without waiting for the next report.
    pub(super) fn report_now(&self) {
        self.tell_manager(Kind::ElementReport(self.report()));
    }

    /// The agent stops: from now on it hands over by itself, and takes on nothing new.
    pub(super) fn begin_departure(&self) {
        self.state().departs = true;
    }

    fn departs(&self) -> bool {
        self.state().departs
    }

    /// It has handed over what it could: nobody may count on this element any more. Not before, or the
    /// machines would hand over at once, without the drain. A stop is no fault that hooks hear of.
    pub(super) fn has_left(&self) {
        self.faults
            .leave(|able| self.pulse.input_all(Input::Able(able)));
        self.report_now();
    }

    /// Waits until nobody else drains the function, if it is drained at all.
    pub(super) async fn turn_to_drain(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.config.drain.as_ref()?;
        Some(self.draining.lock().await)
    }

    /// A switchover that the manager asks for.
    pub(super) fn switch_over(self: &Arc<Self>, command: &SwitchoverCommand) {
        let slot = SlotId(command.slot);
        tracing::info!(%slot, reason = command.reason, "switchover");
        let (agent, id) = (Arc::clone(self), command.id);
        if self.departs() {
            return self.refuse_switchover(id);
        }
        tokio::spawn(async move {
            let _turn = agent.turn_to_drain().await;
            // It may have begun meanwhile, and waits for its turn: that is the next one.
            if agent.departs() {
                return agent.refuse_switchover(id);
            }
            let serves = agent.to_hand_over().contains(&slot);
            let drain = agent.config.drain.clone().filter(|_| serves);
            let hand_over = agent.hand_over_for(slot, id);
            let failed = |step, reason| agent.drain_failed(step, reason);
            drain::around(drain, failed, hand_over).await;
        });
    }

    fn refuse_switchover(&self, id: u64) {
        let text = "the agent stops: it hands its slots over by itself".to_owned();
        let done = false;
        self.tell_manager(Kind::SwitchoverResult(SwitchoverResult { id, done, text }));
    }

    /// Hands a slot over because the manager's command `id` says so, and answers it.
    async fn hand_over_for(&self, slot: SlotId, id: u64) {
        let asked = Asked {
            slot,
            id,
            since: Instant::now(),
        };
        self.state().switchovers.push(asked);
        while asked.since.elapsed() < SWITCHOVER_TIME_MAX {
            if !self.state().switchovers.contains(&asked) {
                return;
            }
            self.pulse.input(slot, Input::HandOver);
            tokio::time::sleep(ASK_AGAIN).await;
        }
        let text = "the successor did not take over in time";
        self.end_switchovers(|waiting| waiting == asked, false, text);
    }

    /// A handover was refused. A successor that was armed just now has not been heard in this
    /// epoch yet, or not as able; that is the answer only if it stays so.
    fn handover_refused(&self, slot: SlotId, name: &str, refusal: Refusal) {
        let patience = match refusal {
            Refusal::NotActive => Duration::ZERO,
            Refusal::NotArmed
            | Refusal::Voting
            | Refusal::SuccessorSilent
            | Refusal::SuccessorUnable
            | Refusal::SuccessorBehind
            | Refusal::UnderWay => REFUSAL_PATIENCE,
        };
        let is_final = |asked: Asked| asked.slot == slot && asked.since.elapsed() >= patience;
        if self.end_switchovers(is_final, false, refusal.as_str()) {
            tracing::warn!(slot = name, "not handed over: {}", refusal.as_str());
        }
    }

    /// Answers the switchovers that `which` is true of; false if there are none.
    fn end_switchovers(&self, which: impl Fn(Asked) -> bool, done: bool, text: &str) -> bool {
        let ids: Vec<_> = {
            let mut state = self.state();
            let ended = state.switchovers.extract_if(.., |waiting| which(*waiting));
            ended.map(|asked| asked.id).collect()
        };
        for id in &ids {
            let (id, text) = (*id, text.to_owned());
            self.tell_manager(Kind::SwitchoverResult(SwitchoverResult { id, done, text }));
        }
        !ids.is_empty()
    }

    /// Takes a notice of the real-time thread.
    pub(super) fn noticed(&self, notice: Notice) {
        match notice {
            Notice::Drain { slot } => self.sync.drain(slot),
            Notice::Serving {
                slot,
                epoch,
                takeover,
            } => tracing::info!(
                %slot, %epoch,
                silence_us = takeover.silence.as_micros(), answer_us = takeover.answer.as_micros(),
                opening_us = takeover.opening.as_micros(), telling_us = takeover.telling.as_micros(),
                "the gate is open, the LANs are told"
            ),
            Notice::Machine { slot, notice } => self.machine_noticed(slot, notice),
        }
    }

    fn machine_noticed(&self, slot: SlotId, notice: element::Notice) {
        let name = self.state().slots.get(&slot).cloned().unwrap_or_default();
        match notice {
            MachineNotice::RoleChanged {
                epoch,
                role,
                peer,
                cause,
            } => {
                let peer = peer.map_or(0, |p| p.node.0);
                tracing::info!(slot = name, %epoch, %role, peer, cause = cause.as_str(), "role");
                self.tell_function(slot, epoch, role);
                self.blocks.tell_role(slot, role == Role::Active);
                self.tell_role(slot, epoch, role, cause.as_str());
                self.changed.notify_one();
            }
            MachineNotice::Voted {
                term,
                disarms,
                silence,
            } => {
                let silence_us = u64::try_from(silence.as_micros()).unwrap_or(u64::MAX);
                let what = match disarms {
                    true => "the standby is silent, unable or out of sync: going on without it",
                    false => "the active is silent: claiming the slot",
                };
                tracing::warn!(slot = name, term, silence_us, "{what}");
            }
            MachineNotice::HandOverRefused(refusal) => self.handover_refused(slot, &name, refusal),
            MachineNotice::HandedOver { epoch } => {
                tracing::info!(slot = name, %epoch, "handed over");
                self.end_switchovers(|asked| asked.slot == slot, true, &epoch.to_string());
            }
            MachineNotice::Unconfirmed { term, now: true } => {
                tracing::error!(
                    slot = name,
                    term,
                    "QUORUM LOST: serving unconfirmed, on evidence"
                );
            }
            MachineNotice::Unconfirmed { term, now: false } => {
                tracing::warn!(slot = name, term, "no longer unconfirmed");
            }
        }
    }

    /// For how long the manager has answered no request; zero without a slot to ask about.
    pub(super) fn manager_silence(&self) -> Duration {
        let at = now();
        let view = self.pulse.view();
        let silences = view.slots.values().map(|s| at.since(s.manager_heard_at));
        silences.min().unwrap_or_default()
    }

    /// Whether a slot is served here. The role decides and not the gate's deadline: the view is
    /// some milliseconds old, and the lease in it may seem over though it was renewed long since.
    pub(super) fn serves(&self) -> bool {
        let view = self.pulse.view();
        view.slots
            .values()
            .any(|s| s.role == Role::Active || s.unconfirmed)
    }

    /// The slots that are served here and have an armed successor to be handed over to.
    pub(super) fn to_hand_over(&self) -> Vec<SlotId> {
        let view = self.pulse.view();
        let pairs = view
            .slots
            .iter()
            .filter(|(_, s)| s.role == Role::Active && s.peer.is_some());
        pairs.map(|(id, _)| *id).collect()
    }
}

/// The epoch of a slot; zero while there is none.
fn epoch_in(view: &View, slot: SlotId) -> Epoch {
    view.slots
        .get(&slot)
        .map_or_else(Epoch::default, |s| s.epoch)
}
