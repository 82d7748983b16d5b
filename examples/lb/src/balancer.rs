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
    /// When its entry was put last, in seconds of any clock that goes on; none if it never was, so that
    /// nobody else knows it.
    put_s: Option<u64>,
    /// In which it was shown or put last.
    round: u32,
}

/// The service, its backends and its flows.
#[derive(Debug)]
pub struct Balancer {
    service: SocketAddrV4,
    serves: bool,
    table: Maglev,
    flows: FxHashMap<FlowKey, Flow>,
    /// Counts how often all entries were shown.
    round: u32,
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
            round: 0,
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
            let flow = Flow {
                backend,
                put_s: Some(now_s),
                round: self.round,
            };
            self.flows.insert(key, flow);
        }
    }

    /// An entry is gone.
    pub fn forget(&mut self, key: &[u8]) {
        if let Ok(key) = FlowKey::try_from(key) {
            self.flows.remove(&key);
        }
    }

    /// Every entry that there is will be shown, in any order. Until then flows go on as they are.
    pub const fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Every entry was shown since [`Self::begin_round`]: what was not, and was not put since, is gone.
    pub fn end_round(&mut self) {
        let round = self.round;
        self.flows
            .retain(|_, flow| flow.round == round || flow.put_s.is_none());
    }

    /// The keys of all flows.
    pub fn keys(&self) -> impl Iterator<Item = &FlowKey> {
        self.flows.keys()
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

    /// The entry of a flow that was put before `before_s`, or never.
    #[must_use]
    pub fn due(&self, key: &FlowKey, before_s: u64) -> Option<[u8; 6]> {
        let flow = self.flows.get(key)?;
        let is_due = flow.put_s.is_none_or(|put_s| put_s < before_s);
        is_due.then(|| bytes_of(flow.backend))
    }

    /// The entry of a flow was put at `now_s`.
    pub fn was_put(&mut self, key: &FlowKey, now_s: u64) {
        if let Some(flow) = self.flows.get_mut(key) {
            (flow.put_s, flow.round) = (Some(now_s), self.round);
        }
    }

    /// Rewrites a packet, and says what to do with it and of which flow it is.
    pub fn handle(&mut self, bytes: &mut [u8]) -> (Verdict, Option<FlowKey>) {
        let Some(mut packet) = Packet::parse(bytes) else {
            return (Verdict::Drop, None);
        };
        if packet.destination() == self.service {
            return match self.serves {
                true => self.forward(&mut packet),
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

    fn forward(&mut self, packet: &mut Packet<'_>) -> (Verdict, Option<FlowKey>) {
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
        let flow = Flow {
            backend,
            put_s: None,
            round: self.round,
        };
        self.flows.insert(key, flow);
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
        let verdict = balancer.handle(&mut bytes).0;
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
        for key in one.keys() {
            other.learn(key, &one.entry(key).unwrap(), 0);
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
        assert!(balancer.due(&[0; KEY_BYTES], 6).is_some());
        balancer.was_put(&[0; KEY_BYTES], 6);
        assert_eq!(balancer.due(&[0; KEY_BYTES], 6), None, "put just now");
        balancer.forget(&[0; KEY_BYTES]);
        assert_eq!(balancer.flows(), 0);
    }

    /// Goal: when everything is shown anew, flows go on meanwhile, and only those end that the agent
    /// does not have any more: not one that it was never told of, or was told of since.
    #[test]
    fn what_is_not_shown_any_more_is_forgotten_at_the_end_of_the_round() {
        let mut balancer = balancer(&["10.2.0.21:80"]);
        let value = [10, 2, 0, 21, 0, 80];
        let [shown, put, gone] = [1, 2, 3].map(|n| [n; KEY_BYTES]);
        for key in [shown, put, gone] {
            balancer.learn(&key, &value, 0);
        }
        sent(&mut balancer, CLIENT, SERVICE, SYN);
        balancer.begin_round();
        balancer.learn(&shown, &value, 0);
        balancer.was_put(&put, 0);
        assert_eq!(balancer.flows(), 4);
        balancer.end_round();
        assert_eq!((balancer.flows(), balancer.entry(&gone)), (3, None));
        assert_eq!(
            sent(&mut balancer, CLIENT, SERVICE, ACK).0,
            Verdict::Forward
        );
        assert_eq!(balancer.due(&put, 0), None);
        let client = *balancer
            .keys()
            .find(|key| ![shown, put].contains(key))
            .unwrap();
        assert!(balancer.due(&client, 0).is_some(), "it was never put");
    }
}
