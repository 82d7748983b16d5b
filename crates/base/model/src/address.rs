//! Virtual addresses and the virtual MAC that carries them.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU8;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The label of a LAN, the same on every element; each element maps it to an interface of its own.
pub type LanName = String;

/// A virtual router identifier, 1 to 255 (RFC 9568 §5.2.3): unique per LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VirtualRouterId(pub NonZeroU8);

impl VirtualRouterId {
    /// The virtual MAC of this router for the family of `address`: `00-00-5E-00-01-{VRID}` for
    /// IPv4, `00-00-5E-00-02-{VRID}` for IPv6 (RFC 9568 §7.3).
    #[must_use]
    pub const fn mac(self, address: IpAddr) -> MacAddr {
        let family = if address.is_ipv4() { 1 } else { 2 };
        MacAddr([0x00, 0x00, 0x5e, 0x00, family, self.0.get()])
    }
}

impl fmt::Display for VirtualRouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address that moves with its slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VirtualAddress {
    /// The address with the prefix length of its LAN, for example `10.1.0.254/24`.
    pub address: IpNet,
    /// The LAN it lives on.
    pub lan: LanName,
    /// The virtual router it belongs to; it decides the virtual MAC.
    pub vrid: VirtualRouterId,
    /// Hosts outside the pool on the same LAN whose answer proves that this LAN is alive
    /// (ARP or neighbour discovery): the evidence that `on_quorum_loss = serve` needs.
    pub witnesses: Vec<IpAddr>,
}

impl VirtualAddress {
    /// The virtual MAC that carries this address.
    #[must_use]
    pub fn mac(&self) -> MacAddr {
        self.vrid.mac(self.address.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_macs_follow_rfc_9568() {
        let vrid = VirtualRouterId(NonZeroU8::new(11).unwrap());
        let v4: IpAddr = "10.1.0.254".parse().unwrap();
        let v6: IpAddr = "fd00::1".parse().unwrap();
        assert_eq!(vrid.mac(v4).to_string(), "00:00:5e:00:01:0b");
        assert_eq!(vrid.mac(v6).to_string(), "00:00:5e:00:02:0b");
    }
}
