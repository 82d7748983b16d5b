//! The worlds that are explored: what each may do, and how often.

mod broken;

use vnfpool_model::OnQuorumLoss;

use crate::clock::NODES_MAX;
pub use broken::broken;

use crate::world::{Cut, KINDS, Kind, Start, UNBOUNDED, World, both, link};

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
    other_lease: 3,
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
    image_clock_stands: false,
    term_max: u64::MAX,
    mutation: None,
};

/// The last of three may serve: gossip and witnesses decide.
const SERVE: World = World {
    on_quorum_loss: OnQuorumLoss::Serve,
    gossip: true,
    ..BASE
};

/// Every kind once, but not a virtual machine that is put back, nor another pace.
const EACH: [u8; KINDS] = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0];

/// Every world, the smallest first.
#[must_use]
pub fn all() -> Vec<World> {
    let mut worlds = small();
    worlds.extend(two_of_three());
    worlds.extend(trouble());
    worlds.extend(other_leases());
    worlds.extend(with_a_spare());
    worlds.extend(last_of_three());
    worlds
}

/// Some seconds in all: run with the tests.
#[must_use]
pub fn small() -> Vec<World> {
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
            name: "cold",
            about: "one disturbance of any kind, from an empty disk",
            disturbances: 1,
            start: Start::Cold,
            caps: EACH,
            ..BASE
        },
        World {
            name: "alone",
            about: "one disturbance of any kind, from A alone on its manager lease",
            disturbances: 1,
            start: Start::Alone,
            caps: EACH,
            ..BASE
        },
        World {
            name: "pace-handover",
            about: "L becomes 3 heartbeats instead of 4, a switchover at any moment",
            lease: 4,
            other_lease: 3,
            manager_lease: 8,
            disturbances: 2,
            ..BASE
        }
        .with(Kind::Pace, 1)
        .with(Kind::HandOver, 1),
    ]
}

fn two_of_three() -> Vec<World> {
    let three = World {
        disturbances: 3,
        ..BASE
    };
    vec![
        World {
            name: "messages",
            about: "three letters lost, late, doubled or reordered",
            late_max: 2,
            ..three.clone()
        }
        .with(Kind::Lose, 3)
        .with(Kind::Hold, 3)
        .with(Kind::Double, 3),
        World {
            name: "lossy",
            about: "any letter lost at any time, without bound, up to term 3",
            term_max: 3,
            any_order: false,
            ..BASE
        }
        .with(Kind::Lose, UNBOUNDED),
        World {
            name: "two",
            about: "two disturbances of different kinds",
            caps: EACH,
            disturbances: 2,
            ..BASE
        },
        World {
            name: "cuts",
            about: "three cuts, in one direction or both, of any two or of one from all",
            any_order: false,
            ..three
        }
        .with(Kind::Cut, 3),
    ]
}

/// As above, one kind of trouble each.
fn trouble() -> Vec<World> {
    let two = World {
        disturbances: 2,
        any_order: false,
        ..BASE
    };
    let three = World {
        disturbances: 3,
        any_order: false,
        ..BASE
    };
    vec![
        World {
            name: "crashes",
            about: "three deaths of agents and manager, or two and a letter late",
            any_order: false,
            disturbances: 3,
            ..BASE
        }
        .with(Kind::Crash, 2)
        .with(Kind::ManagerCrash, 2)
        .with(Kind::Hold, 1),
        World {
            name: "prepared",
            about: "a member falls silent and the manager dies around its preparation; a letter late",
            ..three.clone()
        }
        .with(Kind::Cut, 2)
        .with(Kind::ManagerCrash, 2)
        .with(Kind::Crash, 1)
        .with(Kind::Hold, 1),
        World {
            name: "kills",
            about: "agents killed in the middle of their effects, resumed or not; with another trouble",
            ..two.clone()
        }
        .with(Kind::Kill, 2)
        .with(Kind::Hold, 1)
        .with(Kind::Cut, 1)
        .with(Kind::HandOver, 1)
        .with(Kind::Fail, 1),
        World {
            name: "handovers",
            about: "two switchovers, a failed function, two letters lost or doubled",
            ..three.clone()
        }
        .with(Kind::HandOver, 2)
        .with(Kind::Fail, 2)
        .with(Kind::Lose, 2)
        .with(Kind::Double, 1),
        World {
            name: "standstills",
            about: "both elements stand still, a letter late, the manager dies",
            ..three
        }
        .with(Kind::Freeze, 3)
        .with(Kind::Hold, 2)
        .with(Kind::ManagerCrash, 1),
        World {
            name: "drift",
            about: "A's clock 400 ppm slow, B's 400 ppm fast, M's 200 ppm slow",
            drift_ppm: [-200, -400, 400, 0],
            ..two
        }
        .with(Kind::Lose, 1)
        .with(Kind::Hold, 1)
        .with(Kind::Cut, 1)
        .with(Kind::Freeze, 1)
        .with(Kind::HandOver, 1),
        World {
            name: "rests",
            about: "arming as it is, with gossip and rests; one disturbance",
            eager_arming: false,
            gossip: true,
            disturbances: 1,
            any_order: false,
            caps: EACH,
            ..BASE
        },
    ]
}

