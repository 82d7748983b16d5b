//! Interfaces: finding them, and the macvlan devices that carry the virtual MACs.

use std::io;
use std::net::IpAddr;

use vnfpool_model::{MacAddr, VirtualRouterId};

use crate::netlink::{self, ACK, Body, CREATE, DUMP, EXCLUSIVE, Message};

/// Why something about an interface could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no interface of this name.
    #[error("there is no interface '{name}': check the configured LANs against 'ip link'")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name belongs to a device that is not ours to touch.
    #[error("the interface '{name}' exists already and is no macvlan of ours: remove it")]
    NotOurs {
        /// The name.
        name: String,
    },
    /// The kernel refused.
    #[error("cannot {action} '{name}'")]
    Kernel {
        /// What was attempted.
        action: &'static str,
        /// The interface.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// An interface as the kernel described it at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index in this network namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address; zero if it has none.
    pub mac: MacAddr,
    /// Whether its administrator turned it on.
    pub is_up: bool,
    /// Whether it is up and has carrier.
    pub has_carrier: bool,
    /// The interface it sits on, for a macvlan.
    pub parent_ifindex: Option<u32>,
    /// Whether it is a macvlan.
    pub is_macvlan: bool,
}

/// Finds an interface by its name.
///
/// # Errors
/// [`LinkError::NotFound`], or what the kernel refused.
pub fn find(name: &str) -> Result<Interface, LinkError> {
    let body = Body::new(&header(0, 0, 0)).text(IFLA_IFNAME, name);
    query(&body, name)
}

/// Finds an interface by its index.
///
/// # Errors
/// [`LinkError::NotFound`], or what the kernel refused.
pub fn by_index(ifindex: u32) -> Result<Interface, LinkError> {
    query(&Body::new(&header(ifindex, 0, 0)), &format!("#{ifindex}"))
}

/// The usual name of the device that carries the virtual MAC of `vrid` for the family of
/// `address`: `vp11v4`, `vp11v6`.
#[must_use]
pub fn device_name(vrid: VirtualRouterId, address: IpAddr) -> String {
    let family = if address.is_ipv4() { 4 } else { 6 };
    format!("vp{vrid}v{family}")
}

