//! What the operator reads when a file is wrong: exact texts, lines and columns.

use vnfpool_config::{Diagnostics, ElementFile, ManagerFile, PoolFile, check_any};

const POOL: &str = include_str!("../../../../packaging/examples/pool.toml");
const ELEMENT: &str = include_str!("../../../../packaging/examples/element.toml");
const MANAGER: &str = include_str!("../../../../packaging/examples/manager.toml");

/// `line:column message [help]` of each error.
fn short(errors: &Diagnostics) -> Vec<String> {
    let text = |error: &vnfpool_config::Diagnostic| {
        let help = error
            .help
            .as_ref()
            .map(|help| format!(" [{help}]"))
            .unwrap_or_default();
        format!("{}:{} {}{help}", error.line, error.column, error.message)
    };
    errors.as_slice().iter().map(text).collect()
}

fn pool_errors(text: &str) -> Vec<String> {
    short(&PoolFile::parse(text, "pool.toml").expect_err("the file is wrong"))
}

fn element_errors(text: &str) -> Vec<String> {
    short(&ElementFile::parse(text, "element.toml").expect_err("the file is wrong"))
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example no longer holds {from}");
    text.replacen(from, to, 1)
}

#[test]
fn an_error_shows_the_line_with_a_caret() {
    let text = replaced(POOL, "profile = \"default\"", "profil = \"default\"");
    let errors = PoolFile::parse(&text, "edge.toml").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "edge.toml:10:1: unknown key `profil` in [pool]\n   \
            |\n\
         10 | profil = \"default\"\n   \
            | ^^^^^^\n   \
            = help: did you mean `profile`?"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    let errors = pool_errors("[pool]\nhandle = \"edge\nfunction = 1\n");
    assert!(errors[0].starts_with("2:"), "{errors:?}");
    let errors = pool_errors("[pool]\nhandle = \"a\"\nhandle = \"b\"\n");
    assert_eq!(errors, ["3:1 duplicate key"]);
}

