//! What an element counts.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::namespaces::Namespace;

/// Where an element of the laboratory has its metrics.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9401);
const METRICS_LIMIT: Duration = Duration::from_secs(2);
/// Of first packets, by how they left.
const COMMIT_PACKETS: &str = "vnfpool_commit_packets_total";

/// The element's metrics, as a scraper gets them.
pub(super) fn metrics(gateway: &Namespace) -> Result<String> {
    gateway.run(|| {
        let mut stream = TcpStream::connect_timeout(&METRICS, METRICS_LIMIT)
            .context("connecting to an element's metrics")?;
        stream.set_read_timeout(Some(METRICS_LIMIT))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: element\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream
            .read_to_string(&mut text)
            .context("reading an element's metrics")?;
        Ok(text)
    })
}

/// First packets that an active has let go so far, at the level `commit`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Committed {
    /// After the standby held their entries.
    pub(super) held: u64,
    /// In a declared downgrade, without waiting.
    pub(super) unheld: u64,
}

impl Committed {
    /// What it counts now.
    ///
    /// # Errors
    /// When it counts no such packets, as one that does not hold any.
    pub(super) fn look(gateway: &Namespace) -> Result<Self> {
        let text = metrics(gateway)?;
        let Some(committed) = Self::parse(&text) else {
            bail!("the active holds no first packets; its log says why");
        };
        Ok(committed)
    }

    /// What was added since an earlier look.
    pub(super) const fn since(self, before: Self) -> Self {
        Self {
            held: self.held.saturating_sub(before.held),
            unheld: self.unheld.saturating_sub(before.unheld),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let of = |how: &str| {
            let label = format!("how=\"{how}\"");
            let is_it = |line: &&str| line.starts_with(COMMIT_PACKETS) && line.contains(&label);
            let (_, value) = text.lines().find(is_it)?.rsplit_once(' ')?;
            value.parse().ok()
        };
        Some(Self {
            held: of("committed")?,
            unheld: of("unheld")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_packets_are_read_by_how_they_left() {
        let text = "# HELP vnfpool_commit_packets First packets by how they left: committed, unheld.\n\
            vnfpool_commit_packets_total{slot=\"main\",how=\"committed\"} 41\n\
            vnfpool_commit_packets_total{slot=\"main\",how=\"unheld\"} 2\n";
        let expected = Committed {
            held: 41,
            unheld: 2,
        };
        assert_eq!(Committed::parse(text), Some(expected));
        assert_eq!(Committed::parse("vnfpool_commit_holds 1\n"), None);
    }
}
