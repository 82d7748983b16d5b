//! The blocks of ports that this element hands out, kept in the operator's ruleset (decision 0022).
//!
//! The map says at all times which block comes next if the slot comes here: a takeover writes
//! nothing. It changes when the slot has gone, while the gate is closed. What the kernel and the disk
//! take for that, a thread of its own waits for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use tokio::sync::{Notify, oneshot};
use vnfpool_linux::health::TableFamily;
use vnfpool_linux::nat_map::{self, VerdictMap};
use vnfpool_model::{BlockTurn, ElementId, NatMap, PortBlocks, SlotId};

use crate::pulse::guard;

/// How often the ruleset is looked at: an operator who loads it anew empties the map.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// Commands that may wait: some for each slot.
const COMMANDS_MAX: usize = 1_024;

/// Below the element's directory: a file for each slot.
const DIRECTORY: &str = "blocks";

/// The blocks of all slots.
#[derive(Debug)]
pub(crate) struct Blocks {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Rung when there is a fault.
    troubled: Notify,
}

#[derive(Debug, Default)]
struct State {
    in_map: BTreeMap<SlotId, u16>,
    fault: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
enum Command {
    Configure {
        id: SlotId,
        slot: String,
        blocks: Option<PortBlocks>,
        serves: bool,
        done: oneshot::Sender<anyhow::Result<()>>,
    },
    Role {
        id: SlotId,
        serves: bool,
    },
    Remove(SlotId),
}

impl Blocks {
    /// Starts the thread; `dir` is the element's directory.
    pub(crate) fn start(element: ElementId, dir: &Path) -> anyhow::Result<Self> {
        let (commands, taken) = sync_channel(COMMANDS_MAX);
        let shared = Arc::new(Shared::default());
        let keeper = Keeper {
            element,
            dir: dir.join(DIRECTORY),
            slots: BTreeMap::new(),
            generation: None,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("blocks".into())
            .spawn(move || guard::or_abort("blocks", || keeper.run(&taken)))
            .context("start the thread that keeps the port blocks")?;
        Ok(Self { commands, shared })
    }

    /// Has the map say the slot's block, before the slot can come here. `serves` if it is here
    /// already, served by another process of this life.
    ///
    /// # Errors
    /// The element has no blocks, or the ruleset no map for them: it cannot serve the slot.
    pub(crate) async fn configure(
        &self,
        id: SlotId,
        slot: String,
        blocks: Option<PortBlocks>,
        serves: bool,
    ) -> anyhow::Result<()> {
        let (done, is_done) = oneshot::channel();
        let command = Command::Configure {
            id,
            slot,
            blocks,
            serves,
            done,
        };
        let queued = self.commands.try_send(command);
        queued.map_err(|_| anyhow!("the thread that keeps the port blocks does not keep up"))?;
        is_done.await.context("the agent stops")?
    }

    /// The slot is served here now, or is not.
    pub(crate) fn tell_role(&self, id: SlotId, serves: bool) {
        self.tell(Command::Role { id, serves });
    }

    /// The slot is no longer ours; the map stays as it is.
    pub(crate) fn remove(&self, id: SlotId) {
        self.tell(Command::Remove(id));
    }

    fn tell(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::error!("the thread that keeps the port blocks does not keep up: {error}");
        }
    }

    /// The block of each slot that has some.
    pub(crate) fn in_map(&self) -> BTreeMap<SlotId, u16> {
        self.shared.state().in_map.clone()
    }

