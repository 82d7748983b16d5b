//! The table of a namespace as a whole.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::flow::Flow;
use super::message::{self, ACKNOWLEDGE, Answer, Connection, DELETE, DUMP, GET, Request};
use crate::namespaces::Namespace;

/// How many entries there are, of whomever.
pub(in super::super) fn count(namespace: &Namespace) -> Result<u64> {
    // Below the thread's namespace, as all of /proc/sys/net.
    let text = namespace.run(|| {
        fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
            .context("counting the kernel's connections")
    })?;
    text.trim().parse().context("a count that is no number")
}

/// The measured flows in the table, sorted.
pub(in super::super) fn dump(namespace: &Namespace) -> Result<Vec<Flow>> {
    let mut flows = namespace.run(|| {
        let mut connection = Connection::open()?;
        let mut request = Request::default();
        request.begin(GET, DUMP, 1);
        request.end();
        connection.send(request.bytes())?;
        let mut flows = Vec::new();
        loop {
            let datagram = connection
                .receive()
                .context("reading the kernel's connections")?;
            for answer in message::answers(datagram) {
                match answer {
                    Answer::Entry(attributes) => {
                        flows.extend(message::flow(attributes).filter(Flow::is_measured));
                    }
                    Answer::Done => return Ok(flows),
                    Answer::Result(_, 0) => {}
                    Answer::Result(_, code) => {
                        return Err(std::io::Error::from_raw_os_error(code))
                            .context("the kernel does not show its connections");
                    }
                }
            }
        }
    })?;
    flows.sort_unstable();
    // An entry may be shown twice while the table changes.
    flows.dedup();
    Ok(flows)
}

/// Forgets every IPv4 entry.
pub(in super::super) fn flush(namespace: &Namespace) -> Result<()> {
    namespace.run(|| {
        let mut connection = Connection::open()?;
        let mut request = Request::default();
        request.begin(DELETE, ACKNOWLEDGE, 1);
        request.end();
        connection.send(request.bytes())?;
        let datagram = connection.receive().context("forgetting connections")?;
        match message::answers(datagram).next() {
            Some(Answer::Result(_, 0)) => Ok(()),
            answer => bail!("the kernel did not forget its connections: {answer:?}"),
        }
    })
}
