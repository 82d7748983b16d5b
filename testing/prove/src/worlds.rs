//! The worlds that are explored: what each may do, and how often.

mod broken;

use vnfpool_model::OnQuorumLoss;

use crate::clock::NODES_MAX;
pub use broken::broken;

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
    cut("A-M, M>B", both(1, 0) | link(0, 2)),
    cut("M alone", both(0, 1) | both(0, 2) | both(0, 3)),
    isolated("A alone", 1, both(1, 0) | both(1, 2) | both(1, 3)),
    isolated("B alone", 2, both(2, 0) | both(2, 1) | both(2, 3)),
];

/// The same with a spare C.
const CUTS_OF_THREE: &[Cut] = &[
    cut("A>B", link(1, 2)),
    cut("B>A", link(2, 1)),
    cut("A-B", both(1, 2)),
    cut("A>M", link(1, 0)),
    cut("M>A", link(0, 1)),
    cut("A-M", both(1, 0)),
    cut("B-M", both(2, 0)),
    cut("M alone", both(0, 1) | both(0, 2) | both(0, 3)),
    isolated("A alone", 1, both(1, 0) | both(1, 2) | both(1, 3)),
    isolated("B alone", 2, both(2, 0) | both(2, 1) | both(2, 3)),
    cut(
        "{A, B} | {M, C}",
        both(1, 0) | both(2, 0) | both(1, 3) | both(2, 3),
    ),
];

const fn cut(name: &'static str, links: u16) -> Cut {
    Cut {
        name,
        links,
        isolates: None,
    }
}

const fn isolated(name: &'static str, node: usize, links: u16) -> Cut {
    Cut {
        name,
        links,
        isolates: Some(node),
    }
}

/// What the worlds have in common: A serves, B is armed, nothing happens.
const BASE: World = World {
    name: "calm",
    about: "nothing goes wrong",
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

/// The last of three may serve: gossip and witnesses decide.
const SERVE: World = World {
    on_quorum_loss: OnQuorumLoss::Serve,
    gossip: true,
    ..BASE
};

/// Every kind once, but not a virtual machine that is put back.
const EACH: [u8; KINDS] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0];

/// Every world, the smallest first.
#[must_use]
pub fn all() -> Vec<World> {
    vec![
        BASE,
        World {
            name: "one",
            about: "one disturbance of any kind",
            disturbances: 1,
            caps: EACH,
            ..BASE
        },
        World {
            name: "messages",
            about: "letters lost, late, doubled and reordered",
            disturbances: 3,
            late_max: 2,
            ..BASE
        }
        .with(Kind::Lose, 3)
        .with(Kind::Hold, 3)
        .with(Kind::Double, 3),
        World {
            name: "cold",
            about: "from an empty disk",
            disturbances: 1,
            start: Start::Cold,
            caps: EACH,
            ..BASE
        },
        World {
            name: "alone",
            about: "A serves alone, B is armed at some time; two disturbances",
            disturbances: 2,
            start: Start::Alone,
            caps: EACH,
            ..BASE
        },
        World {
            name: "two",
            about: "two disturbances of different kinds",
            disturbances: 2,
            caps: EACH,
            ..BASE
        },
        World {
            name: "spare",
            about: "one disturbance, with a spare",
            elements: 3,
            disturbances: 1,
            cuts: CUTS_OF_THREE,
            any_order: false,
            caps: EACH,
            ..BASE
        },
        World {
            name: "serve",
            about: "one disturbance, the last of three may serve",
            disturbances: 1,
            any_order: false,
            caps: EACH,
            ..SERVE
        },
        World {
            name: "serve-spare",
            about: "one disturbance, the last of three may serve, with a spare",
            elements: 3,
            disturbances: 1,
            any_order: false,
            cuts: CUTS_OF_THREE,
            caps: EACH,
            ..SERVE
        },
    ]
}
