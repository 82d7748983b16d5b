//! What people hear of quarantines (docs/succession.md, R11), and the operator's word that ends one.

use jiff::Timestamp;
use vnfpool_model::{PoolHandle, SlotId, SlotName, Time};
use vnfpool_northbound::{Code, PardonRequest, Problem, QuarantineStatus};
use vnfpool_succession::manager::{Input, Quarantined, Release};
use vnfpool_transport::Identity;
use vnfpool_wire::datagram::NodeId;

use super::operations::no_pool;
use super::pulse::{Command, View};
use super::registry::{PoolRecord, Registry};
use super::shared::{Names, Shared};
use crate::pulse::now;

impl Names<'_> {
    /// What happened and why, when a quarantine begins.
    pub(super) fn quarantined(&self, who: Quarantined) -> (String, String) {
        let name = self.node(who.node);
        let text = format!("{name} is in quarantine: it is not armed for now");
        (text, reason(&who))
    }

    /// What happened and why, when a quarantine is over.
    pub(super) fn released(&self, node: NodeId, cause: Release) -> (String, String) {
        let reason = match cause {
            Release::Probation => "it was heard, able and in sync for long enough",
            Release::TooLong => "it is not steady, but a pool needs a successor",
            Release::Operator => "the operator gave it a clean slate",
        };
        let text = format!("the quarantine of {} is over", self.node(node));
        (text, reason.to_owned())
    }
}

impl Registry {
    /// Whether `node` may not be armed in this slot now.
    pub(super) fn is_quarantined(view: &View, slot: SlotId, node: NodeId) -> bool {
        let slot = view.slots.get(&slot);
        slot.is_some_and(|slot| slot.quarantined.iter().any(|q| q.node == node))
    }
}

impl Shared {
    /// Gives an element a clean slate in all slots of its pool, in quarantine or not.
    pub(super) fn pardon(
        &self,
        pool: &PoolHandle,
        request: &PardonRequest,
        by: &Identity,
    ) -> Result<(), Problem> {
        let element = &request.element;
        let Some(record) = self.pool(pool) else {
            return Err(no_pool(pool));
        };
        let Some(node) = self.registry().node_of(pool, element) else {
            let text = format!("pool {pool} has no element {element}");
            return Err(Problem::new(Code::ElementUnknown, text));
        };
        for slot in record.slots.values() {
            self.pulse.send(Command::Input {
                slot: *slot,
                input: Input::Pardoned(node),
            });
        }
        let text = format!("{element} has a clean slate, by the operator's word");
        self.record("pardoned", &by.to_string(), pool, None, text);
        Ok(())
    }
}

/// The quarantines of an element of `pool`.
pub(super) fn status(view: &View, pool: &PoolRecord, node: NodeId) -> Vec<QuarantineStatus> {
    let at = now();
    let of_slot = |(name, id): (&SlotName, &SlotId)| {
        let slot = view.slots.get(id)?;
        let who = slot.quarantined.iter().find(|q| q.node == node)?;
        Some(QuarantineStatus {
            slot: name.clone(),
            reason: reason(who),
            until: wall_clock(at, who.until),
            at_latest: wall_clock(at, who.at_latest),
        })
    };
    pool.slots.iter().filter_map(of_slot).collect()
}

/// Why an element is in quarantine.
fn reason(who: &Quarantined) -> String {
    let seconds = who.within.as_secs().max(1);
    format!("it lost its place {} times within {seconds} s", who.losses)
}

/// What the wall clock will say then, to a second.
fn wall_clock(at: Time, then: Time) -> Timestamp {
    let seconds = i64::try_from(then.since(at).as_secs()).unwrap_or(i64::MAX);
    let second = Timestamp::now().as_second().saturating_add(seconds);
    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::sync::mpsc;
    use vnfpool_config::PoolFile;
    use vnfpool_model::{ElementId, Epoch, Incarnation, Timing};
    use vnfpool_wire::control::{ElementReport, Hello};
    use vnfpool_wire::datagram::{Member, Record};

    use super::*;
    use crate::manager::pulse::SlotView;
    use crate::manager::registry::{Element, Live};

    const SLOT: SlotId = SlotId(1);

    /// A pool whose slot is served by gw1 alone; gw2 and gw3 are able.
    fn registry() -> (PoolHandle, Registry) {
        let text = "[pool]\nhandle = \"edge\"\nfunction = \"nat\"\n[[slot]]\nname = \"main\"\n\
                    [[slot.address]]\naddress = \"10.1.0.254/24\"\nlan = \"inside\"\nvrid = 11\n";
        let spec = PoolFile::parse(text, "pool.toml").unwrap();
        let handle = spec.handle.clone();
        let slots = BTreeMap::from([("main".parse().unwrap(), SLOT)]);
        let mut registry = Registry::default();
        let pool = PoolRecord { spec, slots };
        registry.pools.insert(handle.clone(), pool);
        for node in 1..=3 {
            let name = format!("gw{node}");
            let mut element = Element::new(NodeId(node));
            element.live = Some(Live {
                connection: 1,
                hello: Hello {
                    host: name.clone(),
                    ..Hello::default()
                },
                report: ElementReport {
                    able: true,
                    ..ElementReport::default()
                },
                outbox: mpsc::channel(1).0,
                replaced: mpsc::channel(1).0,
                configuration: None,
            });
            let id: ElementId = name.parse().unwrap();
            registry.elements.insert((handle.clone(), id), element);
        }
        (handle, registry)
    }

    fn view(quarantined: &[u32]) -> View {
        let first = Member {
            node: NodeId(1),
            incarnation: Incarnation(1),
        };
        let at = now();
        let who = |node: &u32| Quarantined {
            node: NodeId(*node),
            losses: 4,
            within: std::time::Duration::from_millis(9_500),
            until: at.after(std::time::Duration::from_secs(100)),
            at_latest: at.after(std::time::Duration::from_secs(280)),
        };
        let slot = SlotView {
            record: Some(Record {
                term: 3,
                first,
                second: None,
                pace: Timing::DEFAULT.pace(),
            }),
            epoch: Epoch { term: 3, turn: 0 },
            active: Some(first),
            quarantined: quarantined.iter().map(who).collect(),
            ..SlotView::default()
        };
        View {
            slots: BTreeMap::from([(SLOT, slot)]),
            ..View::default()
        }
    }

    /// Goal: the active feeds somebody who may be armed, if there is one; else whoever is in quarantine,
    /// since it has to be in sync for its probation.
    #[test]
    fn who_is_quarantined_is_fed_last() {
        let (handle, registry) = registry();
        let candidate = |quarantined: &[u32]| {
            let view = view(quarantined);
            registry.candidate(&handle, SLOT, &view).0
        };
        assert_eq!(candidate(&[]), 2);
        assert_eq!(candidate(&[2]), 3);
        assert_eq!(candidate(&[2, 3]), 2);
    }

    #[test]
    fn status_says_why_and_until_when() {
        let (handle, registry) = registry();
        let pool = &registry.pools[&handle];
        assert_eq!(status(&view(&[2]), pool, NodeId(3)), []);
        let of_gw2 = status(&view(&[2]), pool, NodeId(2));
        assert_eq!(of_gw2[0].slot.to_string(), "main");
        assert_eq!(of_gw2[0].reason, "it lost its place 4 times within 9 s");
        let between = of_gw2[0].at_latest.as_second() - of_gw2[0].until.as_second();
        assert_eq!(between, 180);
    }
}
