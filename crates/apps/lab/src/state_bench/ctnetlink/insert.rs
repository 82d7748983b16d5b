//! New entries as fast as the kernel takes them: established TCP connections, translated.

use anyhow::{Context as _, Result, bail};

use super::flow::{self, Ends};
use super::message::{
    ACKNOWLEDGE, Answer, CREATE_NEW, Connection, NEW, Request, TUPLE_ORIGINAL, TUPLE_REPLY, answers,
};
use crate::clock::{self, Nanos};
use crate::namespaces::{Namespace, VIP_OUTSIDE_V4};
use crate::signals;

const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const NAT_SOURCE: u16 = 6;
const TIMEOUT: u16 = 7;
const INFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];
const NAT_ADDRESSES: [u16; 2] = [1, 2];
const NAT_PROTOCOL: u16 = 3;
const NAT_PORTS: [u16; 2] = [1, 2];

/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`.
const ESTABLISHED_STATUS: u32 = 2 | 4 | 8;
const TCP_ESTABLISHED: u8 = 3;
/// No measurement lasts so long.
const TIMEOUT_S: u32 = 7200;
/// More in one system call is not faster.
const BATCH: u32 = 128;

/// Enters flows into the table of a namespace, `rate` a second (as fast as it goes without).
/// Returns how long that took, in nanoseconds.
///
/// # Errors
/// When the kernel refuses one, or on an interrupt.
pub(in super::super) fn insert(
    namespace: &Namespace,
    flows: std::ops::Range<u32>,
    rate: Option<u32>,
) -> Result<Nanos> {
    namespace.run(|| {
        let mut connection = Connection::open()?;
        let mut request = Request::default();
        let began = clock::now();
        let mut next = flows.start;
        while next < flows.end {
            signals::check()?;
            if let Some(rate) = rate {
                let done = u64::from(next - flows.start);
                clock::sleep_until(began + done * 1_000_000_000 / u64::from(rate.max(1)));
            }
            let end = next.saturating_add(BATCH).min(flows.end);
            request.clear();
            for number in next..end {
                let last = number + 1 == end;
                build(&mut request, number, if last { ACKNOWLEDGE } else { 0 });
            }
            connection.send(request.bytes())?;
            await_last(&mut connection, end - 1)?;
            next = end;
        }
        Ok(clock::now() - began)
    })
}

/// Reads until the acknowledgement of the last request of a batch; a refusal comes before it.
fn await_last(connection: &mut Connection, last: u32) -> Result<()> {
    loop {
        let datagram = connection.receive().context("entering connections")?;
        for answer in answers(datagram) {
            match answer {
                Answer::Result(number, 0) if number == last => return Ok(()),
                Answer::Result(number, code) if code != 0 => {
                    let error = std::io::Error::from_raw_os_error(code);
                    bail!("the kernel does not take connection {number}: {error}");
                }
                _ => {}
            }
        }
    }
}

fn build(request: &mut Request, number: u32, flags: u16) {
    let flow = flow::flow(flow::TCP, number);
    // The kernel itself makes the translation of an untranslated reply.
    let untranslated = Ends {
        source: flow.original.target,
        target: flow.original.source,
    };
    request.begin(NEW, CREATE_NEW | flags, number);
    request.tuple(TUPLE_ORIGINAL, flow.protocol, flow.original);
    request.tuple(TUPLE_REPLY, flow.protocol, untranslated);
    request.attribute(STATUS, &ESTABLISHED_STATUS.to_be_bytes());
    request.attribute(TIMEOUT, &TIMEOUT_S.to_be_bytes());
    request.nested(PROTOCOL_INFO, |info| {
        info.nested(INFO_TCP, |tcp| {
            tcp.attribute(TCP_STATE, &[TCP_ESTABLISHED]);
            for flags in TCP_FLAGS {
                // `IP_CT_TCP_FLAG_SACK_PERM`, and the mask that says so.
                tcp.attribute(flags, &[2, 2]);
            }
        });
    });
    request.nested(NAT_SOURCE, |nat| {
        for address in NAT_ADDRESSES {
            nat.attribute(address, &VIP_OUTSIDE_V4.octets());
        }
        nat.nested(NAT_PROTOCOL, |ports| {
            for port in NAT_PORTS {
                ports.attribute(port, &flow.original.source.1.to_be_bytes());
            }
        });
    });
    request.end();
}
