//! Who is where: hosts, wires and addresses of the laboratory.
//!
//! ```text
//!    client .10   mon .11                    server .10
//!        \         /                             |
//!      ===== inside =====    gw1 .1      ===== outside =====
//!      10.1.0.0/24      \--- in|out ---/   10.2.0.0/24
//!      fd00:1::/64       \-- in|out --/    fd00:2::/64
//!                            gw2 .2
//!      sync 10.3.0.0/24: gw1 .1, gw2 .2 (`link`)
//!      mgmt 10.9.0.0/24: manager .10, gw1 .11, gw2 .12 (`mgmt`)
//! ```
//!
//! All four bridges live in the namespace `switch`, with one port per wire, so that a fault can
//! be a dead port or an isolated one while every carrier stays up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// The virtual address that the client uses as its gateway.
pub const VIP_INSIDE_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 254);
/// The virtual address that all connections are translated to.
pub const VIP_OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 254);
/// As [`VIP_INSIDE_V4`], for IPv6.
pub const VIP_INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0xfe);
/// As [`VIP_OUTSIDE_V4`], for IPv6.
pub const VIP_OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0xfe);
/// The server behind the gateways.
pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 2, 0, 10));
/// The server behind the gateways, IPv6.
pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x10));
/// The hardware address of `mon`, which asks for the virtual address.
pub(crate) const MONITOR_MAC: [u8; 6] = [0x02, 0, 0x0a, 0x01, 0, 0x0b];

/// One of the two gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// The preferred one: every run starts with it active.
    Gw1,
    /// The other one.
    Gw2,
}

impl Gateway {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Gw1, Self::Gw2];

    /// The other gateway.
    pub const fn other(self) -> Self {
        match self {
            Self::Gw1 => Self::Gw2,
            Self::Gw2 => Self::Gw1,
        }
    }

    /// 0 or 1.
    pub const fn index(self) -> usize {
        match self {
            Self::Gw1 => 0,
            Self::Gw2 => 1,
        }
    }

    /// The name of its namespace and element, `gw1` or `gw2`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gw1 => "gw1",
            Self::Gw2 => "gw2",
        }
    }

    /// The gateway of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::BOTH
            .into_iter()
            .find(|gateway| gateway.name() == name)
    }
}

impl std::fmt::Display for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Every namespace of a laboratory; the real name has the laboratory's id in front.
pub(crate) const HOSTS: [&str; 7] = ["switch", "client", "mon", "server", "gw1", "gw2", "manager"];

/// A veth pair: an interface in a host, a port at a bridge.
pub(crate) struct Wire {
    pub(crate) host: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) port: &'static str,
    pub(crate) bridge: &'static str,
    mac: &'static str,
    addresses: &'static [&'static str],
}

const fn wire(
    host: &'static str,
    interface: &'static str,
    port: &'static str,
    bridge: &'static str,
    mac: &'static str,
    addresses: &'static [&'static str],
) -> Wire {
    Wire {
        host,
        interface,
        port,
        bridge,
        mac,
        addresses,
    }
}

