//! Keys or a certificate fail: what a machine sends, and what it gets, does not authenticate.

use super::{Fault, any_element};
use crate::world::World;

/// An element's keys fail.
pub(super) const FAIL: Fault = Fault {
    name: "keys-fail",
    inject: |world, random| {
        let node = any_element(world, random);
        world.note(|| format!("element {node}: its keys fail"));
        world.hosts[node].keys_fail = true;
    },
};

/// All keys are right.
pub(super) fn end(world: &mut World) {
    for host in &mut world.hosts {
        host.keys_fail = false;
    }
}
