//! The configuration files of the demonstrated pool, as an operator would write them.

use std::path::Path;

use super::Profile;
use crate::namespaces::{BLOCK_MAP, BLOCKS_EACH, Gateway, TABLE};

/// `element.toml` of a gateway whose certificates are in `directory`; `manager` is the control
/// endpoint.
pub fn element_file(gateway: Gateway, directory: &Path, manager: &str) -> String {
    let number = gateway.index() + 1;
    format!(
        r#"element = "{gateway}"
pool = "edge"
function = "nat-gateway"
host = "host-{number}"
dir = "{}"
manager = "{manager}"

[[lan]]
name = "inside"
interface = "in"
address = "10.1.0.{number}"

[[lan]]
name = "outside"
interface = "out"
address = "10.2.0.{number}"

[[path]]
name = "link"
address = "10.3.0.{number}"

[[path]]
name = "management"
address = "10.9.0.1{number}"

[health]
forwarding = ["ipv4", "ipv6"]
ruleset = "{TABLE}"
interfaces = ["in", "out"]

[metrics]
listen = "127.0.0.1:9401"
"#,
        directory.display()
    )
}

/// `pool.toml`: one slot with a virtual address per LAN and family.
pub(super) fn pool(profile: Profile) -> String {
    let address = |address: &str, lan: &str, vrid: u8, witness: &str| {
        format!(
            r#"
[[slot.address]]
address = "{address}"
lan = "{lan}"
vrid = {vrid}
witnesses = ["{witness}"]
"#
        )
    };
    format!(
        r#"[pool]
handle = "edge"
function = "nat-gateway"
{}

[[slot]]
name = "main"
preferred = "gw1"
port_blocks = {{ map = "{BLOCK_MAP}", elements = ["gw1", "gw2"], blocks_each = {BLOCKS_EACH} }}
{}{}{}{}"#,
        profile.in_file(),
        address("10.1.0.254/24", "inside", 11, "10.1.0.10"),
        address("10.2.0.254/24", "outside", 12, "10.2.0.10"),
        address("fd00:1::fe/64", "inside", 11, "fd00:1::10"),
        address("fd00:2::fe/64", "outside", 12, "fd00:2::10"),
    )
}
