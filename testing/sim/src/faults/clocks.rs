//! Clocks: rates that change within the bound, and beyond it; steps of the wall time.

use vnfpool_succession::DRIFT_PPM;

use super::{Fault, any_machine};
use crate::world::World;
use vnfpool_random::Random;

/// Two clocks differ by the bound at most when each is off by half of it.
pub const HALF_BOUND_PPM: u64 = DRIFT_PPM as u64 / 2;

/// A machine's clock goes on at another rate, within the bound.
pub(super) const DRIFT: Fault = Fault {
    name: "clock-rate",
    inject: |world, random| {
        let rate = random.between(0, 2 * HALF_BOUND_PPM).cast_signed();
        set_rate(world, random, rate - HALF_BOUND_PPM.cast_signed());
    },
};

/// The wall clock is set by up to an hour.
pub(super) const WALL_STEP: Fault = Fault {
    name: "wall-clock-step",
    inject: |world, random| {
        let node = any_machine(world, random);
        let step = random.between(0, 7_200_000).cast_signed() - 3_600_000;
        // Nor is one set back between the loss of a directory and the next life, on a machine that
        // stands still: then neither knows the number (see `agent-restarts-without-memory`).
        if step < 0 && world.hosts[node].incarnation_on_disk == 0 {
            return;
        }
        world.note(|| format!("machine {node}: the wall clock is set by {step} ms"));
        world.hosts[node].wall_step_ms += step;
    },
};

fn set_rate(world: &mut World, random: &mut Random, rate: i64) {
    let node = any_machine(world, random);
    world.note(|| format!("machine {node}: the clock is off by {rate} ppm"));
    let now = world.now;
    world.hosts[node].clock.set_rate(now, rate);
}

/// No clock is off by more than the bound.
pub(super) fn end(world: &mut World) {
    let now = world.now;
    let bound = HALF_BOUND_PPM.cast_signed();
    for host in &mut world.hosts {
        let rate = host.clock.rate_ppm().clamp(-bound, bound);
        host.clock.set_rate(now, rate);
    }
}
