//! Entries for tests.

use std::net::SocketAddr;

use crate::entry::{Entry, ProtocolState, Status};
use crate::tuple::{Key, Layer4, Tuple, Zone, protocol};

/// An untranslated UDP connection.
pub(crate) fn udp_entry(src: &str, dst: &str) -> Entry {
    let (src, dst): (SocketAddr, SocketAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    let original = Tuple {
        src: src.ip(),
        dst: dst.ip(),
        protocol: protocol::UDP,
        layer4: Layer4::Ports {
            src: src.port(),
            dst: dst.port(),
        },
    };
    Entry {
        key: Key {
            original,
            zone: Zone::default(),
        },
        reply: original.inverse(),
        status: Status(Status::CONFIRMED),
        timeout_s: 30,
        mark: 0,
        state: ProtocolState::None,
        labels: None,
        seq_adjust: [None; 2],
        helper: None,
        master: None,
    }
}
