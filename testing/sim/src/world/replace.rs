//! An agent that is killed and goes on in another process of the same life, from what it kept.

use vnfpool_model::Time;
use vnfpool_succession::element::Input;

use super::{Event, MS, World};

impl World {
    /// Kills the agent while it carries an input out: it has written itself down, and none of the
    /// input's effects has happened. What comes until another process goes on is lost; the
    /// kernel's gates live on.
    pub fn replace(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if host.frozen(self.now) {
            return;
        }
        let now = host.clock.read(self.now);
        let Some(mut agent) = host.agent.take() else {
            return;
        };
        let slot = self.random.index(agent.machines.len());
        let mut lost = Vec::new();
        agent.machines[slot].handle(now, Input::Tick, &mut lost);
        host.kept = Some(agent);
        let life = host.life;
        self.note(|| format!("element {node} is killed, {} effects are lost", lost.len()));
        let takes = MS + self.random.below(80 * MS);
        self.schedule(self.now + takes, Event::Replaced { node, life });
    }

    pub(super) fn replaced(&mut self, node: usize, life: u64) {
        let host = &mut self.hosts[node];
        if host.frozen(self.now) {
            let at = host.frozen_until;
            return self.schedule(at, Event::Replaced { node, life });
        }
        // It may have been started as a new life meanwhile.
        if host.life != life {
            return;
        }
        let Some(mut agent) = host.kept.take() else {
            return;
        };
        let now = host.clock.read(self.now);
        let mut gates = Vec::with_capacity(agent.machines.len());
        for machine in &mut agent.machines {
            machine.resume(now);
            let open = machine.gate() > now;
            gates.push(if open { machine.gate() } else { Time::ZERO });
        }
        agent.wake_at.fill(u64::MAX);
        host.agent = Some(agent);
        self.note(|| format!("element {node} goes on in another process"));
        for (slot, until) in gates.into_iter().enumerate() {
            self.set_gate(node, slot, until);
            let able = self.hosts[node].able;
            self.input(node, slot, Input::Able(able));
            self.input(node, slot, Input::Tick);
        }
    }
}