/// Makes sure that there is a macvlan device on `parent` with the virtual MAC of `vrid` for the
/// family of `address`. A new one is down.
///
/// Its mode is private: frames from other devices on the same parent then have to come in from
/// outside, where the gate sees them. A virtual router id is unique per LAN only, so on a second
/// LAN the name gets the parent's index behind it.
///
/// # Errors
/// [`LinkError::NotOurs`] if the name is taken, or what the kernel refused.
pub fn ensure_macvlan(
    parent: &Interface,
    vrid: VirtualRouterId,
    address: IpAddr,
) -> Result<Interface, LinkError> {
    let usual = device_name(vrid, address);
    let mac = vrid.mac(address);
    let is_ours = |found: &Interface| found.is_macvlan && found.mac == mac;
    let name = match find(&usual) {
        Ok(found) if is_ours(&found) && found.parent_ifindex == Some(parent.ifindex) => {
            return Ok(found);
        }
        Ok(found) if is_ours(&found) => format!("{usual}p{}", parent.ifindex),
        Ok(found) => return Err(LinkError::NotOurs { name: found.name }),
        Err(LinkError::NotFound { .. }) => usual,
        Err(error) => return Err(error),
    };
    match create_macvlan(&name, parent, mac) {
        Err(LinkError::Kernel { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?,
    }
    let found = find(&name)?;
    if is_ours(&found) && found.parent_ifindex == Some(parent.ifindex) {
        Ok(found)
    } else {
        Err(LinkError::NotOurs { name })
    }
}

/// Writes down whose an interface is, for [`with_alias`] and for whoever looks at `ip link`.
///
/// # Errors
/// What the kernel refused.
pub fn set_alias(interface: &Interface, alias: &str) -> Result<(), LinkError> {
    let body =
        Body::new(&header(interface.ifindex, 0, 0)).attribute(IFLA_IFALIAS, alias.as_bytes());
    let done = netlink::request(netlink::ROUTE, RTM_NEWLINK, ACK, &body);
    done.map(drop).map_err(|source| LinkError::Kernel {
        action: "write an alias to",
        name: interface.name.clone(),
        source,
    })
}

/// All macvlan devices of this network namespace with that alias.
///
/// # Errors
/// What the kernel refused.
pub fn with_alias(alias: &str) -> Result<Vec<Interface>, LinkError> {
    let body = Body::new(&header(0, 0, 0));
    let answers = netlink::request(netlink::ROUTE, RTM_GETLINK, DUMP, &body);
    let answers = answers.map_err(|source| LinkError::Kernel {
        action: "list the interfaces of",
        name: alias.to_owned(),
        source,
    })?;
    let has_alias = |message: &&Message| {
        netlink::attributes(&message.body, HEADER_BYTES)
            .any(|(kind, value)| kind == IFLA_IFALIAS && text(value) == alias)
    };
    let found = answers.iter().filter(has_alias).filter_map(parse);
    Ok(found.filter(|interface| interface.is_macvlan).collect())
}

/// Turns an interface on or off.
///
/// # Errors
/// What the kernel refused.
pub fn set_up(interface: &Interface, up: bool) -> Result<(), LinkError> {
    let flags = if up { IFF_UP } else { 0 };
    let body = Body::new(&header(interface.ifindex, flags, IFF_UP));
    let done = netlink::request(netlink::ROUTE, RTM_NEWLINK, ACK, &body);
    done.map(drop).map_err(|source| LinkError::Kernel {
        action: if up { "turn on" } else { "turn off" },
        name: interface.name.clone(),
        source,
    })
}

/// Removes a device with its addresses; one that is gone already is fine.
///
/// # Errors
/// What the kernel refused.
pub fn remove(interface: &Interface) -> Result<(), LinkError> {
    let body = Body::new(&header(interface.ifindex, 0, 0));
    match netlink::request(netlink::ROUTE, RTM_DELLINK, ACK, &body) {
        Ok(_) => Ok(()),
        Err(source) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        Err(source) => Err(LinkError::Kernel {
            action: "remove",
            name: interface.name.clone(),
            source,
        }),
    }
}

/// Whether this kernel knows macvlan devices. Asking makes it load the module.
pub(crate) fn macvlan_is_known() -> bool {
    // Without a parent none is made: the kernel says "invalid", or that it knows no such kind.
    let asked = create("vnfpool-probe", None, MacAddr([0; 6]));
    !matches!(asked, Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP))
}

fn create_macvlan(name: &str, parent: &Interface, mac: MacAddr) -> Result<(), LinkError> {
    create(name, Some(parent.ifindex), mac).map_err(|source| LinkError::Kernel {
        action: "create the macvlan device",
        name: name.to_owned(),
        source,
    })
}

fn create(name: &str, parent: Option<u32>, mac: MacAddr) -> io::Result<()> {
    // Broadcasts, and who asks for our address broadcasts, would otherwise wait for a worker of
    // ordinary priority: on a busy machine longer than a takeover takes. Kernels before 6.4 pass
    // over the second attribute, and the questions wait there.
    let mode = Body::new(&[])
        .attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_PRIVATE.to_ne_bytes())
        .attribute(IFLA_MACVLAN_BC_CUTOFF, &MACVLAN_NEVER_QUEUE.to_ne_bytes());
    let info = Body::new(&[])
        .text(IFLA_INFO_KIND, "macvlan")
        .nested(IFLA_INFO_DATA, mode);
    let mut body = Body::new(&header(0, 0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac.0)
        .nested(IFLA_LINKINFO, info);
    if let Some(parent) = parent {
        body = body.attribute(IFLA_LINK, &parent.to_ne_bytes());
    }
    let flags = ACK | CREATE | EXCLUSIVE;
    netlink::request(netlink::ROUTE, RTM_NEWLINK, flags, &body).map(drop)
}

fn query(body: &Body, name: &str) -> Result<Interface, LinkError> {
    let not_found = || LinkError::NotFound { name: name.into() };
    match netlink::request(netlink::ROUTE, RTM_GETLINK, ACK, body) {
        Ok(answers) => answers.iter().find_map(parse).ok_or_else(not_found),
        // ERANGE: a name longer than an interface can have.
        Err(source) if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ERANGE)) => {
            Err(not_found())
        }
        Err(source) => Err(LinkError::Kernel {
            action: "look up the interface",
            name: name.into(),
            source,
        }),
    }
}

/// The interface that a link message describes.
pub(crate) fn parse(message: &Message) -> Option<Interface> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let flags = netlink::number(&message.body, 8)?;
    let mut found = Interface {
        ifindex: netlink::number(&message.body, 4)?,
        name: String::new(),
        mac: MacAddr([0; 6]),
        is_up: flags & IFF_UP != 0,
        has_carrier: flags & IFF_UP != 0 && flags & IFF_LOWER_UP != 0,
        parent_ifindex: None,
        is_macvlan: false,
    };
    for (kind, value) in netlink::attributes(&message.body, HEADER_BYTES) {
        match kind {
            IFLA_IFNAME => found.name = text(value),
            IFLA_ADDRESS => found.mac = value.try_into().map_or(MacAddr([0; 6]), MacAddr),
            IFLA_LINK => found.parent_ifindex = netlink::number(value, 0),
            IFLA_LINKINFO => {
                found.is_macvlan = netlink::attributes(value, 0)
                    .any(|(kind, value)| kind == IFLA_INFO_KIND && text(value) == "macvlan");
            }
            _ => {}
        }
    }
    Some(found)
}

/// The index that a message about a removed link names.
pub(crate) fn parse_removed(message: &Message) -> Option<u32> {
    let is_link = netlink::number(&message.body, 0)? & 0xff == 0;
    (message.kind == RTM_DELLINK && is_link)
        .then(|| netlink::number(&message.body, 4))
        .flatten()
}

fn text(value: &[u8]) -> String {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}

/// `struct ifinfomsg`.
fn header(ifindex: u32, flags: u32, changed_flags: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&changed_flags.to_ne_bytes());
    header
}

const HEADER_BYTES: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_MACVLAN_BC_CUTOFF: u16 = 9;
/// A negative cutoff.
const MACVLAN_NEVER_QUEUE: i32 = -1;
const MACVLAN_MODE_PRIVATE: u32 = 1;
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 0x1_0000;
