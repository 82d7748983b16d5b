//! The flows of a measurement: one number each, from which their ports follow.

use std::net::Ipv4Addr;

use crate::namespaces::VIP_OUTSIDE_V4;

/// Who opens all flows.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
/// Where to.
pub(in super::super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
/// The first destination port that belongs to measured flows. Nothing else in the laboratory uses
/// such ports.
pub(in super::super) const FIRST_PORT: u16 = 20_000;
/// Source ports: above those that the rules of the gateways do not track.
const FIRST_SOURCE: u32 = 10_000;
/// So many flows to one destination port.
const PORTS: u32 = 2_000;

/// Protocol numbers of RFC 790 and its successors.
pub(super) const TCP: u8 = 6;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Ends {
    pub(in super::super) source: (Ipv4Addr, u16),
    pub(in super::super) target: (Ipv4Addr, u16),
}

/// A tracked connection, with its translation: what has to be the same at both gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Flow {
    pub(in super::super) protocol: u8,
    pub(in super::super) original: Ends,
    /// The answers' direction, where it is known.
    pub(in super::super) reply: Option<Ends>,
}

impl Flow {
    /// Whether a measurement has opened it.
    pub(in super::super) fn is_measured(&self) -> bool {
        let original = self.original;
        original.source.0 == CLIENT
            && original.target.0 == SERVER
            && original.target.1 >= FIRST_PORT
    }
}

/// The source and the destination port of flow `number`; all are different below 91 million. A
/// port of the server sees no more of them than fit a quarter of a port block.
pub(in super::super) fn ports_of(number: u32) -> (u16, u16) {
    let source = FIRST_SOURCE + number % PORTS;
    let target = u32::from(FIRST_PORT) + number / PORTS % (u32::from(u16::MAX - FIRST_PORT));
    // Both are below 65,536 by the constants above.
    let port = |port: u32| u16::try_from(port).unwrap_or(u16::MAX);
    (port(source), port(target))
}

/// Flow `number`, translated: the source port stays, since no two flows share both ports.
pub(super) fn flow(protocol: u8, number: u32) -> Flow {
    let (source, target) = ports_of(number);
    Flow {
        protocol,
        original: Ends {
            source: (CLIENT, source),
            target: (SERVER, target),
        },
        reply: Some(Ends {
            source: (SERVER, target),
            target: (VIP_OUTSIDE_V4, source),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_that_of_the_laboratory() {
        assert_eq!(SERVER, crate::namespaces::SERVER_V4);
    }

    /// Goal: as many flows as a measurement opens at most have each their own ports.
    #[test]
    fn flows_have_different_ports() {
        let mut seen = std::collections::HashSet::new();
        assert!((0..2_000_000).all(|number| seen.insert(ports_of(number))));
        assert!(
            seen.iter()
                .all(|(source, target)| *source >= 10_000 && *target >= FIRST_PORT)
        );
    }
}
