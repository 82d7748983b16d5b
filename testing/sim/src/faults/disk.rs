//! The manager's disk: slow, failing, full, a writing torn by a crash, an old image of it.

use super::{Fault, any_element};
use crate::world::{DiskMood, MS, Moment, World};

/// Writings take up to seconds.
pub(super) const SLOW: Fault = Fault {
    name: "disk-slow",
    inject: |world, random| {
        let most = random.magnitude(10 * MS, 5_000 * MS);
        set(world, DiskMood::Slow(most));
    },
};

/// Writings fail, and some are there all the same.
pub(super) const FAILING: Fault = Fault {
    name: "disk-failing",
    inject: |world, _| set(world, DiskMood::Failing),
};

/// Writings are refused.
pub(super) const FULL: Fault = Fault {
    name: "disk-full",
    inject: |world, _| set(world, DiskMood::Full),
};

/// The disk is well again.
pub(super) const WELL: Fault = Fault {
    name: "disk-well",
    inject: |world, _| end(world),
};

/// The manager dies in the middle of a writing; what it writes is there or not, nothing in between:
/// the store's file is one transaction long or the other.
pub(super) const TORN: Fault = Fault {
    name: "torn-write",
    inject: |world, random| {
        world.run_to(Moment::Writing, 2_000 * MS);
        world.run_for(random.below(MS / 2));
        world.stop_manager();
        world.run_for(random.magnitude(MS, 2_000 * MS));
        world.start_manager();
    },
};

/// A member falls silent, for the manager or for everybody, so that the other's record is prepared;
/// and the manager dies on the way from there to the takeover (5n).
pub(super) const PREPARED: Fault = Fault {
    name: "death-when-prepared",
    inject: |world, random| {
        let node = any_element(world, random);
        world.network.cut_everywhere(node, 0);
        if random.chance(60) {
            let others: Vec<_> = world.elements().filter(|other| *other != node).collect();
            for other in others {
                world.network.cut_everywhere(node, other);
            }
        }
        if random.chance(30) {
            let most = random.magnitude(10 * MS, 200 * MS);
            set(world, DiskMood::Slow(most));
        }
        let steps = [
            Moment::Preparing,
            Moment::Prepared,
            Moment::Voted,
            Moment::Decided,
            Moment::Written,
        ];
        world.run_to(steps[random.index(steps.len())], 150 * MS);
        world.run_for(random.below(MS));
        world.stop_manager();
        if random.chance(50) {
            world.network.heal();
        }
        world.run_for(random.magnitude(MS, 1_000 * MS));
        world.start_manager();
    },
};

/// The manager's disk is set back to an image of some time ago.
pub(super) const OLD_IMAGE: Fault = Fault {
    name: "disk-old-image",
    inject: |world, random| {
        let image = world.manager.disk.clone();
        world.run_for(random.below(3_000 * MS));
        world.stop_manager();
        let changed = image.slots != world.manager.disk.slots;
        world.manager.disk = image;
        if changed {
            world.note(|| "the manager's disk is an image of before".to_owned());
            world.checks.out_of_bounds = Some("the manager's disk was set back");
        }
        world.start_manager();
    },
};

fn set(world: &mut World, mood: DiskMood) {
    world.note(|| format!("the manager's disk: {mood:?}"));
    world.manager.disk.mood = mood;
}

pub(super) fn end(world: &mut World) {
    set(world, DiskMood::Well);
}
