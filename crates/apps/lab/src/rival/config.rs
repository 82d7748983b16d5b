//! The rival's configuration: what a careful operator writes today.

use std::path::Path;

use super::conntrackd::Cache;
use crate::namespaces::Gateway;
use crate::run::Scheduling;

/// `keepalived.conf`: VRRPv3, a sync group, preempt, multicast, no virtual MAC.
///
/// The IPv6 addresses ride along as "excluded" ones, the usual way to move both families
/// together.
pub(super) fn keepalived(
    gateway: Gateway,
    advert_s: f64,
    priority: u8,
    scheduling: Scheduling,
    directory: &Path,
) -> String {
    let scheduling = match scheduling {
        // The priority alone gets its process killed by the kernel: it needs the limit as well.
        Scheduling::RealTime => {
            "    vrrp_rt_priority 50\n    vrrp_no_swap\n    vrrp_rlimit_rttime 2000000\n"
        }
        Scheduling::Ordinary => "",
    };
    let script = directory.join(format!("{gateway}-notify.sh"));
    let script = script.display();
    let instance = |name: &str, interface: &str, vrid: u8, lan: u8| {
        format!(
            "vrrp_instance {name} {{
    state BACKUP
    interface {interface}
    virtual_router_id {vrid}
    priority {priority}
    advert_int {advert_s}
    track_interface {{
        in
        out
    }}
    virtual_ipaddress {{
        10.{lan}.0.254/24 dev {interface}
    }}
    virtual_ipaddress_excluded {{
        fd00:{lan}::fe/64 dev {interface}
    }}
}}
"
        )
    };
    format!(
        "global_defs {{
    router_id {gateway}
    vrrp_version 3
    script_user root
{scheduling}}}
vrrp_sync_group pair {{
    group {{
        inside
        outside
    }}
    notify_master \"{script} primary\"
    notify_backup \"{script} backup\"
    notify_fault \"{script} fault\"
}}
{}{}",
        instance("inside", "in", 11, 1),
        instance("outside", "out", 12, 2)
    )
}

/// The commands of conntrack-tools' own `primary-backup.sh`.
pub(super) fn notify_script(conntrackd_conf: &Path) -> String {
    let conf = conntrackd_conf.display();
    format!(
        "#!/bin/sh
C='/usr/sbin/conntrackd -C {conf}'
case \"$1\" in
primary) $C -c; $C -f; $C -R; $C -B ;;
backup) $C -s >/dev/null; $C -t; $C -n ;;
fault) $C -t ;;
esac
"
    )
}

/// `conntrackd.conf`: FTFW over the sync link.
pub(super) fn conntrackd(gateway: Gateway, directory: &Path, cache: Cache) -> String {
    let disabled = match cache {
        Cache::External => "Off",
        Cache::Kernel => "On",
    };
    let (own, peer) = match gateway {
        Gateway::Gw1 => ("10.3.0.1", "10.3.0.2"),
        Gateway::Gw2 => ("10.3.0.2", "10.3.0.1"),
    };
    let file = |what: &str| {
        directory
            .join(format!("{gateway}-{what}"))
            .display()
            .to_string()
    };
    format!(
        "Sync {{
    Mode FTFW {{
        ResendQueueSize 131072
        ACKWindowSize 300
        CommitTimeout 180
        PurgeTimeout 60
        DisableExternalCache {disabled}
        StartupResync on
    }}
    UDP {{
        IPv4_address {own}
        IPv4_Destination_Address {peer}
        Port 3780
        Interface link
        SndSocketBuffer 24985600
        RcvSocketBuffer 24985600
        Checksum on
    }}
}}
General {{
    HashSize 262144
    HashLimit 2097152
    LogFile {}
    Syslog off
    LockFile {}
    UNIX {{
        Path {}
    }}
    NetlinkBufferSize 2097152
    NetlinkBufferSizeMaxGrowth 8388608
    NetlinkOverrunResync On
    NetlinkEventsReliable Off
    EventIterationLimit 100
    Scheduler {{
        Type FIFO
        Priority 99
    }}
    Filter From Userspace {{
        Address Ignore {{
            IPv4_address 127.0.0.1
            IPv4_address {own}
            IPv4_address {peer}
            IPv6_address ::1
        }}
    }}
}}
",
        file("conntrackd.own.log"),
        file("conntrackd.lock"),
        file("conntrackd.ctl"),
    )
}
