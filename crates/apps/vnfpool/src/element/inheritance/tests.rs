#![allow(clippy::unwrap_used, reason = "tests")]

use vnfpool_inheritance::{CellName, Memory};
use vnfpool_model::{Incarnation, OnQuorumLoss, SlotId, Time, Timing};
use vnfpool_succession::element::{Element, Input, Settings};
use vnfpool_wire::datagram::{Info, Member, Message, NodeId, Record, Token};

use super::{LAYOUT, MachineKeeper, Setup};

fn member(node: u32) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(7),
    }
}

/// A machine that has something in most of its fields.
fn machine() -> Element {
    let settings = Settings {
        me: member(1),
        timing: Timing::DEFAULT,
        lease_ms_max: Timing::DEFAULT.lease_ms,
        on_quorum_loss: OnQuorumLoss::Serve,
    };
    let mut machine = Element::new(settings, Time(1_000));
    let record = Record {
        term: 3,
        first: member(1),
        second: Some(member(2)),
        pace: Timing::DEFAULT.pace(),
    };
    let token = Token {
        boot: 2,
        clock: Time(77),
    };
    let info = Message::Info(Info {
        record: Some(record),
        token,
        echo: Time(1_500),
        grant: true,
    });
    let mut out = Vec::new();
    for input in [
        Input::Peer {
            node: NodeId(2),
            present: true,
        },
        Input::WitnessLans(Some(2)),
        Input::Witness { lan: 1 },
        Input::Able(true),
        Input::Received {
            from: NodeId::MANAGER,
            message: info,
        },
        Input::InSync {
            peer: member(2),
            as_of: Some(Time(1_800)),
        },
    ] {
        machine.handle(Time(2_000), input, &mut out);
    }
    machine
}

/// Goal: a program never takes the memory of another layout for its own. Method: the bytes of a
/// machine and of the set-up are those of the layout with this number. If this fails, what is kept
/// has changed: raise [`LAYOUT`] and take the new lengths and sums.
#[test]
fn the_layout_has_not_changed_without_its_number() {
    let machine = postcard::to_allocvec(&(SlotId(5), machine())).unwrap();
    let setup = Setup {
        layout: LAYOUT,
        of: "edge gw1 /var/lib/vnfpool/element".to_owned(),
        incarnation: Incarnation(7),
        node: NodeId(1),
        manager: "10.9.0.10:7401".to_owned(),
        configuration: vec![1, 2, 3],
        continuity: [9; 32],
    };
    let setup = postcard::to_allocvec(&setup).unwrap();
    let sum = |bytes: &[u8]| {
        let step = |sum: u32, byte: &u8| sum.wrapping_mul(31).wrapping_add(u32::from(*byte));
        (bytes.len(), bytes.iter().fold(0, step))
    };
    assert_eq!(
        (LAYOUT, sum(&machine), sum(&setup)),
        (2, (99, 2_396_855_860), (88, 2_091_739_921))
    );
}

/// Goal: what is kept is there for the next process, and only when this one was killed.
#[test]
fn a_machine_is_kept_until_its_keeper_is_dropped() {
    let memory = Memory::adopt(Memory::create().unwrap()).unwrap();
    let cell = memory.cell(CellName::Slot(0)).unwrap();
    let mut keeper = MachineKeeper::new(cell);
    keeper.keep(SlotId(5), &machine());
    // A killed process drops nothing.
    let kept = keeper.0.read().unwrap();
    let (id, again): (SlotId, Element) = postcard::from_bytes(&kept).unwrap();
    assert_eq!((id, again.epoch()), (SlotId(5), machine().epoch()));
    drop(keeper);
    assert_eq!(memory.cell(CellName::Slot(0)).unwrap().read(), None);
}
