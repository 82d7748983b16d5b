//! Carrying out what the manager configured: peers, slots and their data planes.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use prost::Message as _;
use vnfpool_heartbeat::PeerPath;
use vnfpool_model::{PoolSpec, Role, SlotId, SlotSpec};
use vnfpool_succession::element::{Input, Settings};
use vnfpool_wire::control::frame::Kind;
use vnfpool_wire::control::{Configuration, Path};
use vnfpool_wire::datagram::{Member, NodeId};

use super::{Agent, epoch_in};
use crate::element::LAN_PATH_PREFIX;
use crate::element::inheritance::Setup;
use crate::element::mesh::PeerAddress;
use crate::element::plane::DataPlane;
use crate::element::pulse::{Command, View};

/// The real-time thread gives a slot up within this time.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(1);

impl Agent {
    /// Carries out what the manager configured, as far as it can be; [`Agent::mend`] does the rest.
    /// An agent that stops sets nothing up any more; it takes its slots away, which is what it is asked to
    /// when their pool is deleted.
    pub(in crate::element) async fn configure(&self, configuration: Configuration) {
        if self.departs() && !configuration.slots.is_empty() {
            return;
        }
        let mut newest = self.configuration.lock().await;
        let configuration = newest.insert(configuration);
        self.state().configured = true;
        self.try_to_carry_out(configuration).await;
    }

    /// Tries again to carry out what the manager configured, if something was in the way: an
    /// interface that was missing for a moment, a device of somebody else. Not while the agent stops.
    pub(in crate::element) async fn mend(&self) {
        let newest = self.configuration.lock().await;
        if let Some(configuration) = newest.as_ref()
            && self.faults.has_setup()
            && !self.departs()
        {
            self.try_to_carry_out(configuration).await;
        }
    }

    async fn try_to_carry_out(&self, configuration: &Configuration) {
        let fault = fault_of(self.carry_out(configuration).await);
        let done = fault.is_none();
        self.keep_setup(done.then_some(configuration));
        self.set_setup_fault(fault);
        if done && self.state().configured {
            // The manager may be waiting for that.
            self.state().revision = configuration.revision;
            self.tell_manager(Kind::ElementReport(self.report()));
        }
    }

    /// Goes on with the peers that another process of this life had.
    pub(in crate::element) fn resume_peers(&self, setup: &Setup, configuration: &Configuration) {
        self.set_node(setup.node, &setup.manager);
        let me = Member {
            node: setup.node,
            incarnation: self.incarnation,
        };
        self.configure_peers(me, configuration);
    }

    /// The function was found able by the process before.
    pub(in crate::element) fn inherit_able(&self) {
        self.faults.inherit_able();
    }

    /// Goes on with the slots that were taken up from another process of this life.
    pub(in crate::element) async fn resume(
        &self,
        configuration: Configuration,
        slots: Vec<(SlotId, String)>,
    ) {
        self.state().slots.extend(slots);
        // Whether the process before has told, or was killed in the middle, nobody knows.
        self.tell_roles("going on in another process");
        let mut newest = self.configuration.lock().await;
        let configuration = newest.insert(configuration);
        self.try_to_carry_out(configuration).await;
    }

    /// Writes down for another process what this one has carried out; nothing while it could not.
    fn keep_setup(&self, configuration: Option<&Configuration>) {
        let (node, manager) = {
            let state = self.state();
            (state.node, state.manager.clone())
        };
        let mut setup = self.setup.lock().unwrap_or_else(PoisonError::into_inner);
        match (configuration, node) {
            (Some(configuration), Some(node)) => {
                setup.keep(node, manager, configuration.encode_to_vec());
            }
            _ => setup.forget(),
        }
    }

    /// Peers first, then slots; one slot that cannot be set up does not keep others from it.
    async fn carry_out(&self, configuration: &Configuration) -> anyhow::Result<()> {
        let spec: PoolSpec =
            serde_json::from_str(&configuration.pool).context("the pool's description")?;
        let Some(node) = self.state().node else {
            return Ok(());
        };
        let me = Member {
            node,
            incarnation: self.incarnation,
        };
        self.configure_peers(me, configuration);
        self.sync.demand(spec.state, spec.slots.len());
        let wanted: BTreeSet<_> = configuration.slots.iter().map(|s| SlotId(s.id)).collect();
        let gone: Vec<_> = self
            .state()
            .slots
            .keys()
            .filter(|id| !wanted.contains(id))
            .copied()
            .collect();
        for id in gone {
            self.remove_slot(id).await?;
        }
        let mut failed = Ok(());
        for slot in &configuration.slots {
            let id = SlotId(slot.id);
            self.sync
                .set_candidate(id, (slot.candidate != 0).then_some(NodeId(slot.candidate)));
            let found = spec.slots.iter().find(|s| s.name.as_str() == slot.name);
            let Some(slot_spec) = found.cloned() else {
                continue;
            };
            // Before the slot can come here.
            if let Err(error) = self.configure_blocks(id, &slot_spec).await {
                failed = failed.and(Err(error));
                continue;
            }
            if self.state().slots.contains_key(&id) {
                continue;
            }
            let settings = Settings {
                me,
                timing: spec.timing,
                lease_ms_max: spec.lease_ms_max(),
                on_quorum_loss: spec.on_quorum_loss,
            };
            if let Err(error) = self.add_slot(id, slot_spec, settings).await {
                failed = failed.and(Err(
                    error.context(format!("set up the slot '{}'", slot.name))
                ));
            }
        }
        self.changed.notify_one();
        failed?;
        self.retire_inherited()
            .await
            .context("remove what an earlier life of this agent has left")
    }

