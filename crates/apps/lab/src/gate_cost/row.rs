//! Three hosts in a row, and nothing between them that would cost time: no bridge.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{GateLan, GateRules, load};
use crate::command;
use crate::namespaces::{
    Namespace, ProcessMark, Record, VIP_INSIDE_V4, VIP_INSIDE_V6, VIP_OUTSIDE_V4, VIP_OUTSIDE_V6,
    ruleset, write_sysctls,
};

/// The addresses of the laboratory, with the virtual router ids that its rules know.
pub(super) const LANS: [GateLan; 2] = [
    GateLan {
        interface: "in",
        vrid: 11,
        addresses: [
            std::net::IpAddr::V4(VIP_INSIDE_V4),
            std::net::IpAddr::V6(VIP_INSIDE_V6),
        ],
    },
    GateLan {
        interface: "out",
        vrid: 12,
        addresses: [
            std::net::IpAddr::V4(VIP_OUTSIDE_V4),
            std::net::IpAddr::V6(VIP_OUTSIDE_V6),
        ],
    },
];

/// The sink has another MAC than its address: its kernel drops what arrives, first thing, as
/// meant for somebody else.
const NEIGHBOUR: &str = "02:00:0a:02:00:0b";
/// The virtual MAC of RFC 9568 §7.3 for virtual router 11, IPv4.
const VIRTUAL_MAC: &str = "00:00:5e:00:01:0b";

/// Source, gateway and sink. Dropping it removes everything it made.
#[derive(Debug)]
pub(super) struct Row {
    record: Record,
    pub(super) source: Namespace,
    pub(super) gateway: Namespace,
    sink: Namespace,
}

impl Row {
    /// Builds the row; `pins` is where the gate will pin its objects.
    pub(super) fn build(rules: GateRules, pins: PathBuf) -> Result<Self> {
        let pid = std::process::id();
        let id = format!("vp{pid}");
        let owner = ProcessMark::of(i32::try_from(pid)?, "laboratory")
            .context("reading our own start time from /proc")?;
        let record = Record {
            namespaces: ["source", "gateway", "sink"]
                .map(|h| format!("{id}-{h}"))
                .into(),
            id,
            owner,
            kept: false,
            processes: Vec::new(),
            pins: vec![pins],
            scratch: Vec::new(),
            is_over: false,
        };
        // On disk before the first namespace exists: an interruption leaves no orphans.
        record.save()?;
        Self::build_recorded(record.clone(), rules).inspect_err(|_| {
            // What was built so far goes; the error that is reported is the first one.
            let _second_error = record.remove_all();
        })
    }

    fn build_recorded(record: Record, rules: GateRules) -> Result<Self> {
        let id = &record.id;
        let make: String = record
            .namespaces
            .iter()
            .map(|name| format!("netns add {name}\n"))
            .collect();
        command::run("ip", &["-batch", "-"], &make)
            .context("making network namespaces (needs root)")?;
        let [source, gateway, sink] =
            ["source", "gateway", "sink"].map(|host| Namespace::open(&format!("{id}-{host}")));
        let (source, gateway, sink) = (source?, gateway?, sink?);
        gateway.run(|| write_sysctls(SYSCTLS))?;
        let wires = format!(
            "link add name eth0 netns {id}-source type veth peer name in netns {id}-gateway\n\
             link add name out netns {id}-gateway type veth peer name eth0 netns {id}-sink\n"
        );
        command::run("ip", &["-batch", "-"], &wires).context("laying the wires")?;
        for (namespace, batch) in [
            (&source, SOURCE.replace("VIRTUAL_MAC", VIRTUAL_MAC)),
            (&gateway, GATEWAY.replace("NEIGHBOUR", NEIGHBOUR)),
            (&sink, "link set eth0 up\n".to_owned()),
        ] {
            let name = namespace.name();
            command::run("ip", &["-n", name, "-batch", "-"], &batch)
                .with_context(|| format!("configuring {name}"))?;
        }
        if rules == GateRules::Nat {
            gateway
                .run(|| command::run("nft", &["-f", "-"], &ruleset()))
                .context("loading the rules of the gateway")?;
        }
        Ok(Self {
            record,
            source,
            gateway,
            sink,
        })
    }

    /// Frames that the sink's interface has received.
    pub(super) fn received(&self) -> Result<u64> {
        // Below the thread: the process may be in another namespace.
        let table = self.sink.run(|| {
            std::fs::read_to_string("/proc/thread-self/net/dev").context("reading the counters")
        })?;
        received_of(&table).context("the sink has no counter of received frames")
    }

    /// From now on the sink counts the datagrams of the load alone, for [`Row::datagrams`]. An
    /// interface of the gateway speaks for itself now and then (MLD, RFC 9777), which no gate
    /// forbids. Matching costs time, so this is not for the intervals whose rate is compared.
    pub(super) fn count_datagrams(&self) -> Result<()> {
        let rules = format!(
            "table netdev load {{\n\
               counter datagrams {{ }}\n\
               chain arriving {{\n\
                 type filter hook ingress device eth0 priority 0;\n\
                 udp dport {} counter name datagrams\n\
               }}\n\
             }}\n",
            load::PORT
        );
        self.sink
            .run(|| command::run("nft", &["-f", "-"], &rules).map(drop))
            .context("counting what arrives at the sink")
    }

    /// Datagrams of the load that have arrived since [`Row::count_datagrams`].
    pub(super) fn datagrams(&self) -> Result<u64> {
        let listing = ["list", "counter", "netdev", "load", "datagrams"];
        let text = self.sink.run(|| command::run("nft", &listing, ""))?;
        counter_of(&text).with_context(|| format!("nft told no counter: {text}"))
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        // The next run finds the record and tries again.
        let _reported_by_the_next_run = self.record.remove_all();
    }
}

fn received_of(table: &str) -> Option<u64> {
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))?;
    // Bytes, then packets.
    line.split_whitespace().nth(1)?.parse().ok()
}

fn counter_of(listing: &str) -> Option<u64> {
    let mut words = listing.split_whitespace();
    words.find(|word| *word == "packets")?;
    words.next()?.parse().ok()
}

/// What the gateways of the laboratory have too.
const SYSCTLS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
];

/// Packets of the highest rate are cut into frames by the sender's kernel, not by the gateway's:
/// a segment limit of one makes it do that before they leave.
const SOURCE: &str = "\
    addr add 10.1.0.10/24 dev eth0\n\
    link set eth0 gso_max_segs 1 up\n\
    neigh add 10.1.0.254 lladdr VIRTUAL_MAC dev eth0 nud permanent\n\
    route add default via 10.1.0.254\n";

const GATEWAY: &str = "\
    addr add 10.1.0.1/24 dev in\n\
    addr add 10.2.0.1/24 dev out\n\
    link set in up\n\
    link set out up\n\
    neigh add 10.2.0.10 lladdr NEIGHBOUR dev out nud permanent\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_the_second_of_its_line() {
        let table = "Inter-|   Receive                           |  Transmit\n \
            face |bytes    packets errs drop|bytes    packets\n    \
            lo:       1       2    0    0        5       6\n  \
            eth0: 1200 20    0    0 0 0 0 0 7 8\n";
        assert_eq!(received_of(table), Some(20));
        assert_eq!(received_of("lo: 1 2\n"), None);
    }

    #[test]
    fn the_counter_of_datagrams_is_read() {
        let listing =
            "table netdev load {\n\tcounter datagrams {\n\t\tpackets 12 bytes 552\n\t}\n}\n";
        assert_eq!(counter_of(listing), Some(12));
        assert_eq!(counter_of("table netdev load {\n}\n"), None);
    }
}
