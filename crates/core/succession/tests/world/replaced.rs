//! An agent that is killed and goes on in another process of the same life, from what it kept.

use vnfpool_model::Time;
use vnfpool_succession::element::{Element, Input};

use super::{Event, MS, World};

impl World {
    /// Kills the agent while it carries an input out: it has written itself down, and none of the
    /// input's effects has happened. Another process goes on after a moment; what comes meanwhile
    /// is lost. The kernel's gate lives on.
    pub fn replace(&mut self, node: usize) {
        if self.hosts[node].frozen_until > self.now || self.hosts[node].machine.is_none() {
            return;
        }
        let now = self.clock(node);
        let Some(mut machine) = self.hosts[node].machine.take() else {
            return;
        };
        let mut lost = Vec::new();
        machine.handle(now, Input::Tick, &mut lost);
        self.note(format!(
            "element {node} is killed, {} effects lost",
            lost.len()
        ));
        let kept = postcard::to_allocvec(&machine).unwrap();
        let takes = MS + self.random.below(80 * MS);
        self.schedule(self.now + takes, Event::Replaced { node, kept });
    }

    pub(super) fn replaced(&mut self, node: usize, kept: &[u8]) {
        // It may have been started as a new life meanwhile.
        if self.hosts[node].machine.is_some() {
            return;
        }
        let now = self.clock(node);
        let mut machine: Element = postcard::from_bytes(kept).unwrap();
        machine.resume(now);
        self.note(format!("element {node} goes on in another process"));
        let until = if machine.gate() > now {
            machine.gate()
        } else {
            Time::ZERO
        };
        self.hosts[node].machine = Some(machine);
        self.set_gate(node, until);
        self.input(node, Input::Tick);
        self.rewake(node);
    }
}