pub(crate) const WIRES: [Wire; 12] = [
    wire(
        "client",
        "eth0",
        "in-client",
        "inside",
        "02:00:0a:01:00:0a",
        CLIENT,
    ),
    wire("mon", "eth0", "in-mon", "inside", "02:00:0a:01:00:0b", MON),
    wire(
        "gw1",
        "in",
        "in-gw1",
        "inside",
        "02:00:0a:01:00:01",
        &["10.1.0.1/24", "fd00:1::1/64"],
    ),
    wire(
        "gw2",
        "in",
        "in-gw2",
        "inside",
        "02:00:0a:01:00:02",
        &["10.1.0.2/24", "fd00:1::2/64"],
    ),
    wire(
        "gw1",
        "out",
        "out-gw1",
        "outside",
        "02:00:0a:02:00:01",
        &["10.2.0.1/24", "fd00:2::1/64"],
    ),
    wire(
        "gw2",
        "out",
        "out-gw2",
        "outside",
        "02:00:0a:02:00:02",
        &["10.2.0.2/24", "fd00:2::2/64"],
    ),
    wire(
        "server",
        "eth0",
        "out-server",
        "outside",
        "02:00:0a:02:00:0a",
        SERVER,
    ),
    wire(
        "gw1",
        "link",
        "link-gw1",
        "sync",
        "02:00:0a:03:00:01",
        &["10.3.0.1/24"],
    ),
    wire(
        "gw2",
        "link",
        "link-gw2",
        "sync",
        "02:00:0a:03:00:02",
        &["10.3.0.2/24"],
    ),
    wire(
        "gw1",
        "mgmt",
        "mg-gw1",
        "management",
        "02:00:0a:09:00:0b",
        &["10.9.0.11/24"],
    ),
    wire(
        "gw2",
        "mgmt",
        "mg-gw2",
        "management",
        "02:00:0a:09:00:0c",
        &["10.9.0.12/24"],
    ),
    wire(
        "manager",
        "mgmt",
        "mg-manager",
        "management",
        "02:00:0a:09:00:0a",
        &["10.9.0.10/24"],
    ),
];

const CLIENT: &[&str] = &["10.1.0.10/24", "fd00:1::10/64"];
const MON: &[&str] = &["10.1.0.11/24", "fd00:1::11/64"];
const SERVER: &[&str] = &["10.2.0.10/24", "fd00:2::10/64"];
const BRIDGES: [&str; 4] = ["inside", "outside", "sync", "management"];

/// The `ip -batch` text that makes the namespaces.
pub(crate) fn batch_namespaces(id: &str) -> String {
    HOSTS.iter().fold(String::new(), |mut text, host| {
        let _infallible = writeln!(text, "netns add {id}-{host}");
        text
    })
}

/// The `ip -batch` text, for the machine's own namespace, that lays the wires.
pub(crate) fn batch_wires(id: &str) -> String {
    WIRES.iter().fold(String::new(), |mut text, wire| {
        let Wire {
            host,
            interface,
            port,
            mac,
            ..
        } = wire;
        let _infallible = writeln!(
            text,
            "link add name {port} netns {id}-switch type veth \
             peer name {interface} address {mac} netns {id}-{host}"
        );
        text
    })
}

/// The `ip -batch` text for the namespace of one host.
pub(crate) fn batch_host(host: &str) -> String {
    let mut text = String::from("link set lo up\n");
    if host == "switch" {
        for bridge in BRIDGES {
            let _infallible = writeln!(
                text,
                "link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
                 link set {bridge} up"
            );
        }
        for Wire { port, bridge, .. } in &WIRES {
            let _infallible = writeln!(text, "link set {port} master {bridge} up");
        }
        return text;
    }
    for wire in WIRES.iter().filter(|wire| wire.host == host) {
        for address in wire.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            let _infallible = writeln!(text, "addr add {address} dev {}{nodad}", wire.interface);
        }
        let _infallible = writeln!(text, "link set dev {} up", wire.interface);
    }
    if matches!(host, "client" | "mon") {
        let _infallible = writeln!(
            text,
            "route add default via {VIP_INSIDE_V4}\nroute add default via {VIP_INSIDE_V6}"
        );
    }
    text
}

/// What a host's kernel is told before it has any interface: path below `/proc/sys/net` and value.
pub(crate) fn sysctls(host: &str) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/all/accept_ra", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ];
    match host {
        // The switch is not a host: it must not speak on its own bridges.
        "switch" => settings.extend([
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ]),
        "gw1" | "gw2" => settings.extend([
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/forwarding", "1"),
            // The fixed IPv6 addresses survive the fault `link`, as the IPv4 ones do.
            ("ipv6/conf/all/keep_addr_on_down", "1"),
            ("ipv6/conf/default/keep_addr_on_down", "1"),
            // Strict tracking is what makes a missing connection entry visible.
            ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
            ("netfilter/nf_conntrack_tcp_loose", "1"),
            ("netfilter/nf_conntrack_events", "1"),
        ]),
        _ => {}
    }
    settings
}
