//! Going on where another process of this life has ended: first the leases, then everything else.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use vnfpool_config::ElementConfig;
use vnfpool_heartbeat::{PathSpec, Paths, PeerPath};
use vnfpool_inheritance::CellName;
use vnfpool_wire::datagram::NodeId;

use super::MANAGER_PATH;
use super::agent::{self, Agent};
use super::inheritance::{self, Estate, Inherited};
use super::plane::DataPlane;
use super::pulse::Command;
use crate::pulse::{Keyring, now};

/// What another process of this life has left, and its gate; none if a new life has to begin.
pub(super) fn resume(
    config: &ElementConfig,
    estate: Option<&Estate>,
) -> Option<(DataPlane, Inherited)> {
    let estate = estate?;
    let outcome = inheritance::read(&estate.memory, config, now()).and_then(|inherited| {
        let Some(inherited) = inherited else {
            return Ok(None);
        };
        let plane = DataPlane::resume(config, estate.clone())?;
        Ok(Some((plane, inherited)))
    });
    match outcome {
        Ok(Some(resumed)) => return Some(resumed),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!("cannot go on with what the process before has left: {error:#}");
        }
    }
    estate.memory.forget();
    None
}

/// The keys of datagrams: those of the process before, or none; kept for the next one.
pub(super) fn open_keys(estate: Option<&Estate>, inherited: Option<&mut Inherited>) -> Keyring {
    let mut keys = inherited
        .map(|i| std::mem::take(&mut i.keys))
        .unwrap_or_default();
    if let Some(cell) = estate.and_then(|estate| estate.memory.cell(CellName::Keys)) {
        keys.keep_in(cell);
    }
    keys
}

/// The sockets of datagrams: those of the process before, or new ones.
pub(super) fn open_paths(
    specs: &[PathSpec],
    estate: Option<&Estate>,
    inherits: bool,
) -> anyhow::Result<Paths> {
    // Taken in any case: as long as they are held, nobody else can be bound as they are.
    let left = estate.and_then(|estate| estate.take_paths(specs));
    let paths = match left.filter(|_| inherits) {
        Some(paths) => paths,
        None => Paths::bind(specs).context("another agent may be running here")?,
    };
    if let Some(estate) = estate {
        estate.hold_paths(specs, &paths);
    }
    Ok(paths)
}

/// What the thread that renews leases has to begin with, before it looks at its sockets: what
/// waits there is about these slots.
pub(super) fn take_up(
    plane: &Mutex<Option<DataPlane>>,
    inherited: &Inherited,
) -> anyhow::Result<Vec<Command>> {
    let mut plane = plane.lock().unwrap_or_else(PoisonError::into_inner);
    let plane = plane.as_mut().context("the agent stops")?;
    let manager = PeerPath {
        name: MANAGER_PATH.to_owned(),
        remote: inherited
            .setup
            .manager
            .parse()
            .context("the manager's address")?,
    };
    let mut commands = vec![Command::Reach {
        node: NodeId::MANAGER,
        paths: vec![manager],
    }];
    for peer in &inherited.configuration.peers {
        commands.push(Command::Reach {
            node: NodeId(peer.node),
            paths: agent::paths_to(&peer.paths),
        });
    }
    for slot in &inherited.slots {
        let (fence, kept) = plane.take_up(slot.id, slot.index)?;
        commands.push(Command::ResumeSlot {
            id: slot.id,
            machine: Box::new(slot.machine.clone()),
            fence,
            kept,
        });
    }
    Ok(commands)
}

/// Everything that a slot can do without for a moment: devices, sockets, names, connections.
pub(super) async fn furnish(agent: &Arc<Agent>, inherited: Inherited) -> anyhow::Result<()> {
    // Peers may call from now on: the copy of service state grows older meanwhile.
    agent.resume_peers(&inherited.setup, &inherited.configuration);
    if inherited.slots.iter().all(|slot| slot.machine.able()) {
        agent.inherit_able();
    }
    let mut names = Vec::new();
    {
        let mut plane = agent.plane.lock().unwrap_or_else(PoisonError::into_inner);
        let plane = plane.as_mut().context("the agent stops")?;
        for slot in &inherited.slots {
            let furniture = plane.furnish(slot.id, &slot.spec)?;
            agent.pulse.send(Command::Furnish {
                id: slot.id,
                furniture,
            });
            names.push((slot.id, slot.spec.name.to_string()));
        }
    }
    tracing::warn!(
        slots = names.len(),
        left_ms_ago = inherited.age.as_millis(),
        "the agent goes on where another process of this life has ended"
    );
    agent.resume(inherited.configuration, names).await;
    Ok(())
}