    async fn configure_blocks(&self, id: SlotId, spec: &SlotSpec) -> anyhow::Result<()> {
        let slots = &self.pulse.view().slots;
        let serves = slots.get(&id).is_some_and(|s| s.role == Role::Active);
        let (name, blocks) = (spec.name.to_string(), spec.port_blocks.clone());
        self.blocks.configure(id, name, blocks, serves).await
    }

    async fn retire_inherited(&self) -> anyhow::Result<()> {
        let plane = Arc::clone(&self.plane);
        tokio::task::spawn_blocking(move || {
            let mut plane = plane.lock().unwrap_or_else(PoisonError::into_inner);
            plane.as_mut().map_or(Ok(()), DataPlane::retire_inherited)
        })
        .await?
    }

    async fn add_slot(&self, id: SlotId, spec: SlotSpec, settings: Settings) -> anyhow::Result<()> {
        let name = spec.name.to_string();
        let plane = Arc::clone(&self.plane);
        let prepared = tokio::task::spawn_blocking(move || {
            let mut plane = plane.lock().unwrap_or_else(PoisonError::into_inner);
            let plane = plane.as_mut().context("the agent stops")?;
            plane.add_slot(id, &spec)
        });
        let plane = prepared.await??;
        tracing::info!(slot = name, "the slot is configured, its gate is closed");
        // Before anything is heard of it: its hooks are called by its name.
        self.state().slots.insert(id, name);
        self.pulse.send(Command::AddSlot {
            id,
            settings,
            plane,
        });
        self.faults
            .tell(|able| self.pulse.input(id, Input::Able(able)));
        Ok(())
    }

    fn configure_peers(&self, me: Member, configuration: &Configuration) {
        let mut addresses = Vec::new();
        let mut present = BTreeSet::new();
        let known = self.state().peers.clone();
        for peer in &configuration.peers {
            let Ok(element) = peer.element.parse() else {
                continue;
            };
            let node = NodeId(peer.node);
            // A restarted manager may not know yet where a peer is; we may.
            if peer.paths.is_empty() {
                present.extend(known.get(&node));
                continue;
            }
            present.insert(node);
            let paths = paths_to(&peer.paths);
            self.pulse.send(Command::Reach { node, paths });
            // Links between the elements before LANs that carry traffic.
            let (lans, own): (Vec<_>, Vec<_>) = peer
                .paths
                .iter()
                .partition(|p| p.name.starts_with(LAN_PATH_PREFIX));
            let in_order = own.into_iter().chain(lans);
            let endpoints = in_order.filter_map(|p| p.peer.parse().ok()).collect();
            addresses.push(PeerAddress {
                node,
                element,
                addresses: endpoints,
            });
        }
        let gone: Vec<_> = {
            let mut state = self.state();
            let gone = state.peers.difference(&present).copied().collect();
            state.peers.clone_from(&present);
            gone
        };
        for node in gone {
            self.pulse.send(Command::Forget(node));
        }
        self.mesh.set_peers(me, &present, addresses);
    }

    /// Nothing of the pool may be served here any more: every gate closes, every device goes.
    pub(in crate::element) async fn remove_all_slots(&self, why: &str) -> anyhow::Result<()> {
        // All gates first, then what takes longer; a configuration that is being carried out may
        // take a second for each slot.
        self.close_slots();
        let mut newest = self.configuration.lock().await;
        // Nothing of it is tried again, here or in another process.
        *newest = None;
        self.keep_setup(None);
        self.set_setup_fault(None);
        // Meanwhile there may be more.
        self.close_slots();
        let mut failed = Ok(());
        for (id, name) in self.slot_names() {
            match self.remove_slot(id).await {
                Ok(()) => tracing::warn!(slot = name, "the slot is closed and removed: {why}"),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    fn close_slots(&self) {
        for id in self.slot_names().into_keys() {
            self.pulse.send(Command::RemoveSlot(id));
        }
    }

    async fn remove_slot(&self, id: SlotId) -> anyhow::Result<()> {
        let epoch = epoch_in(&self.pulse.view(), id);
        self.pulse.send(Command::RemoveSlot(id));
        self.sync.remove(id);
        if let Some(sdk) = &self.sdk {
            sdk.remove_slot(id);
        }
        self.blocks.remove(id);
        // The real-time thread closes the gate, another lets go of it; until both have, the slot
        // is not removed.
        let has_it =
            |view: &View| view.slots.contains_key(&id) || view.retiring.load(Ordering::Acquire) > 0;
        let began = Instant::now();
        while has_it(&self.pulse.view()) {
            if began.elapsed() > REMOVAL_TIME_MAX {
                bail!("the heartbeat thread has not given slot {id} up: it does not keep up");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let plane = Arc::clone(&self.plane);
        tokio::task::spawn_blocking(move || {
            let mut plane = plane.lock().unwrap_or_else(PoisonError::into_inner);
            plane.as_mut().map_or(Ok(()), |plane| plane.remove_slot(id))
        })
        .await??;
        self.tell_end_of_slot(id, epoch, "removed");
        self.changed.notify_one();
        Ok(())
    }
}

/// Where a peer's datagrams go.
pub(in crate::element) fn paths_to(paths: &[Path]) -> Vec<PeerPath> {
    let path = |path: &Path| {
        Some(PeerPath {
            name: path.name.clone(),
            remote: path.datagram.parse().ok()?,
        })
    };
    paths.iter().filter_map(path).collect()
}

fn fault_of(outcome: anyhow::Result<()>) -> Option<String> {
    outcome.err().map(|error| format!("{error:#}"))
}
