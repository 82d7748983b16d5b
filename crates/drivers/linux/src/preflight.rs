//! What this machine or process lacks, before anything depends on it.

use std::fmt;
use std::fs;

use crate::{health, links};

/// Something that is missing, in one line with what to add.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// What it is.
    pub what: &'static str,
    /// What does not work without.
    pub consequence: &'static str,
    /// What to install or to add.
    pub remedy: &'static str,
    /// Whether an element cannot work at all without.
    pub is_essential: bool,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            consequence,
            remedy,
            ..
        } = self;
        write!(f, "{what} is missing, so {consequence}: {remedy}")
    }
}

/// Everything that an element needs from Linux and does not have here. What the gate needs it
/// says itself.
#[must_use]
pub fn missing() -> Vec<Missing> {
    let mut found = missing_capabilities(effective_capabilities());
    // Without the privilege to ask, the answer would be wrong.
    let may_ask = !found.iter().any(|missing| missing.what == NET_ADMIN);
    if may_ask && !links::macvlan_is_known() {
        found.push(Missing {
            what: "the kernel's macvlan device",
            consequence: "there can be no virtual MACs",
            remedy: "use a kernel with CONFIG_MACVLAN (modprobe macvlan)",
            is_essential: true,
        });
    }
    if may_ask && !health::nftables_answers() {
        found.push(Missing {
            what: "the kernel's nf_tables",
            consequence: "rulesets cannot be checked or loaded",
            remedy: "use a kernel with CONFIG_NF_TABLES (modprobe nf_tables)",
            is_essential: false,
        });
    }
    found
}

const NET_ADMIN: &str = "the capability CAP_NET_ADMIN";

fn missing_capabilities(effective: u64) -> Vec<Missing> {
    let needed = [
        (12, NET_ADMIN, "addresses cannot be configured", true),
        (
            13,
            "the capability CAP_NET_RAW",
            "takeovers cannot be announced",
            true,
        ),
        (
            14,
            "the capability CAP_IPC_LOCK",
            "heartbeats may be late under memory pressure",
            false,
        ),
        (
            23,
            "the capability CAP_SYS_NICE",
            "heartbeats may be late under full load",
            false,
        ),
    ];
    let missing = needed
        .into_iter()
        .filter(|(bit, ..)| effective & (1 << bit) == 0);
    missing
        .map(|(_, what, consequence, is_essential)| Missing {
            what,
            consequence,
            remedy: "run as root, or add it to AmbientCapabilities= of the service",
            is_essential,
        })
        .collect()
}

/// The bits of `CapEff` of this thread; none if `/proc` does not say.
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing_capabilities(u64::MAX), []);
        assert_eq!(missing_capabilities(0).len(), 4);
        let only_raw: Vec<String> = missing_capabilities(!(1 << 13))
            .iter()
            .map(Missing::to_string)
            .collect();
        assert_eq!(
            only_raw,
            [
                "the capability CAP_NET_RAW is missing, so takeovers cannot be announced: run as \
                 root, or add it to AmbientCapabilities= of the service"
            ]
        );
    }
}