/// Other lengths of the lease than three heartbeats.
fn other_leases() -> Vec<World> {
    let longer = World {
        lease: 5,
        manager_lease: 12,
        late_ticks: 6,
        caps: EACH,
        any_order: false,
        ..BASE
    };
    vec![
        World {
            name: "long-leases",
            about: "L of 5 heartbeats, L_M of 12; two disturbances",
            disturbances: 2,
            ..longer.clone()
        },
        World {
            name: "pace",
            about: "L becomes 3 heartbeats instead of 4; one disturbance of any kind",
            lease: 4,
            other_lease: 3,
            manager_lease: 8,
            disturbances: 2,
            any_order: false,
            caps: EACH,
            ..BASE
        }
        .with(Kind::Pace, 1),
        World {
            name: "paces",
            about: "L changes between 3 and 5 heartbeats and back; one or two disturbances more",
            other_lease: 3,
            disturbances: 3,
            ..longer
        }
        .with(Kind::Pace, 2),
    ]
}

fn with_a_spare() -> Vec<World> {
    let spare = World {
        elements: 3,
        any_order: false,
        cuts: CUTS_OF_THREE,
        ..BASE
    };
    vec![
        World {
            name: "spare",
            about: "two disturbances of different kinds, with a spare",
            disturbances: 2,
            caps: EACH,
            ..spare.clone()
        },
        World {
            name: "prepared-spare",
            about: "cuts, and the manager dies around a preparation, with a spare",
            disturbances: 3,
            ..spare.clone()
        }
        .with(Kind::Cut, 2)
        .with(Kind::ManagerCrash, 1),
        World {
            name: "spare-alone",
            about: "one disturbance, A alone, with a spare",
            start: Start::Alone,
            disturbances: 1,
            caps: EACH,
            ..spare
        },
    ]
}

fn last_of_three() -> Vec<World> {
    let serve = World {
        disturbances: 1,
        caps: EACH,
        ..SERVE
    };
    vec![
        World {
            name: "serve",
            about: "one fault, the last of three may serve",
            ..serve.clone()
        },
        World {
            name: "serve-alone",
            about: "one fault while A is alone, the last of three may serve",
            start: Start::Alone,
            ..serve.clone()
        },
        World {
            name: "serve-spare",
            about: "one fault, the last of three may serve, with a spare",
            elements: 3,
            cuts: CUTS_OF_THREE,
            ..serve
        },
    ]
}

/// Worlds in which something does not hold, as is declared: with the shortest history.
#[must_use]
pub fn declared() -> Vec<World> {
    let image = World {
        any_order: false,
        disturbances: 1,
        ..BASE
    }
    .with(Kind::Restore, 1);
    vec![
        World {
            name: "image",
            about: "a virtual machine is put back to a snapshot, its clock is right",
            ..image.clone()
        },
        World {
            name: "image-clock",
            about: "a virtual machine is put back to a snapshot, with the clock of the snapshot",
            image_clock_stands: true,
            disturbances: 2,
            ..image
        }
        .with(Kind::Crash, 1),
        World {
            name: "drift-beyond",
            about: "A's clock 2000 ppm slow, B's 2000 ppm fast: beyond the bound",
            drift_ppm: [0, -2000, 2000, 0],
            any_order: false,
            disturbances: 1,
            ..BASE
        }
        .with(Kind::Cut, 1),
        World {
            name: "serve-two",
            about: "two faults, the last of three may serve",
            any_order: false,
            disturbances: 2,
            caps: EACH,
            ..SERVE
        },
    ]
}
