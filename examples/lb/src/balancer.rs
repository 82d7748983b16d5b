//! Packets in, packets out: which backend each gets, by the table of flows or by Maglev.

use std::net::{Ipv4Addr, SocketAddrV4};

use rustc_hash::FxHashMap;

use crate::maglev::Maglev;
use crate::packet::Packet;

/// Bytes of a flow's key: the client's address and port, then the service's.
pub const KEY_BYTES: usize = 12;

/// A connection from a client to the service.
pub type FlowKey = [u8; KEY_BYTES];

/// Most flows; with so many, new connections are not taken.
pub const FLOWS_MAX: usize = 2_000_000;

/// What is to be done with a packet, which is rewritten already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on.
    Forward,
    /// Send it on once the successor has the entry of its flow.
    ForwardOnce(FlowKey),
    /// It is of nobody that is known here.
    Drop,
}

/// A flow as this instance knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    backend: SocketAddrV4,
    /// When its entry was put last, in seconds of any clock that goes on.
    put_s: u64,
}

/// The service, its backends and its flows.
#[derive(Debug)]
pub struct Balancer {
    service: SocketAddrV4,
    serves: bool,
    table: Maglev,
    flows: FxHashMap<FlowKey, Flow>,
}

impl Balancer {
    /// Without backends and flows, and not serving.
    #[must_use]
    pub fn new(service: SocketAddrV4) -> Self {
        Self {
            service,
            serves: false,
            table: Maglev::default(),
            flows: FxHashMap::default(),
        }
    }

    /// Whether this instance forwards what belongs to the service.
    pub const fn set_serving(&mut self, serves: bool) {
        self.serves = serves;
    }

    /// New flows go to these from now on; those that are there stay where they are.
    pub fn set_backends(&mut self, backends: &[SocketAddrV4]) {
        self.table = Maglev::new(backends);
    }

    /// Takes in an entry of another instance, or of this one.
    pub fn learn(&mut self, key: &[u8], value: &[u8], now_s: u64) {
        // Whatever else is there, another version of this program has put.
        if let (Ok(key), Some(backend)) = (FlowKey::try_from(key), address(value)) {
            let put_s = now_s;
            self.flows.insert(key, Flow { backend, put_s });
        }
    }

    /// An entry is gone.
    pub fn forget(&mut self, key: &[u8]) {
        if let Ok(key) = FlowKey::try_from(key) {
            self.flows.remove(&key);
        }
    }

    /// Every entry is gone.
    pub fn forget_all(&mut self) {
        self.flows.clear();
    }

    /// Every flow as an entry.
    pub fn entries(&self) -> impl Iterator<Item = (FlowKey, [u8; 6])> {
        self.flows
            .iter()
            .map(|(key, flow)| (*key, bytes_of(flow.backend)))
    }

    /// The entry of a flow; none if there is no such flow.
    #[must_use]
    pub fn entry(&self, key: &FlowKey) -> Option<[u8; 6]> {
        self.flows.get(key).map(|flow| bytes_of(flow.backend))
    }

    /// Flows that are known.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Whether the entry of a flow was put before `before_s`; it counts as put now then.
    pub fn refresh(&mut self, key: &FlowKey, before_s: u64, now_s: u64) -> bool {
        match self.flows.get_mut(key) {
            Some(flow) if flow.put_s < before_s => {
                flow.put_s = now_s;
                true
            }
            _ => false,
        }
    }

    /// Rewrites a packet, and says what to do with it and of which flow it is.
    pub fn handle(&mut self, bytes: &mut [u8], now_s: u64) -> (Verdict, Option<FlowKey>) {
        let Some(mut packet) = Packet::parse(bytes) else {
            return (Verdict::Drop, None);
        };
        if packet.destination() == self.service {
            return match self.serves {
                true => self.forward(&mut packet, now_s),
                false => (Verdict::Drop, None),
            };
        }
        let key = key_of(packet.destination(), self.service);
        match self.flows.get(&key) {
            Some(flow) if flow.backend == packet.source() => {
                if !self.serves {
                    return (Verdict::Drop, None);
                }
                packet.set_source(self.service);
                (Verdict::Forward, Some(key))
            }
            _ => (Verdict::Drop, None),
        }
    }

    fn forward(&mut self, packet: &mut Packet<'_>, now_s: u64) -> (Verdict, Option<FlowKey>) {
        let key = key_of(packet.source(), self.service);
        let known = self.flows.get(&key).map(|flow| flow.backend);
        if let Some(backend) = known {
            packet.set_destination(backend);
            return (Verdict::Forward, Some(key));
        }
        // One that nobody knows has been closed, or belongs to an instance that could not commit it: the
        // backend that would get it now knows nothing of it either.
        if !packet.is_first() || self.flows.len() >= FLOWS_MAX {
            return (Verdict::Drop, None);
        }
        let Some(backend) = self.table.pick(&key) else {
            return (Verdict::Drop, None);
        };
        let put_s = now_s;
        self.flows.insert(key, Flow { backend, put_s });
        packet.set_destination(backend);
        (Verdict::ForwardOnce(key), Some(key))
    }
}

