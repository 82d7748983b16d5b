//! The few link changes that have to happen at an exact moment.
//!
//! Building the laboratory goes through `ip -batch`. A fault must not wait for a process to
//! start, though: these messages take effect in the system call that sends them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::Namespace;

const RTM_NEWLINK: u16 = 16;
const RTM_SETLINK: u16 = 19;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const AF_UNSPEC: u8 = 0;
const AF_BRIDGE: u8 = 7;
const IFF_UP: u32 = 1;
const IFLA_PROTINFO_NESTED: u16 = 12 | 0x8000;
const IFLA_GROUP: u16 = 27;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const PORT_DISABLED: u8 = 0;
const PORT_FORWARDING: u8 = 3;

/// How long a port may wait for its carrier, and how often it is looked at.
const CARRIER_WAIT: Duration = Duration::from_secs(3);
const CARRIER_STEP: Duration = Duration::from_millis(5);

/// A route netlink socket in one namespace.
#[derive(Debug)]
pub(crate) struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// Opens the socket in `namespace`; it stays there, whichever thread uses it.
    pub(crate) fn open(namespace: &Namespace) -> Result<Self> {
        namespace.run(|| {
            let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
            socket.bind_auto().context("binding a netlink socket")?;
            Ok(Self { socket })
        })
    }

    /// Lets a bridge port forward, or makes every frame through it vanish; the carrier stays.
    pub(crate) fn set_port_forwarding(&self, port: u32, forwarding: bool) -> Result<()> {
        let state = if forwarding {
            PORT_FORWARDING
        } else {
            PORT_DISABLED
        };
        let began = Instant::now();
        loop {
            let set = self.set_port(port, IFLA_BRPORT_STATE, state);
            // The bridge learns a moment later that the other end of the cable is up again.
            let waits = forwarding && set.as_ref().is_err_and(is_network_down);
            if !waits || began.elapsed() > CARRIER_WAIT {
                return set.with_context(|| format!("setting the state of bridge port {port}"));
            }
            std::thread::sleep(CARRIER_STEP);
        }
    }

    /// Isolated ports of a bridge hear everybody but each other.
    pub(crate) fn set_port_isolated(&self, port: u32, isolated: bool) -> Result<()> {
        self.set_port(port, IFLA_BRPORT_ISOLATED, u8::from(isolated))
            .with_context(|| format!("isolating bridge port {port}"))
    }

    /// Puts an interface into a group, by which rules of nftables may match it.
    pub(crate) fn set_group(&self, interface: u32, group: u32) -> Result<()> {
        let mut attribute = Vec::with_capacity(8);
        attribute.extend(8_u16.to_ne_bytes());
        attribute.extend(IFLA_GROUP.to_ne_bytes());
        attribute.extend(group.to_ne_bytes());
        self.request(&link_message(
            RTM_SETLINK,
            AF_UNSPEC,
            interface,
            0,
            0,
            &attribute,
        ))
        .with_context(|| format!("putting interface {interface} into group {group}"))
    }

    /// `ip link set … up|down`.
    pub(crate) fn set_up(&self, interface: u32, up: bool) -> Result<()> {
        let flags = if up { IFF_UP } else { 0 };
        self.request(&link_message(
            RTM_NEWLINK,
            AF_UNSPEC,
            interface,
            flags,
            IFF_UP,
            &[],
        ))
        .with_context(|| format!("setting interface {interface} up or down"))
    }

    fn set_port(&self, port: u32, attribute: u16, value: u8) -> Result<()> {
        // attribute header and value, padded to 8; wrapped in IFLA_PROTINFO.
        let mut body = Vec::with_capacity(12);
        body.extend(12_u16.to_ne_bytes());
        body.extend(IFLA_PROTINFO_NESTED.to_ne_bytes());
        body.extend(5_u16.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend([value, 0, 0, 0]);
        self.request(&link_message(RTM_SETLINK, AF_BRIDGE, port, 0, 0, &body))
    }

    fn request(&self, message: &[u8]) -> Result<()> {
        self.socket
            .send_to(message, &SocketAddr::new(0, 0), 0)
            .context("sending to the kernel")?;
        let (answer, _) = self
            .socket
            .recv_from_full()
            .context("reading the kernel's answer")?;
        let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        let code = answer
            .get(16..20)
            .map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        match (kind, code) {
            (Some(NLMSG_ERROR), Some(0)) => Ok(()),
            (Some(NLMSG_ERROR), Some(code)) => {
                Err(std::io::Error::from_raw_os_error(-code)).context("the kernel refused")
            }
            _ => bail!("the kernel's answer to a link change was not understood"),
        }
    }
}

fn is_network_down(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::NetworkDown)
}

/// The index of an interface inside a namespace.
pub(crate) fn interface_index(namespace: &Namespace, name: &str) -> Result<u32> {
    namespace.run(|| {
        let any = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .context("opening a socket to ask for an interface")?;
        netdevice::name_to_index(&any, name).with_context(|| {
            format!(
                "looking for interface {name} in namespace {}",
                namespace.name()
            )
        })
    })
}

fn link_message(
    kind: u16,
    family: u8,
    interface: u32,
    flags: u32,
    change: u32,
    attributes: &[u8],
) -> Vec<u8> {
    let length = 32 + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(interface.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(change.to_ne_bytes());
    message.extend(attributes);
    message
}
