//! The pace of each slot with `lease = "auto"`: elements report silences, a pacer for each slot says
//! what lease they ask for.

use std::collections::BTreeMap;

use vnfpool_model::{LeaseBounds, Pace, SlotId};
use vnfpool_pacing::{Advice, Pacer};
use vnfpool_wire::control::SlotReport;
use vnfpool_wire::datagram::Record;

use crate::pulse::now;

/// The pacers, and the pace that each slot's machine was told last.
#[derive(Debug, Default)]
pub(super) struct Paces(BTreeMap<SlotId, (Pacer, Pace)>);

impl Paces {
    /// A slot begins, or goes on, at `pace`; within its bounds, which is what is returned.
    pub(super) fn begin(&mut self, slot: SlotId, bounds: LeaseBounds, pace: Pace) -> Pace {
        let pacer = Pacer::new(bounds, pace, now());
        let pace = pacer.advice(now()).pace;
        self.0.insert(slot, (pacer, pace));
        pace
    }

    pub(super) fn remove(&mut self, slot: SlotId) {
        self.0.remove(&slot);
    }

    /// Takes what a member reports of slots with these records; returns the slots for which another
    /// pace is better now.
    pub(super) fn observe(&mut self, reports: &[(Record, SlotReport)]) -> Vec<(SlotId, Pace)> {
        let mut news = Vec::new();
        for (record, report) in reports {
            let Some((pacer, told)) = self.0.get_mut(&SlotId(report.id)) else {
                continue;
            };
            let excess = std::time::Duration::from_micros(report.silence_excess_us);
            let pace = pacer.observe(now(), excess, record.pace);
            if pace != *told {
                *told = pace;
                news.push((SlotId(report.id), pace));
            }
        }
        news
    }

    /// Why a slot has its pace; none where the operator chose it.
    pub(super) fn advice(&self, slot: SlotId) -> Option<Advice> {
        self.0.get(&slot).map(|(pacer, _)| pacer.advice(now()))
    }
}
