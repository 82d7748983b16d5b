//! Which connections belong to the function, and which are the element's own.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::entry::Entry;
use crate::tuple::{Key, Layer4, Tuple};

/// Tells the function's connections from the element's own: those must neither be sent to the
/// standby nor deleted there.
///
/// A connection is the element's own when its first packet comes from one of the element's real
/// addresses, or when its answers do. Virtual addresses are not real ones: what ends at them, or
/// is translated to them, moves with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    own_addresses: HashSet<IpAddr>,
    excluded_ports: HashSet<(u8, u16)>,
}

impl Scope {
    /// A scope that leaves out connections of the addresses `own_addresses` of this element
    /// (virtual addresses must not be among them).
    pub fn new(own_addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            own_addresses: own_addresses.into_iter().collect(),
            excluded_ports: HashSet::new(),
        }
    }

    /// Leaves out connections of IP protocol `protocol` to the port `port` as well.
    #[must_use]
    pub fn without_port(mut self, protocol: u8, port: u16) -> Self {
        self.excluded_ports.insert((protocol, port));
        self
    }

    /// Whether `entry` belongs to the function.
    #[must_use]
    pub fn covers(&self, entry: &Entry) -> bool {
        self.may_cover(&entry.key) && !self.is_own(entry.reply.src)
    }

    /// Whether a connection of this key can belong to the function; where its answers come from
    /// may still decide otherwise.
    #[must_use]
    pub fn may_cover(&self, key: &Key) -> bool {
        !self.is_own(key.original.src) && !self.is_excluded(&key.original)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        address.is_loopback() || is_link_local(address) || self.own_addresses.contains(&address)
    }

    fn is_excluded(&self, original: &Tuple) -> bool {
        match original.layer4 {
            Layer4::Ports { dst, .. } => self.excluded_ports.contains(&(original.protocol, dst)),
            Layer4::Icmp { .. } | Layer4::None => false,
        }
    }
}

/// Link-local traffic is never forwarded.
const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp_entry;

    #[test]
    fn own_connections_are_left_out_in_both_directions() {
        let scope = Scope::new(["10.1.0.1".parse().unwrap()]).without_port(17, 4789);
        assert!(scope.covers(&udp_entry("10.1.0.9:1000", "10.2.0.9:2000")));
        assert!(!scope.covers(&udp_entry("10.1.0.1:1000", "10.2.0.9:2000")));
        assert!(!scope.covers(&udp_entry("10.1.0.9:1000", "10.1.0.1:2000")));
        assert!(!scope.covers(&udp_entry("127.0.0.1:1000", "127.0.0.1:2000")));
        assert!(!scope.covers(&udp_entry("[fe80::1]:1000", "[ff02::1]:2000")));
        assert!(!scope.covers(&udp_entry("10.1.0.9:1000", "10.2.0.9:4789")));
        assert!(scope.covers(&udp_entry("10.1.0.9:4789", "10.2.0.9:2000")));
    }

    #[test]
    fn what_is_translated_to_a_virtual_address_is_covered() {
        let mut entry = udp_entry("10.1.0.9:1000", "10.2.0.9:2000");
        entry.reply.dst = "10.2.0.254".parse().unwrap();
        assert!(Scope::new(["10.2.0.1".parse().unwrap()]).covers(&entry));
    }
}
