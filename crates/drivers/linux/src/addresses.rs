//! The addresses of an interface.

use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};

use ipnet::IpNet;

use crate::links::Interface;
use crate::netlink::{self, ACK, Body, CREATE, DUMP, REPLACE};

/// Why something about an address could not be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {address} on '{interface}'")]
#[non_exhaustive]
pub struct AddressError {
    /// What was attempted.
    pub action: &'static str,
    /// The address, or `addresses`.
    pub address: String,
    /// The interface.
    pub interface: String,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Makes sure that an interface has `address`, as a single host without a route to a subnet and
/// without duplicate address detection: the address is on other elements too, behind their gates.
///
/// # Errors
/// What the kernel refused.
pub fn ensure(interface: &Interface, address: IpAddr) -> Result<(), AddressError> {
    let body = body(interface, address).attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes());
    change(RTM_NEWADDR, CREATE | REPLACE, &body)
        .map_err(|source| error("add the address", interface, address, source))
}

/// Removes an address; one that is not there is fine.
///
/// # Errors
/// What the kernel refused.
pub fn remove(interface: &Interface, address: IpAddr) -> Result<(), AddressError> {
    match change(RTM_DELADDR, 0, &body(interface, address)) {
        Err(source)
            if !matches!(
                source.raw_os_error(),
                Some(libc::EADDRNOTAVAIL | libc::ENODEV)
            ) =>
        {
            Err(error("remove the address", interface, address, source))
        }
        _ => Ok(()),
    }
}

/// The addresses of an interface, with their prefix lengths.
///
/// # Errors
/// What the kernel refused.
pub fn list(interface: &Interface) -> Result<Vec<IpNet>, AddressError> {
    let all = list_all().map_err(|source| error("list", interface, "addresses", source))?;
    let here = all
        .into_iter()
        .filter(|(ifindex, _)| *ifindex == interface.ifindex);
    Ok(here.map(|(_, address)| address).collect())
}

/// The addresses of all interfaces of this network namespace, each with its interface's index.
pub(crate) fn list_all() -> io::Result<Vec<(u32, IpNet)>> {
    let body = Body::new(&[0; HEADER_BYTES]);
    let answers = netlink::request(netlink::ROUTE, RTM_GETADDR, DUMP, &body)?;
    let found = answers
        .iter()
        .filter(|message| message.kind == RTM_NEWADDR)
        .filter_map(|message| Some((netlink::number(&message.body, 4)?, parse(&message.body)?)));
    Ok(found.collect())
}

/// Keeps the LAN's switches sending us the multicast group in which IPv6 neighbors ask for a
/// virtual address (RFC 4291 §2.7.1), as long as it lives.
///
/// The virtual device joins the group too, but its report does not get through a closed gate, and
/// a switch that snoops MLD would not forward the questions after a takeover. So the parent joins
/// as well, under its own MAC.
#[derive(Debug)]
pub struct GroupMembership {
    _socket: UdpSocket,
}

impl GroupMembership {
    /// Joins the group of `address` on the parent interface.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn join(parent: &Interface, address: Ipv6Addr) -> Result<Self, AddressError> {
        let joined = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).and_then(|socket| {
            socket.join_multicast_v6(&solicited_node(address), parent.ifindex)?;
            Ok(Self { _socket: socket })
        });
        joined.map_err(|source| error("join the group of", parent, address, source))
    }
}

/// `ff02::1:ffXX:XXXX` with the last three bytes of an address.
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

fn parse(body: &[u8]) -> Option<IpNet> {
    let prefix_length = *body.get(1)?;
    let (mut local, mut peer) = (None, None);
    for (kind, value) in netlink::attributes(body, HEADER_BYTES) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
            _ => {}
        }
    }
    // For IPv6, and for point-to-point links the other way round, only one of them is ours.
    IpNet::new(local.or(peer)?, prefix_length).ok()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    Some(<[u8; 16]>::try_from(bytes).ok()?.into())
}

fn change(kind: u16, flags: u16, body: &Body) -> io::Result<()> {
    netlink::request(netlink::ROUTE, kind, ACK | flags, body).map(drop)
}

/// `struct ifaddrmsg` and the address.
fn body(interface: &Interface, address: IpAddr) -> Body {
    let (family, prefix_length, bytes) = match address {
        IpAddr::V4(address) => (AF_INET, 32, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, 128, address.octets().to_vec()),
    };
    let mut header = [family, prefix_length, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&interface.ifindex.to_ne_bytes());
    Body::new(&header)
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes)
}

fn error(
    action: &'static str,
    interface: &Interface,
    address: impl ToString,
    source: io::Error,
) -> AddressError {
    AddressError {
        action,
        address: address.to_string(),
        interface: interface.name.clone(),
        source,
    }
}

const HEADER_BYTES: usize = 8;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
