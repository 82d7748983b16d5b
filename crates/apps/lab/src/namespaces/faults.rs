//! The faults of a laboratory's network. Each happens in one system call a port.

use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, Result};

use super::lab::{Lab, write_sysctls};
use super::rtnl::interface_index;
use super::{Gateway, Namespace};
use crate::clock;
use crate::command;

/// The text for `nft -f -` in the switch. Loss in one direction goes by the groups of the ports,
/// since a group is set at one moment and a rule is not.
pub(super) const RULESET: &str = "
table bridge faults {
    chain forward {
        type filter hook forward priority 0; policy accept;
        meta iifgroup 71 meta oifgroup 72 drop
        meta iifgroup 73 drop
        meta oifgroup 74 drop
    }
}
";
/// Nothing leaves such a queue: after the first frames, a bit a second does. It holds some ten
/// thousand frames.
const STANDSTILL: &str = "rate 8bit burst 1600 limit 4000000";
const AT_ONCE: &str = "rate 10gbit burst 4000000 limit 4000000";
const UNTOUCHED: u32 = 0;
/// Frames from a port of this group to one of the next vanish.
const LOST_FROM: u32 = 71;
const LOST_TO: u32 = 72;
/// Frames from such a port vanish, whoever they are for.
const MUTE: u32 = 73;
/// Frames to such a port vanish, whoever they are from.
const DEAF: u32 = 74;

/// A wire that both gateways are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Inside,
    Outside,
    Link,
    Management,
}

impl Wire {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Inside, Self::Outside, Self::Link, Self::Management];
}

/// The ports of one gateway, as indices in the switch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    inside: u32,
    outside: u32,
    link: u32,
    management: u32,
}