    /// Waits until the map cannot be kept any more, and says why.
    pub(crate) async fn trouble(&self) -> String {
        loop {
            if let Some(fault) = self.shared.state().fault.take() {
                return fault;
            }
            self.shared.troubled.notified().await;
        }
    }
}

/// A slot that has blocks.
struct Slot {
    name: String,
    blocks: PortBlocks,
    turn: BlockTurn,
}

struct Keeper {
    element: ElementId,
    dir: PathBuf,
    slots: BTreeMap<SlotId, Slot>,
    /// The ruleset's, when the maps were right.
    generation: Option<u32>,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(mut self, commands: &Receiver<Command>) {
        let mut watch_at = Instant::now() + WATCH_INTERVAL;
        loop {
            let left = watch_at.saturating_duration_since(Instant::now());
            match commands.recv_timeout(left) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.watch();
                    watch_at = Instant::now() + WATCH_INTERVAL;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Configure {
                id,
                slot,
                blocks,
                serves,
                done,
            } => {
                let outcome = match blocks {
                    Some(blocks) => self.configure(id, slot, blocks, serves),
                    None => {
                        self.remove(id);
                        Ok(())
                    }
                };
                // Nobody waits for it when the agent stops.
                let _ = done.send(outcome);
            }
            Command::Role { id, serves } => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    let turn = slot.turn.with_role(serves);
                    if std::mem::replace(&mut slot.turn, turn) != turn {
                        self.keep(id);
                        self.write_or_tell(id);
                    }
                }
            }
            Command::Remove(id) => self.remove(id),
        }
    }

    fn configure(
        &mut self,
        id: SlotId,
        name: String,
        blocks: PortBlocks,
        serves: bool,
    ) -> anyhow::Result<()> {
        if let Some(known) = self.slots.get_mut(&id) {
            known.blocks = blocks;
        } else {
            let turn = BlockTurn::begin(self.stored(&name), serves);
            self.slots.insert(id, Slot { name, blocks, turn });
            self.keep(id);
        }
        self.write(id)
    }

    fn remove(&mut self, id: SlotId) {
        self.slots.remove(&id);
        self.shared.state().in_map.remove(&id);
    }

    /// Has the map say what it should, if it does not.
    fn write(&self, id: SlotId) -> anyhow::Result<()> {
        let Some(slot) = self.slots.get(&id) else {
            return Ok(());
        };
        let Some(block) = slot.blocks.block(&self.element, slot.turn.number) else {
            bail!(
                "this element has no port blocks of the slot '{}': add '{}' to \
                 port_blocks.elements in the pool's file",
                slot.name,
                self.element
            );
        };
        let (map, chain) = (verdict_map(&slot.blocks.map)?, slot.blocks.map.chain(block));
        let found = map.goes_to()?;
        if found.as_ref() != Some(&chain) {
            map.go_to(&chain)?;
            let before = found.as_deref().unwrap_or("nothing");
            tracing::info!(slot = slot.name, block, before, "the port block is set");
        }
        self.shared.state().in_map.insert(id, block);
        Ok(())
    }

    fn write_or_tell(&self, id: SlotId) -> bool {
        let Err(error) = self.write(id) else {
            return true;
        };
        let mut state = self.shared.state();
        // What is in the map now is nobody's business any more.
        state.in_map.remove(&id);
        state.fault = Some(format!("{error:#}"));
        drop(state);
        self.shared.troubled.notify_one();
        false
    }

    /// Looks at the maps if anybody has changed the ruleset.
    fn watch(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        // Without an answer the maps are looked at, and say what is wrong.
        let generation = nat_map::generation().ok();
        if generation.is_some() && generation == self.generation {
            return;
        }
        let ids: Vec<_> = self.slots.keys().copied().collect();
        let right = ids.into_iter().all(|id| self.write_or_tell(id));
        // What is wrong is looked at again; what was written now is another generation.
        self.generation = generation.filter(|_| right);
    }

    fn file(&self, slot: &str) -> PathBuf {
        self.dir.join(slot)
    }

    fn stored(&self, slot: &str) -> Option<BlockTurn> {
        let path = self.file(slot);
        let read = match std::fs::read_to_string(&path) {
            Ok(word) => word.parse().map_err(anyhow::Error::from),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.into()),
        };
        let read = read.inspect_err(|error| {
            tracing::error!(
                "{} says no turn, the blocks begin with the first one: {error:#}",
                path.display()
            );
        });
        read.ok()
    }

    /// Brings the turn to the disk. If that fails, the next life may take the same block again, and
    /// this one goes on.
    fn keep(&self, id: SlotId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let path = self.file(&slot.name);
        if let Err(error) = replace(&self.dir, &path, &slot.turn.to_word()) {
            tracing::error!(
                "cannot write {}, ports may be handed out again after a restart: {error}",
                path.display()
            );
        }
    }
}

fn replace(dir: &Path, path: &Path, word: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    // No slot is called so.
    let new = dir.join("+new");
    let mut file = File::create(&new)?;
    writeln!(file, "{word}")?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(dir)?.sync_all()
}

fn verdict_map(map: &NatMap) -> anyhow::Result<VerdictMap> {
    let family = match map.family.as_str() {
        "inet" => TableFamily::Inet,
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        other => bail!("'{other}' is no family of a map for port blocks"),
    };
    Ok(VerdictMap {
        family,
        table: map.table.clone(),
        name: map.name.clone(),
    })
}
