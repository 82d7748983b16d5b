//! The network function itself: a strict NAT firewall in the kernel of each gateway.
//!
//! The same rules for every system under test. They are strict on purpose: a connection without
//! its tracking entry is dropped, and stray segments are not answered with a reset, so that only
//! real state synchronisation keeps connections alive.

/// The table's name, as health checks know it.
pub const TABLE: &str = "inet gateway";

/// The map that says which block of ports new connections get, as pool files name it.
pub(crate) const BLOCK_MAP: &str = "inet gateway vnfpool_main";

/// Blocks of ports of each of the two gateways. Two are enough here, and leave each one more
/// connections to a single server.
pub(crate) const BLOCKS_EACH: u16 = 2;

/// Ports of a block.
const BLOCK_PORTS: u16 = (u16::MAX - PORT_MIN) / (2 * BLOCKS_EACH);

/// Above every port that the rules do not track: what is translated to one of those has no way back.
const PORT_MIN: u16 = 8_192;

/// The text for `nft -f -`, the same for every system. Its map lets a gateway have all ports, until
/// an agent says which ones; who has none, as a rival, goes on so.
pub(crate) fn ruleset() -> String {
    let block = |(name, ports): (String, String)| {
        format!(
            r"    chain vnfpool_main_{name} {{
        meta l4proto {{ tcp, udp, icmp }} snat ip to 10.2.0.254{ports}
        meta l4proto {{ tcp, udp, ipv6-icmp }} snat ip6 to [fd00:2::fe]{ports}
    }}
"
        )
    };
    let blocks = (0..2 * BLOCKS_EACH).map(|number| {
        let first = PORT_MIN + number * BLOCK_PORTS;
        let last = first + BLOCK_PORTS - 1;
        (number.to_string(), format!(":{first}-{last}"))
    });
    let all = [("all".to_owned(), format!(":{PORT_MIN}-{}", u16::MAX))];
    let chains: String = all.into_iter().chain(blocks).map(block).collect();
    RULESET.replace("    # blocks\n", &chains)
}

/// The rules without the blocks of ports.
///
/// The virtual addresses may sit on the LAN interface itself or on macvlan devices `vp<VRID>v4`
/// and `vp<VRID>v6`, so both are inside (VRID 11) and outside (VRID 12) interfaces.
const RULESET: &str = r#"
table inet gateway
delete table inet gateway
table inet gateway {
    set inside {
        type ifname
        elements = { "in", "vp11v4", "vp11v6" }
    }
    set outside {
        type ifname
        elements = { "out", "vp12v4", "vp12v6" }
    }
    chain untracked_in {
        type filter hook prerouting priority raw; policy accept;
        iifname { "link", "mgmt" } notrack
        meta l4proto 112 notrack
        udp dport 7400-7403 notrack
        udp sport 7400-7403 notrack
        tcp dport 7400-7449 notrack
        tcp sport 7400-7449 notrack
    }
    chain untracked_out {
        type filter hook output priority raw; policy accept;
        oifname { "link", "mgmt" } notrack
        meta l4proto 112 notrack
        udp dport 7400-7403 notrack
        udp sport 7400-7403 notrack
        tcp dport 7400-7449 notrack
        tcp sport 7400-7449 notrack
    }
    chain input {
        type filter hook input priority filter; policy accept;
        iifname @outside udp dport 7400-7403 accept
        iifname @outside udp sport 7400-7403 accept
        iifname @outside tcp dport 7400-7449 accept
        iifname @outside tcp sport 7400-7449 accept
        iifname @outside meta l4proto { tcp, udp } drop
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        ct state invalid drop
        iifname @inside tcp flags & (fin | syn | rst | ack) == syn ct state new accept
        iifname @inside meta l4proto { udp, icmp, ipv6-icmp } ct state new accept
    }
    map vnfpool_main {
        type nf_proto : verdict
        elements = { ipv4 : goto vnfpool_main_all, ipv6 : goto vnfpool_main_all }
    }
    # blocks
    chain translate {
        type nat hook postrouting priority srcnat; policy accept;
        oifname @outside ip saddr 10.1.0.0/24 meta nfproto vmap @vnfpool_main
        oifname @outside ip6 saddr fd00:1::/64 meta nfproto vmap @vnfpool_main
    }
}
"#;