impl Lab {
    /// Cuts a gateway off, or mends that: every frame on its four ports vanishes, carrier stays.
    pub(crate) fn set_cut(&self, gateway: Gateway, cut: bool) -> Result<()> {
        let ports = self.ports[gateway.index()];
        if cut {
            self.cut_since[gateway.index()].store(clock::now(), Ordering::Relaxed);
        }
        for port in ports.all() {
            self.switch.set_port_forwarding(port, !cut)?;
        }
        if !cut {
            self.cut_since[gateway.index()].store(0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes the gateways deaf to each other on every wire; everybody else hears both.
    pub(crate) fn set_partition(&self, partitioned: bool) -> Result<()> {
        for ports in self.ports {
            self.switch.set_port_forwarding(ports.link, !partitioned)?;
            for port in [ports.inside, ports.outside, ports.management] {
                self.switch.set_port_isolated(port, partitioned)?;
            }
        }
        Ok(())
    }

    /// Takes both LAN interfaces of a gateway down, or up again.
    pub(crate) fn set_lans_up(&self, gateway: Gateway, up: bool) -> Result<()> {
        for interface in self.lan_interfaces[gateway.index()] {
            self.gateways[gateway.index()].set_up(interface, up)?;
        }
        Ok(())
    }

    /// Switches the network function of a gateway on or off: forwarding in its kernel.
    pub(crate) fn set_forwarding(&self, gateway: Gateway, on: bool) -> Result<()> {
        let value = if on { "1" } else { "0" };
        self.namespace(gateway.name())?.run(|| {
            write_sysctls(&[
                ("ipv4/ip_forward", value),
                ("ipv6/conf/all/forwarding", value),
            ])
        })
    }

    /// Mends every fault of the network.
    pub(crate) fn mend(&self) -> Result<()> {
        self.set_partition(false)?;
        self.set_group(self.manager_port, UNTOUCHED)?;
        for port in self.ports.iter().flat_map(Ports::all) {
            self.set_group(port, UNTOUCHED)?;
        }
        for gateway in Gateway::BOTH {
            self.forget_held(gateway);
            self.set_cut(gateway, false)?;
            self.set_lans_up(gateway, true)?;
            self.set_forwarding(gateway, true)?;
        }
        Ok(())
    }

    /// Loses what one gateway says to the other on some wires; what the other says arrives, and
    /// everybody else hears both.
    pub(crate) fn lose_between(&self, wires: &[Wire], from: Gateway) -> Result<()> {
        for wire in wires {
            self.set_group(self.ports[from.other().index()].of_wire(*wire), LOST_TO)?;
        }
        // Only now it begins to matter.
        for wire in wires {
            self.set_group(self.ports[from.index()].of_wire(*wire), LOST_FROM)?;
        }
        Ok(())
    }

    /// Loses what a gateway says to the manager, or what the manager says to it.
    pub(crate) fn lose_at_manager(&self, gateway: Gateway, from_gateway: bool) -> Result<()> {
        let own = self.ports[gateway.index()].management;
        let (from, to) = match from_gateway {
            true => (own, self.manager_port),
            false => (self.manager_port, own),
        };
        self.set_group(to, LOST_TO)?;
        self.set_group(from, LOST_FROM)
    }

    /// Loses everything that a gateway says, to whomever, while it hears all.
    pub(crate) fn make_mute(&self, gateway: Gateway) -> Result<()> {
        self.cut_since[gateway.index()].store(clock::now(), Ordering::Relaxed);
        let mut ports = self.ports[gateway.index()].all().into_iter();
        ports.try_for_each(|port| self.set_group(port, MUTE))
    }

    /// Loses everything that is said to a gateway, by whomever, while all hear it.
    pub(crate) fn make_deaf(&self, gateway: Gateway) -> Result<()> {
        let mut ports = self.ports[gateway.index()].all().into_iter();
        ports.try_for_each(|port| self.set_group(port, DEAF))
    }

    /// Keeps what is said to a gateway waiting in front of its ports, as in the receive queues of a
    /// machine that stands still; then lets all of it in at once.
    pub(crate) fn set_held(&self, gateway: Gateway, held: bool) -> Result<()> {
        let batch = ["in", "out", "link", "mg"].map(|wire| {
            let port = format!("{wire}-{gateway}");
            if held {
                format!("qdisc add dev {port} root tbf {STANDSTILL}\n")
            } else {
                format!("qdisc change dev {port} root tbf {AT_ONCE}\n")
            }
        });
        self.shape(&batch.concat())
    }

    /// Takes the queues of [`Lab::set_held`] away; there may be none.
    fn forget_held(&self, gateway: Gateway) {
        let batch = ["in", "out", "link", "mg"]
            .map(|wire| format!("qdisc del dev {wire}-{gateway} root\n"));
        // Where nothing was held there is nothing to take away.
        let _absent = self.shape(&batch.concat());
    }

    fn shape(&self, batch: &str) -> Result<()> {
        let switch = self.namespace("switch")?.name();
        let arguments = ["-force", "-n", switch, "-batch", "-"];
        command::run("tc", &arguments, batch).context("queueing at the switch")?;
        Ok(())
    }

    /// Takes from a gateway's kernel what a machine loses when it boots: connections and virtual
    /// devices.
    pub(crate) fn forget_kernel_state(&self, gateway: Gateway) -> Result<()> {
        let namespace = self.namespace(gateway.name())?;
        namespace
            .run(|| command::run("conntrack", &["-F"], ""))
            .context("forgetting a gateway's connections")?;
        let devices = ["vp11v4", "vp11v6", "vp12v4", "vp12v6"];
        let batch = devices.map(|device| format!("link del {device}\n"));
        let mut delete = Command::new("ip");
        delete.args(["-force", "-n", namespace.name(), "-batch", "-"]);
        // Not every system has made them.
        command::run_command(&mut delete, &batch.concat())?;
        Ok(())
    }

    /// Frames that have come in at a gateway from its peer and the manager, in bytes.
    pub(crate) fn bytes_heard(&self, gateway: Gateway) -> Result<u64> {
        let table = self.namespace(gateway.name())?.run(|| {
            std::fs::read_to_string("/proc/thread-self/net/dev")
                .context("reading interface counters")
        })?;
        let of = |line: &str| {
            let (name, counters) = line.split_once(':')?;
            let is_ours = matches!(name.trim(), "link" | "mgmt");
            counters
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
                .filter(|_| is_ours)
        };
        Ok(table.lines().filter_map(of).sum())
    }

    /// Cuts a wire for both gateways, or mends that; every carrier stays.
    pub(crate) fn set_wire(&self, wire: Wire, works: bool) -> Result<()> {
        let mut ports = self.ports.iter().map(|ports| ports.of_wire(wire));
        ports.try_for_each(|port| self.switch.set_port_forwarding(port, works))
    }

    fn set_group(&self, port: u32, group: u32) -> Result<()> {
        self.switch.set_group(port, group)
    }
}

impl Ports {
    const fn all(&self) -> [u32; 4] {
        [self.inside, self.outside, self.link, self.management]
    }

    const fn of_wire(&self, wire: Wire) -> u32 {
        match wire {
            Wire::Inside => self.inside,
            Wire::Outside => self.outside,
            Wire::Link => self.link,
            Wire::Management => self.management,
        }
    }

    pub(super) fn of(switch: &Namespace, gateway: &str) -> Result<Self> {
        Ok(Self {
            inside: interface_index(switch, &format!("in-{gateway}"))?,
            outside: interface_index(switch, &format!("out-{gateway}"))?,
            link: interface_index(switch, &format!("link-{gateway}"))?,
            management: interface_index(switch, &format!("mg-{gateway}"))?,
        })
    }
}
