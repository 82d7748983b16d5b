//! Which connections belong to the function, and which are the element's own.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::{fmt, io};

use crate::entry::Entry;
use crate::netlink::socket::NetlinkError;
use crate::tuple::{Key, Layer4, Tuple};

/// Where the addresses of this machine can be seen as they are at any moment.
pub trait OwnAddresses: fmt::Debug + Send + Sync {
    /// All addresses of all interfaces, without the virtual ones. Called for every batch of events
    /// and every part of a dump, so it should cost next to nothing while nothing changes.
    ///
    /// # Errors
    /// Why they are not known: nothing is judged then.
    fn current(&self) -> io::Result<Arc<HashSet<IpAddr>>>;
}

/// Tells the function's connections from the element's own: those must neither be sent to the
/// standby nor deleted there.
///
/// A connection is the element's own when its first packet comes from one of the element's real
/// addresses, or when its answers do. Virtual addresses are not real ones: what ends at them, or
/// is translated to them, moves with them.
///
/// Addresses come and go. A scope judges by those of the last [`Scope::look`], and whoever reads
/// entries looks after that and before it judges them: a connection has no address that was not
/// there before it.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    own_addresses: Arc<HashSet<IpAddr>>,
    watched: Option<Arc<dyn OwnAddresses>>,
    excluded_ports: HashSet<(u8, u16)>,
}

impl Scope {
    /// A scope that leaves out connections of the addresses `own_addresses` of this element
    /// (virtual addresses must not be among them).
    pub fn new(own_addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            own_addresses: Arc::new(own_addresses.into_iter().collect()),
            ..Self::default()
        }
    }

    /// A scope that leaves out connections of whatever addresses this machine has at the time.
    ///
    /// # Errors
    /// As [`Scope::look`].
    pub fn watching(addresses: Arc<dyn OwnAddresses>) -> Result<Self, NetlinkError> {
        let mut scope = Self {
            watched: Some(addresses),
            ..Self::default()
        };
        scope.look()?;
        Ok(scope)
    }

    /// Takes in which addresses this machine has now.
    ///
    /// # Errors
    /// [`NetlinkError::Addresses`]: what was read before must not be judged.
    pub fn look(&mut self) -> Result<(), NetlinkError> {
        if let Some(watched) = &self.watched {
            self.own_addresses = watched.current().map_err(NetlinkError::Addresses)?;
        }
        Ok(())
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

    /// An interface that comes up with an address.
    #[derive(Debug, Default)]
    struct Changing(std::sync::Mutex<Option<IpAddr>>);

    impl OwnAddresses for Changing {
        fn current(&self) -> io::Result<Arc<HashSet<IpAddr>>> {
            Ok(Arc::new(self.0.lock().unwrap().iter().copied().collect()))
        }
    }

    #[test]
    fn an_address_counts_from_the_next_look_on() {
        let addresses = Arc::new(Changing::default());
        let mut scope = Scope::watching(addresses.clone()).unwrap();
        let entry = udp_entry("10.3.0.1:1000", "10.3.0.9:2000");
        assert!(scope.covers(&entry));
        *addresses.0.lock().unwrap() = Some("10.3.0.1".parse().unwrap());
        scope.look().unwrap();
        assert!(!scope.covers(&entry));
        *addresses.0.lock().unwrap() = None;
        scope.look().unwrap();
        assert!(scope.covers(&entry));
    }
}
