//! What `vnfpool status --json` says about the demonstrated pool.

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::namespaces::Gateway;

/// The state of the pool's only slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotState {
    pub(super) active: Option<Gateway>,
    pub(super) armed: bool,
    /// Whether this life of the manager hears both elements. The record on disk may name a pair
    /// that a restarted manager has not heard from yet.
    pub(super) both_heard: bool,
    /// Who is not armed because it flapped.
    pub(super) quarantined: Vec<Gateway>,
    /// For messages to people.
    pub(super) text: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    pools: Vec<Pool>,
}

#[derive(Deserialize)]
struct Pool {
    handle: String,
    #[serde(default)]
    slots: Vec<Slot>,
    #[serde(default)]
    elements: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    #[serde(default)]
    id: String,
    #[serde(default)]
    quarantines: Vec<Quarantine>,
    #[serde(default)]
    last_heard_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Quarantine {
    until: String,
}

/// Elements speak each heartbeat; this is far more, and far less than it takes to lose one.
const HEARD_MS: u64 = 500;

#[derive(Deserialize)]
struct Slot {
    #[serde(default)]
    epoch: Option<String>,
    #[serde(default)]
    active: Option<String>,
    #[serde(default)]
    standby: Option<String>,
    #[serde(default)]
    armed: bool,
}

/// Reads the answer for pool `edge`.
///
/// # Errors
/// When it is not the expected JSON or has no such pool.
pub(super) fn parse(json: &str) -> Result<SlotState> {
    let status: Status =
        serde_json::from_str(json).context("reading the output of `vnfpool status --json`")?;
    let Some(pool) = status.pools.into_iter().find(|pool| pool.handle == "edge") else {
        bail!("the manager does not know pool edge");
    };
    let heard = pool
        .elements
        .iter()
        .filter(|element| element.last_heard_ms.is_some_and(|age| age <= HEARD_MS))
        .count();
    let Some(slot) = pool.slots.into_iter().next() else {
        bail!("pool edge has no slot");
    };
    let quarantines = pool
        .elements
        .iter()
        .flat_map(|element| element.quarantines.iter().map(move |q| (&element.id, q)));
    let quarantines: Vec<_> = quarantines.collect();
    let told = quarantines
        .iter()
        .map(|(id, quarantine)| format!(", {id} in quarantine until {}", quarantine.until));
    let told: String = told.collect();
    let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "nobody".to_owned());
    Ok(SlotState {
        active: slot.active.as_deref().and_then(Gateway::from_name),
        armed: slot.armed,
        both_heard: heard == Gateway::BOTH.len(),
        quarantined: quarantines
            .iter()
            .filter_map(|(id, _)| Gateway::from_name(id))
            .collect(),
        text: format!(
            "epoch {}, active {}, standby {}{}, the manager hears {heard} elements{told}",
            slot.epoch.as_deref().unwrap_or("?"),
            named(&slot.active),
            named(&slot.standby),
            if slot.armed { ", armed" } else { ", not armed" }
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_the_pool_is_found() {
        let state = parse(
            r#"{"pools":[{"handle":"other","slots":[]},{"handle":"edge","slots":[
                {"name":"main","epoch":"3.1","active":"gw2","standby":"gw1","armed":true,"new":1}
            ],"elements":[{"id":"gw1","last_heard_ms":3,"quarantines":[{"slot":"main","until":"soon"}]},{"id":"gw2","last_heard_ms":9000}]}]}"#,
        )
        .unwrap();
        assert_eq!(state.active, Some(Gateway::Gw2));
        assert!(state.armed && !state.both_heard);
        assert_eq!(state.quarantined, [Gateway::Gw1]);
        let text = "epoch 3.1, active gw2, standby gw1, armed, the manager hears 1 elements, \
                    gw1 in quarantine until soon";
        assert_eq!(state.text, text);
    }

    #[test]
    fn a_slot_without_active_is_not_an_error_but_a_missing_pool_is() {
        let none = r#"{"pools":[{"handle":"edge","slots":[{"active":null,"armed":false}]}]}"#;
        assert_eq!(parse(none).unwrap().active, None);
        assert!(parse(r#"{"pools":[]}"#).is_err());
        assert!(parse("no json").is_err());
    }
}