#[test]
fn all_errors_of_a_file_are_reported() {
    let text = "\
[pool]
handle = \"Edge\"
heartbeat = 5
profile = \"quick\"
on_quorum_loss = \"server\"

[[slot]]
[[slot.address]]
address = \"10.1.0.254\"
lan = 5
vrid = 256
witnesses = [\"10.1.0.10\", \"router\"]
";
    assert_eq!(
        pool_errors(text),
        [
            "1:1 missing key `function` in [pool] [add function = \"…\"]",
            "2:10 handle: expected the handle of a pool, found \"Edge\" ['Edge' is no name: use \
             a-z, 0-9, '-', '_' and '.', beginning with a letter or digit]",
            "3:1 unknown key `heartbeat` in [pool] [did you mean `heartbeat_ms`?]",
            "4:11 profile: expected \"default\" or \"fast\", found \"quick\"",
            "5:18 on_quorum_loss: expected \"serve\" or \"stop\", found \"server\" [did you mean \
             \"serve\"?]",
            "7:1 missing key `name` in [[slot]] [add name = \"main\"]",
            "9:11 address: expected an address with its prefix length, like \"10.1.0.254/24\", \
             found \"10.1.0.254\" [did you mean \"10.1.0.254/24\"?]",
            "10:7 lan: expected a text in quotes, found a whole number",
            "11:8 vrid: expected a whole number from 1 to 255, found 256",
            "12:27 witnesses: expected an IPv4 or IPv6 address, found \"router\"",
        ]
    );
}

#[test]
fn timing_must_leave_room_for_loss() {
    let timing = |constants: &str| pool_errors(&replaced(POOL, "profile = \"default\"", constants));
    let help = "a shorter lease fails over when a single heartbeat is lost";
    assert_eq!(
        timing("heartbeat_ms = 10\nlease_ms = 20"),
        [format!(
            "11:12 lease_ms: expected at least 3 heartbeats (30 ms), found 20 [{help}]"
        )]
    );
    assert_eq!(
        timing("heartbeat_ms = 0"),
        ["10:16 heartbeat_ms: expected 1 to 10000 ms, found 0"]
    );
    let errors = timing("lease_ms = 800\nmanager_lease_ms = 1000");
    assert!(errors[0].starts_with("11:20 manager_lease_ms: expected at least 2 leases (1600 ms)"));
    assert_eq!(
        timing("profile = \"fast\"\nlease_ms = 50"),
        ["11:12 lease_ms: `profile` sets it already [remove one of them]"]
    );
}

#[test]
fn a_lease_by_itself_has_bounds_and_nothing_else() {
    let timing = |constants: &str| pool_errors(&replaced(POOL, "profile = \"default\"", constants));
    assert_eq!(
        timing("lease = \"automatic\""),
        ["10:9 lease: expected \"auto\", found \"automatic\" [did you mean \"auto\"?]"]
    );
    assert_eq!(
        timing("lease = \"auto\"\nprofile = \"fast\""),
        [
            "11:11 profile: `lease = \"auto\"` sets it already [remove one of them; lease_min_ms and \
          lease_max_ms are its bounds]"
        ]
    );
    assert_eq!(
        timing("lease_max_ms = 90"),
        ["10:16 lease_max_ms: only with `lease = \"auto\"` [add lease = \"auto\", or remove it]"]
    );
    assert_eq!(
        timing("lease = \"auto\"\nlease_min_ms = 100\nlease_max_ms = 50"),
        ["12:16 lease_max_ms: expected at least lease_min_ms (100 ms), found 50"]
    );
    assert_eq!(
        timing("lease = \"auto\"\nlease_max_ms = 800\nmanager_lease_ms = 1000"),
        [
            "12:20 manager_lease_ms: expected at least 2 leases (1600 ms), found 1000 [the manager's \
          grant must outlive every promise of an element]"
        ]
    );
}

#[test]
fn addresses_must_make_sense() {
    let one = |from: &str, to: &str| pool_errors(&replaced(POOL, from, to));
    assert_eq!(
        one("\"10.1.0.254/24\"", "\"10.1.0.0/24\""),
        ["27:11 address: 10.1.0.0/24 is the address of the network itself: the host part is zero"]
    );
    assert_eq!(
        one("\"10.1.0.254/24\"", "\"10.1.0.255/24\""),
        ["27:11 address: 10.1.0.255/24 is the broadcast address of its network"]
    );
    assert_eq!(
        one("\"10.2.0.254/24\"", "\"10.1.0.254/24\"")[0],
        "39:11 address: 10.1.0.254 is already an address of slot 'main'"
    );
    assert_eq!(
        one("[\"10.1.0.10\"]", "[\"10.1.0.254\"]"),
        [
            "31:13 witnesses: 10.1.0.254 is a virtual address of this pool [a witness is a host \
          outside the pool, such as a router or a server]"
        ]
    );
    assert_eq!(
        one("[\"10.1.0.10\"]", "[\"10.7.0.10\"]"),
        [
            "31:13 witnesses: 10.7.0.10 is not on LAN 'inside': no address of the slot there covers \
          it [a witness answers ARP or neighbour discovery, so it must be on the same LAN]"
        ]
    );
}

#[test]
fn two_slots_never_share_a_virtual_router() {
    let second = "\n[[slot]]\nname = \"main\"\n[[slot.address]]\naddress = \"10.1.0.253/24\"\n\
                  lan = \"inside\"\nvrid = 11\n[state]\nconnections = \"none\"\n";
    let line = POOL.lines().count();
    assert_eq!(
        pool_errors(&format!("{POOL}{second}")),
        [
            format!("{}:8 name: slot 'main' is there twice", line + 3),
            format!(
                "{}:8 vrid: 11 on LAN 'inside' already belongs to slot 'main' [two slots with one \
                 virtual MAC cannot move apart]",
                line + 7
            ),
        ]
    );
}

/// Goal: no element can come to serve one slot and stand by for another with the connections of both
/// in one kernel.
#[test]
fn several_slots_replicate_no_connections() {
    let text = large(2, 1, &[]);
    PoolFile::parse(&text, "pool.toml").unwrap();
    for level in ["eventual", "bounded", "commit"] {
        let errors = pool_errors(&replaced(&text, "\"none\"", &format!("\"{level}\"")));
        assert_eq!(
            errors,
            [
                "11:1 a pool that replicates connections has one slot, found 2: a kernel does not \
                 tell whose slot a connection is [divide it into several pools with elements of \
                 their own, or set connections = \"none\" in [state]]"
            ]
        );
    }
    let unsaid = replaced(&text, "[state]\nconnections = \"none\"\n", "");
    assert_eq!(pool_errors(&unsaid).len(), 1);
}

#[test]
fn a_pool_needs_slots_and_a_slot_addresses() {
    let head = "[pool]\nhandle = \"a\"\nfunction = \"nat\"\n";
    let help = "add [[slot]] with at least one [[slot.address]]";
    assert_eq!(
        pool_errors(head),
        [format!("1:1 a pool needs at least one slot [{help}]")]
    );
    assert_eq!(
        pool_errors(&format!("{head}[[slot]]\nname = \"b\"\n")),
        ["4:1 slot 'b' has no address [add [[slot.address]] with address, lan and vrid]"]
    );
}

#[test]
fn an_element_is_checked() {
    let one = |from: &str, to: &str| element_errors(&replaced(ELEMENT, from, to));
    let line = |needle: &str| ELEMENT.lines().position(|line| line == needle).unwrap() + 1;
    let out = line("interface = \"out\"");
    assert_eq!(
        one("interface = \"out\"", "interface = \"in\""),
        [format!(
            "{out}:13 interface: 'in' already belongs to LAN 'inside'"
        )]
    );
    let errors = one("interface = \"out\"", "interface = \"a-name-too-long1\"");
    assert!(errors[0].contains("at most 15 characters"), "{errors:?}");
    assert_eq!(
        one("name = \"outside\"", "name = \"inside\""),
        [format!("{}:8 name: LAN 'inside' is there twice", out - 1)]
    );
    assert_eq!(
        one("driver = \"bpf\"", "driver = \"bfp\""),
        [format!(
            "{}:10 driver: expected \"bpf\" or \"addresses\", found \"bfp\" [did you mean \
             \"bpf\"?]",
            line("driver = \"bpf\"")
        )]
    );
    assert_eq!(
        one("priority = 40", "priority = 100"),
        [format!(
            "{}:12 priority: expected a whole number from 1 to 99, found 100",
            line("priority = 40")
        )]
    );
    assert_eq!(
        one("manager = \"10.9.0.10:7400\"", "manager = \"10.9.0.10\""),
        [format!(
            "{}:11 manager: expected an address with a port, like \"10.9.0.10:7400\" or \
             \"[fd00::10]:7400\", found \"10.9.0.10\"",
            line("manager = \"10.9.0.10:7400\"")
        )]
    );
}

#[test]
fn a_manager_is_checked() {
    let text = replaced(MANAGER, "[\"10.9.0.10\"]", "[]").replace("example.org", "Example Org");
    let errors = short(&ManagerFile::parse(&text, "manager.toml").unwrap_err());
    assert_eq!(
        errors,
        [
            "5:16 trust_domain: expected a-z, 0-9, '-', '_' and '.', like example.org",
            "7:13 addresses: expected at least one address",
        ]
    );
    let fencing = |table: &str| {
        let text = format!("{MANAGER}\n[fencing]\n{table}");
        let errors = short(&ManagerFile::parse(&text, "manager.toml").unwrap_err());
        errors.join(" ")
    };
    assert!(fencing("command = \"power-off\"").contains("command: expected an absolute path"));
    assert!(fencing("timeout_s = 5").contains("command"));
    let long = fencing("command = \"/bin/off\"\ntimeout_s = 301");
    assert!(long.contains("a whole number from 1 to 300"), "{long}");
}

#[test]
fn a_file_of_no_kind_is_named_so() {
    let errors = check_any("colour = \"blue\"\n", "x.toml").unwrap_err();
    assert!(
        errors
            .to_string()
            .starts_with("x.toml:1:1: this is no configuration of vnfpool")
    );
    assert!(check_any("", "empty.toml").is_err());
}

#[test]
fn what_an_error_shows_is_safe_for_a_terminal() {
    let text = "[pool]\nhandle = \"\\u001b[2J\"\n# \u{9b}2J\nfunction = \"\u{9b}\"\n";
    let shown = PoolFile::parse(text, "x").unwrap_err().to_string();
    assert!(
        !shown.contains(|c: char| c.is_control() && c != '\n'),
        "{shown:?}"
    );
}

/// A pool of `slots` slots with `addresses` addresses each, every one with `witnesses`.
fn large(slots: usize, addresses: usize, witnesses: &[&str]) -> String {
    let mut text = "[pool]\nhandle = \"large\"\nfunction = \"nat\"\n".to_owned();
    for slot in 0..slots {
        text.push_str(&format!("[[slot]]\nname = \"s{slot}\"\n"));
        for address in 0..addresses {
            // A LAN of its own for each: virtual routers are 255 on a LAN.
            text.push_str(&format!(
                "[[slot.address]]\naddress = \"10.{}.{}.{}/8\"\nlan = \"l{slot}\"\nvrid = 1\n\
                 witnesses = {witnesses:?}\n",
                slot / 256,
                slot % 256,
                address + 1,
            ));
        }
    }
    text.push_str("[state]\nconnections = \"none\"\n");
    text
}

#[test]
fn a_pool_is_no_larger_than_what_elements_can_hold() {
    PoolFile::parse(&large(256, 4, &[]), "pool.toml").unwrap();
    let errors = pool_errors(&large(257, 1, &[]));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].ends_with(" a pool has at most 256 slots"),
        "{errors:?}"
    );
    let errors = pool_errors(&large(205, 5, &[]));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains(" a pool has at most 1024 addresses in all, found 1025 ["),
        "{errors:?}"
    );
    let witnesses = ["10.255.255.253", "10.255.255.252", "10.255.255.251"];
    let errors = pool_errors(&large(256, 4, &witnesses));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains(" a pool is at most 131072 bytes long"),
        "{errors:?}"
    );
}

