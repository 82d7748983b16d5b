//! The worlds that are explored: what each may do, and how often.

use vnfpool_model::OnQuorumLoss;

use crate::clock::NODES_MAX;
use crate::world::{Cut, KINDS, Kind, Start, World, both, link};

/// Links between A, B and M, in each direction and whole; and each node cut off.
const CUTS: &[Cut] = &[
    cut("A>B", link(1, 2)),
    cut("B>A", link(2, 1)),
    cut("A-B", both(1, 2)),
    cut("A>M", link(1, 0)),
    cut("M>A", link(0, 1)),
    cut("A-M", both(1, 0)),
    cut("B>M", link(2, 0)),
    cut("M>B", link(0, 2)),
    cut("B-M", both(2, 0)),
    cut("M alone", both(0, 1) | both(0, 2) | both(0, 3)),
];

const fn cut(name: &'static str, links: u16) -> Cut {
    Cut {
        name,
        links,
        isolates: None,
    }
}

/// What the worlds have in common: A serves, B is armed, nothing happens.
const BASE: World = World {
    name: "",
    about: "",
    elements: 2,
    lease: 3,
    manager_lease: 6,
    on_quorum_loss: OnQuorumLoss::Stop,
    start: Start::Armed,
    caps: [0; KINDS],
    disturbances: 0,
    late_ticks: 4,
    late_max: 1,
    any_order: true,
    gossip: false,
    eager_arming: true,
    drift_ppm: [0; NODES_MAX],
    cuts: CUTS,
    mutation: None,
};

/// Every world, the smallest first.
#[must_use]
pub fn all() -> Vec<World> {
    vec![
        World {
            name: "calm",
            about: "nothing goes wrong",
            ..BASE
        },
        World {
            name: "one",
            about: "one disturbance of any kind",
            disturbances: 1,
            caps: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
            ..BASE
        },
        World {
            name: "messages-2",
            about: "two letters lost, late or doubled",
            disturbances: 2,
            ..BASE
        }
        .with(Kind::Lose, 2)
        .with(Kind::Hold, 2)
        .with(Kind::Double, 2),
        World {
            name: "two",
            about: "two disturbances of any kind",
            disturbances: 2,
            caps: [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 0],
            ..BASE
        },
    ]
}
