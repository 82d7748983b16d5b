//! Whether the process before has left everything that is needed to go on, and what.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use prost::Message as _;
use vnfpool_config::ElementConfig;
use vnfpool_inheritance::{CellName, Memory};
use vnfpool_model::{PoolSpec, SlotId, SlotSpec, Time};
use vnfpool_succession::element::Element;
use vnfpool_wire::control::Configuration;

use super::{LAYOUT, Setup, of};
use crate::pulse::Keyring;

/// What is older is of no use: the pool has done without for long.
const AGE_MAX: Duration = Duration::from_secs(2);

/// Everything that the next process needs.
pub(in crate::element) struct Inherited {
    pub(in crate::element) setup: Setup,
    pub(in crate::element) configuration: Configuration,
    pub(in crate::element) keys: Keyring,
    pub(in crate::element) slots: Vec<InheritedSlot>,
    /// How long ago the process before has written last.
    pub(in crate::element) age: Duration,
}

/// A slot to go on with.
pub(in crate::element) struct InheritedSlot {
    /// Its gate.
    pub(in crate::element) index: u8,
    pub(in crate::element) id: SlotId,
    pub(in crate::element) spec: SlotSpec,
    pub(in crate::element) machine: Element,
}

/// What the process before has left; none if there was none.
///
/// # Errors
/// Why it cannot be used: all of it or nothing is taken.
pub(in crate::element) fn read(
    memory: &Memory,
    config: &ElementConfig,
    now: Time,
) -> anyhow::Result<Option<Inherited>> {
    let value = |name| memory.cell(name).and_then(|cell| cell.read());
    let Some(setup) = value(CellName::Setup) else {
        return Ok(None);
    };
    // The layout comes first in every version.
    let (layout, _) = postcard::take_from_bytes::<u32>(&setup)?;
    ensure!(
        layout == LAYOUT,
        "it was left by another version of the program"
    );
    let setup: Setup = postcard::from_bytes(&setup).context("what was configured")?;
    ensure!(setup.of == of(config), "it was left by another element");
    let configuration = Configuration::decode(&*setup.configuration)?;
    let pool: PoolSpec = serde_json::from_str(&configuration.pool)?;
    let keys = value(CellName::Keys).context("the keys are missing")?;
    let keys = Keyring::inherit(&keys).context("the keys")?;
    let mut slots = Vec::new();
    for index in 0..=u8::MAX {
        let Some(kept) = value(CellName::Slot(index)) else {
            continue;
        };
        let (id, machine): (SlotId, Element) =
            postcard::from_bytes(&kept).context("the state of a slot")?;
        let known = configuration.slots.iter().find(|slot| slot.id == id.0);
        let spec =
            known.and_then(|known| pool.slots.iter().find(|s| s.name.as_str() == known.name));
        let spec = spec.context("a slot is not configured any more")?.clone();
        ensure!(
            machine.settings().me.incarnation == setup.incarnation,
            "a slot is of another life"
        );
        slots.push(InheritedSlot {
            index,
            id,
            spec,
            machine,
        });
    }
    let newest = slots
        .iter()
        .map(|slot| slot.machine.newest_input_at())
        .max();
    let Some(newest) = newest else {
        return Ok(None);
    };
    if slots.len() != configuration.slots.len() {
        bail!("not every slot was left");
    }
    let age = now.since(newest);
    ensure!(age <= AGE_MAX, "it is {} ms old", age.as_millis());
    Ok(Some(Inherited {
        setup,
        configuration,
        keys,
        slots,
        age,
    }))
}
