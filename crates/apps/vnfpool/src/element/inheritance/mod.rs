//! What a process of this agent leaves to the next one of the same life, so that its death moves
//! nothing: the machines, the keys of datagrams, and what the manager configured.
//!
//! ```text
//!  supervisor --starts--> process 1      killed, or replaced by a new version
//!      |                     | writes
//!      +---- memory ---------+
//!      |                     | reads, and goes on within the lease
//!      +---------starts--> process 2
//! ```
//!
//! Only a supervisor (`vnfpool element supervise`) hands the memory on, and it starts the next
//! process when the former one is dead: so there is one writer, and the gate, which the kernel keeps,
//! has one master. For succession the agent was frozen for a moment. Whenever anything is missing,
//! too old or not understood, a new life begins, which closes its gates first (R1).

mod reading;

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;

use anyhow::bail;
use serde::{Deserialize, Serialize};
use vnfpool_config::ElementConfig;
use vnfpool_heartbeat::{PathSpec, Paths};
use vnfpool_inheritance::{Anchor, BUNDLE_MAX, Cell, CellName, Memory};
use vnfpool_model::{Incarnation, SlotId};
use vnfpool_succession::element::Element;
use vnfpool_transport::quic::Continuity;
use vnfpool_wire::datagram::NodeId;

pub(super) use self::reading::{Inherited, read};

/// The descriptors of memory and anchor, for the processes that a supervisor starts.
pub(crate) const VARIABLE: &str = "VNFPOOL_INHERITANCE";

/// The bundle of the sockets of datagrams; what is after the name is what they are bound to.
const PATHS: &str = "paths ";

/// Bundles of sockets that are slow to close.
const SLOW: &str = "slow";

/// Changes with everything that is written down: a program that writes another layout begins a new
/// life. The test below says when that has happened.
const LAYOUT: u32 = 2;

/// The longest form of a machine.
const MACHINE_BYTES_MAX: usize = 8 * 1024 - 64;

/// What changes seldom.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Setup {
    layout: u32,
    /// Pool, element and directory: another configuration file is another element.
    of: String,
    pub(super) incarnation: Incarnation,
    pub(super) node: NodeId,
    /// Where the manager's datagrams go.
    pub(super) manager: String,
    /// The manager's newest [`vnfpool_wire::control::Configuration`].
    pub(super) configuration: Vec<u8>,
    continuity: [u8; 32],
}

impl Setup {
    /// Knows the connections of the process before.
    pub(super) const fn continuity(&self) -> Continuity {
        Continuity(self.continuity)
    }
}

/// What a supervisor hands from process to process.
#[derive(Clone, Debug)]
pub(crate) struct Estate {
    pub(super) memory: Memory,
    anchor: Arc<Anchor>,
}

impl Estate {
    /// What this process was handed; none without a supervisor.
    ///
    /// # Errors
    /// The variable names nothing of the kind.
    pub(super) fn inherit() -> anyhow::Result<Option<Self>> {
        let Ok(text) = std::env::var(VARIABLE) else {
            return Ok(None);
        };
        let numbers: Vec<RawFd> = text.split(',').filter_map(|n| n.parse().ok()).collect();
        let [memory, send, receive] = numbers[..] else {
            bail!("{VARIABLE}={text} does not name three descriptors");
        };
        Ok(Some(Self {
            memory: Memory::inherit(memory)?,
            anchor: Arc::new(Anchor::inherit([send, receive])?),
        }))
    }

    /// The sockets of datagrams that the process before has left, if they are bound as `specs`
    /// want it. What else it has left is closed, which takes its time.
    pub(super) fn take_paths(&self, specs: &[PathSpec]) -> Option<Paths> {
        let wanted = format!("{PATHS}{}", text_of(specs));
        let bundles = self.anchor.take_all().into_iter();
        // Those of datagrams are closed here if they are not wanted: they would be in the way.
        let (paths, slow): (Vec<_>, Vec<_>) = bundles.partition(|b| b.name.starts_with(PATHS));
        // Without a thread the others are, too.
        let _ = std::thread::Builder::new().spawn(move || drop(slow));
        let newest = paths.into_iter().rfind(|bundle| bundle.name == wanted)?;
        Paths::adopt(specs, newest.descriptors)
    }