fn key_of(client: SocketAddrV4, service: SocketAddrV4) -> FlowKey {
    let mut key = [0; KEY_BYTES];
    key[..6].copy_from_slice(&bytes_of(client));
    key[6..].copy_from_slice(&bytes_of(service));
    key
}

fn bytes_of(address: SocketAddrV4) -> [u8; 6] {
    let [a, b, c, d] = address.ip().octets();
    let [high, low] = address.port().to_be_bytes();
    [a, b, c, d, high, low]
}

fn address(bytes: &[u8]) -> Option<SocketAddrV4> {
    let &[a, b, c, d, high, low] = bytes else {
        return None;
    };
    Some(SocketAddrV4::new(
        Ipv4Addr::new(a, b, c, d),
        u16::from_be_bytes([high, low]),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::testing::tcp;

    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn balancer(backends: &[&str]) -> Balancer {
        let mut balancer = Balancer::new(at("10.100.0.1:80"));
        balancer.set_serving(true);
        balancer.set_backends(&backends.iter().map(|b| at(b)).collect::<Vec<_>>());
        balancer
    }

    fn sent(balancer: &mut Balancer, from: &str, to: &str, flags: u8) -> (Verdict, SocketAddrV4) {
        let mut bytes = tcp(at(from), at(to), flags, b"x");
        let verdict = balancer.handle(&mut bytes, 0).0;
        let packet = Packet::parse(&mut bytes).unwrap();
        match packet.source() == at(from) {
            true => (verdict, packet.destination()),
            false => (verdict, packet.source()),
        }
    }

    const SERVICE: &str = "10.100.0.1:80";
    const CLIENT: &str = "10.1.0.10:4000";

    /// Goal: the point of it all. Another instance, which has the entry and another set of backends, sends a
    /// connection where it was.
    #[test]
    fn a_connection_stays_with_its_backend_on_another_instance() {
        let mut one = balancer(&["10.2.0.21:80", "10.2.0.22:80", "10.2.0.23:80"]);
        let (verdict, backend) = sent(&mut one, CLIENT, SERVICE, SYN);
        assert!(matches!(verdict, Verdict::ForwardOnce(_)));
        assert_eq!(
            sent(&mut one, CLIENT, SERVICE, ACK),
            (Verdict::Forward, backend)
        );
        let others = ["10.2.0.21:80", "10.2.0.22:80", "10.2.0.23:80"];
        let others: Vec<_> = others.into_iter().filter(|b| at(b) != backend).collect();
        let mut other = balancer(&others);
        assert_eq!(sent(&mut other, CLIENT, SERVICE, ACK).0, Verdict::Drop);
        for (key, value) in one.entries() {
            other.learn(&key, &value, 0);
        }
        assert_eq!(
            sent(&mut other, CLIENT, SERVICE, ACK),
            (Verdict::Forward, backend)
        );
        // And back: the client hears the service.
        let back = sent(&mut other, &backend.to_string(), CLIENT, ACK);
        assert_eq!(back, (Verdict::Forward, at(SERVICE)));
    }

    #[test]
    fn what_belongs_to_no_flow_is_dropped() {
        let mut balancer = balancer(&["10.2.0.21:80"]);
        assert_eq!(sent(&mut balancer, CLIENT, SERVICE, ACK).0, Verdict::Drop);
        let answer = sent(&mut balancer, "10.2.0.21:80", CLIENT, ACK);
        assert_eq!(answer.0, Verdict::Drop);
        balancer.set_serving(false);
        assert_eq!(sent(&mut balancer, CLIENT, SERVICE, SYN).0, Verdict::Drop);
        balancer.set_serving(true);
        balancer.set_backends(&[]);
        assert_eq!(sent(&mut balancer, CLIENT, SERVICE, SYN).0, Verdict::Drop);
        assert_eq!(balancer.flows(), 0);
    }

    #[test]
    fn entries_that_are_none_are_not_learnt() {
        let mut balancer = balancer(&[]);
        balancer.learn(b"short", &[0; 6], 0);
        balancer.learn(&[0; KEY_BYTES], b"no address", 0);
        assert_eq!(balancer.flows(), 0);
        balancer.learn(&[0; KEY_BYTES], &[10, 2, 0, 21, 0, 80], 5);
        assert!(balancer.refresh(&[0; KEY_BYTES], 6, 6));
        assert!(!balancer.refresh(&[0; KEY_BYTES], 6, 6), "put just now");
        balancer.forget(&[0; KEY_BYTES]);
        assert_eq!(balancer.flows(), 0);
    }
}
