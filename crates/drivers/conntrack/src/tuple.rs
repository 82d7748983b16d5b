//! Tuples: what identifies a connection in one direction.

use std::fmt;
use std::net::IpAddr;

/// IP protocol numbers that this crate treats specially.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// GRE; the two halves of the key stand where others have ports.
    pub const GRE: u8 = 47;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What a tuple holds above the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer4 {
    /// Source and destination port (TCP, UDP, SCTP, …) or GRE key.
    Ports {
        /// Source port, host byte order.
        src: u16,
        /// Destination port, host byte order.
        dst: u16,
    },
    /// ICMP and ICMPv6 queries.
    Icmp {
        /// Identifier of the query, host byte order.
        id: u16,
        /// Message type.
        kind: u8,
        /// Message code.
        code: u8,
    },
    /// A protocol that the kernel tracks by addresses alone.
    None,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address; of the same family as `dst` (see [`Tuple::check`]).
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Ports, or ICMP identifier, type and code.
    pub layer4: Layer4,
}

/// Why a tuple cannot be one of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TupleError {
    /// One address is IPv4, the other IPv6.
    #[error("source and destination of the tuple are of different address families")]
    MixedFamilies,
    /// ICMP of the other family, ports where an identifier is needed, or the reverse.
    #[error("protocol {protocol} does not go with the rest of the tuple")]
    WrongLayer4 {
        /// The protocol number.
        protocol: u8,
    },
    /// The kernel tracks ICMP queries only.
    #[error("icmp type {kind} is not a query or its answer, so it is not tracked")]
    IcmpType {
        /// The ICMP type.
        kind: u8,
    },
}

impl Tuple {
    /// Accepts the tuple if the kernel could hold it.
    ///
    /// # Errors
    /// [`TupleError`] names the first thing that is wrong.
    pub fn check(&self) -> Result<(), TupleError> {
        if self.src.is_ipv4() != self.dst.is_ipv4() {
            return Err(TupleError::MixedFamilies);
        }
        let protocol = self.protocol;
        let expected_icmp = if self.src.is_ipv4() {
            protocol::ICMP
        } else {
            protocol::ICMPV6
        };
        match self.layer4 {
            Layer4::Icmp { kind, .. } if protocol == expected_icmp => inverse_icmp(protocol, kind)
                .map(|_| ())
                .ok_or(TupleError::IcmpType { kind }),
            Layer4::Ports { .. } if has_ports(protocol) => Ok(()),
            Layer4::None if !has_ports(protocol) && protocol != expected_icmp => Ok(()),
            Layer4::Icmp { .. } | Layer4::Ports { .. } | Layer4::None => {
                Err(TupleError::WrongLayer4 { protocol })
            }
        }
    }

    /// The tuple of the answer, as it would be without address translation.
    ///
    /// ICMP types without an inverse (never in a tuple that passed [`Tuple::check`]) stay.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let layer4 = match self.layer4 {
            Layer4::Ports { src, dst } => Layer4::Ports { src: dst, dst: src },
            Layer4::Icmp { id, kind, code } => Layer4::Icmp {
                id,
                kind: inverse_icmp(self.protocol, kind).unwrap_or(kind),
                code,
            },
            Layer4::None => Layer4::None,
        };
        Self {
            src: self.dst,
            dst: self.src,
            protocol: self.protocol,
            layer4,
        }
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} > {}", self.protocol, self.src, self.dst)?;
        match self.layer4 {
            Layer4::Ports { src, dst } => write!(f, " {src} > {dst}"),
            Layer4::Icmp { id, kind, code } => write!(f, " id {id} type {kind} code {code}"),
            Layer4::None => Ok(()),
        }
    }
}

/// Which directions a zone applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneDirection {
    /// Both: the ordinary case.
    #[default]
    Both,
    /// The original direction only.
    Original,
    /// The reply direction only.
    Reply,
}

/// A conntrack zone: equal tuples in different zones are different connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone {
    /// Number of the zone; 0 is the default zone.
    pub id: u16,
    /// Directions it applies to.
    pub direction: ZoneDirection,
}

/// What identifies a connection in one kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The tuple of the first packet, before address translation.
    pub original: Tuple,
    /// Its zone.
    pub zone: Zone,
}

/// Whether the kernel keeps ports (or a GRE key) for `protocol`.
/// Whether tuples of the IP protocol `number` have ports.
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    const DCCP: u8 = 33;
    const UDPLITE: u8 = 136;
    matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::SCTP | protocol::GRE | DCCP | UDPLITE
    )
}

/// The answer to ICMP type `kind`, as in the kernel's `nf_conntrack_proto_icmp{,v6}.c`.
fn inverse_icmp(protocol: u8, kind: u8) -> Option<u8> {
    const PAIRS_V4: [(u8, u8); 4] = [(8, 0), (13, 14), (15, 16), (17, 18)];
    const PAIRS_V6: [(u8, u8); 2] = [(128, 129), (139, 140)];
    let pairs: &[(u8, u8)] = if protocol == protocol::ICMP {
        &PAIRS_V4
    } else {
        &PAIRS_V6
    };
    pairs.iter().find_map(|&(query, answer)| match kind {
        kind if kind == query => Some(answer),
        kind if kind == answer => Some(query),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(src: &str, dst: &str, protocol: u8, kind: u8) -> Tuple {
        Tuple {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol,
            layer4: Layer4::Icmp {
                id: 7,
                kind,
                code: 0,
            },
        }
    }

    #[test]
    fn the_inverse_of_the_inverse_is_the_tuple() {
        let ports = Tuple {
            src: "10.1.0.1".parse().unwrap(),
            dst: "10.2.0.1".parse().unwrap(),
            protocol: protocol::TCP,
            layer4: Layer4::Ports { src: 1, dst: 2 },
        };
        for tuple in [
            ports,
            echo("10.1.0.1", "10.2.0.1", protocol::ICMP, 8),
            echo("fd00:1::1", "fd00:2::1", protocol::ICMPV6, 128),
        ] {
            assert_eq!(tuple.check(), Ok(()));
            assert_ne!(tuple.inverse(), tuple);
            assert_eq!(tuple.inverse().inverse(), tuple);
        }
    }

    #[test]
    fn impossible_tuples_are_refused() {
        let mixed = Tuple {
            src: "10.1.0.1".parse().unwrap(),
            ..echo("fd00:1::1", "fd00:2::1", protocol::ICMPV6, 128)
        };
        assert_eq!(mixed.check(), Err(TupleError::MixedFamilies));
        let unreachable = echo("10.1.0.1", "10.2.0.1", protocol::ICMP, 3);
        assert_eq!(unreachable.check(), Err(TupleError::IcmpType { kind: 3 }));
        let other_family = echo("10.1.0.1", "10.2.0.1", protocol::ICMPV6, 128);
        assert_eq!(
            other_family.check(),
            Err(TupleError::WrongLayer4 { protocol: 58 })
        );
        let tcp_without_ports = Tuple {
            protocol: protocol::TCP,
            layer4: Layer4::None,
            ..echo("10.1.0.1", "10.2.0.1", protocol::ICMP, 8)
        };
        assert_eq!(
            tcp_without_ports.check(),
            Err(TupleError::WrongLayer4 { protocol: 6 })
        );
    }
}