    /// Leaves the sockets of datagrams to the next process: what comes meanwhile waits in them.
    pub(super) fn hold_paths(&self, specs: &[PathSpec], paths: &Paths) {
        let name = format!("{PATHS}{}", text_of(specs));
        let sockets: Vec<_> = paths.fds().collect();
        if let Err(error) = self.anchor.hold(&name, &sockets) {
            tracing::warn!(%error, "datagrams are lost when this agent is replaced");
        }
    }

    /// Keeps sockets open that are slow to close, beyond the end of this process: it would hold up
    /// the next one.
    pub(super) fn hold_slow(&self, sockets: &[BorrowedFd<'_>]) {
        for bundle in sockets.chunks(BUNDLE_MAX) {
            if let Err(error) = self.anchor.hold(SLOW, bundle) {
                tracing::debug!(%error, "a replacement of this agent takes longer");
            }
        }
    }
}

/// What sockets are bound to.
fn text_of(specs: &[PathSpec]) -> String {
    let one = |spec: &PathSpec| {
        let interface = spec.interface.as_deref().unwrap_or_default();
        format!("{}={}%{interface}", spec.name, spec.local)
    };
    specs.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Keeps the machine of a slot, until it is dropped: a slot that is given up, an agent that stops in
/// order and a thread that panics leave nothing to go on with. (A process that is killed drops
/// nothing.)
#[derive(Debug)]
pub(crate) struct MachineKeeper(Cell);

impl MachineKeeper {
    pub(super) const fn new(cell: Cell) -> Self {
        Self(cell)
    }

    /// Replaces what was kept.
    pub(super) fn keep(&mut self, id: SlotId, machine: &Element) {
        let mut bytes = [0; MACHINE_BYTES_MAX];
        let kept = postcard::to_slice(&(id, machine), &mut bytes);
        if !kept.is_ok_and(|bytes| self.0.write(bytes).is_ok()) {
            // Rather nothing than what is not true any more: the next process begins a new life.
            self.0.clear();
        }
    }
}

impl Drop for MachineKeeper {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// Writes down what the manager configured.
pub(super) struct SetupKeeper {
    cell: Option<Cell>,
    of: String,
    incarnation: Incarnation,
    continuity: [u8; 32],
}

impl SetupKeeper {
    /// Keeps nothing without memory.
    pub(super) fn new(
        estate: Option<&Estate>,
        config: &ElementConfig,
        incarnation: Incarnation,
        Continuity(continuity): Continuity,
    ) -> Self {
        Self {
            cell: estate.and_then(|estate| estate.memory.cell(CellName::Setup)),
            of: of(config),
            incarnation,
            continuity,
        }
    }

    /// Replaces what was kept.
    pub(super) fn keep(&mut self, node: NodeId, manager: String, configuration: Vec<u8>) {
        let Some(cell) = &mut self.cell else { return };
        let setup = Setup {
            layout: LAYOUT,
            of: self.of.clone(),
            incarnation: self.incarnation,
            node,
            manager,
            configuration,
            continuity: self.continuity,
        };
        match postcard::to_allocvec(&setup).map(|bytes| cell.write(&bytes)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a restart of this agent will move its slots"),
            Err(error) => tracing::warn!(%error, "a restart of this agent will move its slots"),
        }
    }

    /// Nothing is configured here any more.
    pub(super) fn forget(&mut self) {
        if let Some(cell) = &mut self.cell {
            cell.clear();
        }
    }
}

impl std::fmt::Debug for SetupKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetupKeeper")
            .field("of", &self.of)
            .field("keeps", &self.cell.is_some())
            .finish_non_exhaustive()
    }
}

fn of(config: &ElementConfig) -> String {
    format!(
        "{} {} {}",
        config.pool,
        config.element,
        config.dir.display()
    )
}

#[cfg(test)]
mod tests;