#[test]
fn port_blocks_are_checked() {
    const GOOD: &str =
        r#"map = "inet gateway vnfpool_main", elements = ["gw1", "gw2"], blocks_each = 4"#;
    let errors = |blocks: &str| {
        let errors = pool_errors(&replaced(POOL, GOOD, blocks));
        // The place is the same in all of them.
        let texts = errors.iter().filter_map(|error| error.split_once(' '));
        texts.map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        errors(r#"map = "gateway vnfpool_main", elements = ["gw1", "GW2"], blocks = 4"#),
        [
            "map: expected family, table and name of an nftables map, like \"inet gateway \
             vnfpool_main\", found \"gateway vnfpool_main\"",
            "elements: expected the name of an element, found \"GW2\" ['GW2' is no name: use a-z, \
             0-9, '-', '_' and '.', beginning with a letter or digit]",
            "unknown key `blocks` in [slot.port_blocks] [did you mean `blocks_each`?]",
        ]
    );
    assert_eq!(
        errors(r#"map = "netdev a b", elements = ["gw2", "gw2"], blocks_each = 1"#),
        [
            "map: expected family, table and name of an nftables map, like \"inet gateway \
             vnfpool_main\", found \"netdev a b\" [the family is ip, ip6 or inet]",
            "blocks_each: expected a whole number from 2 to 64, found 1",
        ]
    );
    assert_eq!(
        errors(r#"map = "inet a b", elements = ["gw2", "gw2"], blocks_each = 2"#),
        [
            "elements: 'gw2' is there twice",
            "elements: the preferred element 'gw1' is missing [an element without blocks cannot \
             serve]",
        ]
    );
    assert_eq!(
        errors(r#"map = "inet a b", elements = ["gw1"]"#),
        [
            "elements: at least two, or nobody could take the slot over [name every element of the \
          pool: each has blocks of its own]"
        ]
    );
    let many: Vec<_> = (1..=5).map(|i| format!("\"gw{i}\"")).collect();
    let many = format!(
        "map = \"inet a b\", elements = [{}], blocks_each = 64",
        many.join(", ")
    );
    assert_eq!(
        errors(&many),
        [
            "a slot has at most 256 port blocks, found 5 elements with 64 each [more blocks than that \
          leave each too few ports]"
        ]
    );
}

#[test]
fn sockets_of_functions_are_checked() {
    let with = |parts: &str| replaced(ELEMENT, "[hooks]", &format!("{parts}\n[hooks]"));
    let errors = |parts: &str| {
        let errors = element_errors(&with(parts));
        // The lines are those behind the example's; the texts are what matters.
        let texts = errors.iter().filter_map(|error| error.split_once(' '));
        texts.map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        errors("[health.probe]\nsocket = \"/run/x\"\ncommand = [\"x\"]\nsend = \"a\\nb\"\n"),
        [
            "missing key `expect` in [health.probe] [add expect = \"…\"]",
            "command: a probe with a socket has none [remove one of them]",
            "send: expected a single line",
        ]
    );
    assert_eq!(
        errors("[drain]\nsocket = \"/run/x\"\nbegin = \"\"\nend = \"b\"\ntime_ms = 60000\n"),
        [
            "begin: expected a text in quotes, found \"\" [it must not be empty]",
            "time_ms: expected a whole number from 1 to 3000, found 60000",
        ]
    );
}
