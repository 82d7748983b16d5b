//! The reachability probe: one datagram each millisecond to the server and back.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::lock;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::namespaces::Namespace;

const PORT: u16 = 9000;
/// The time between two probes.
pub(crate) const INTERVAL: Nanos = MILLISECOND;
const PATIENCE: Duration = Duration::from_millis(50);

/// One datagram: when it left and when its echo came back, 0 if it did not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) sent: Nanos,
    pub(crate) back: Nanos,
}

/// The shared log of one probe, by sequence number.
pub(crate) type ProbeLog = Arc<Mutex<Vec<Probe>>>;

/// Starts the echo in `server` for both families.
pub(super) fn start_echo(
    server: &Namespace,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>> {
    let bound = |address: &str| {
        server.run(|| {
            let socket = UdpSocket::bind((address, PORT))
                .with_context(|| format!("binding the echo to [{address}]:{PORT}"))?;
            socket
                .set_read_timeout(Some(PATIENCE))
                .context("setting a read timeout")?;
            Ok(socket)
        })
    };
    [bound("10.2.0.10")?, bound("fd00:2::10")?]
        .into_iter()
        .map(|socket| {
            let stop = Arc::clone(stop);
            server.spawn_measuring("udp-echo", move || {
                let mut datagram = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((length, from)) = socket.recv_from(&mut datagram) {
                        // An echo that cannot be sent is a lost probe, and is counted there.
                        let _lost = socket.send_to(&datagram[..length], from);
                    }
                }
            })
        })
        .collect()
}

/// Starts one probe from `client`; its two threads end with `stop`.
pub(super) fn start_probe(
    client: &Namespace,
    server: IpAddr,
    stop: &Arc<AtomicBool>,
    log: &ProbeLog,
) -> Result<Vec<JoinHandle<()>>> {
    let any = if server.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = client.run(|| {
        let socket = UdpSocket::bind((any, 0)).context("binding the UDP probe")?;
        socket
            .connect(SocketAddr::new(server, PORT))
            .context("connecting the UDP probe")?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .context("setting a read timeout")?;
        Ok(Arc::new(socket))
    })?;
    let sender = {
        let (socket, stop, log) = (Arc::clone(&socket), Arc::clone(stop), Arc::clone(log));
        client.spawn_measuring("udp-send", move || send_until(&stop, &socket, &log))?
    };
    let (stop, log) = (Arc::clone(stop), Arc::clone(log));
    let receiver =
        client.spawn_measuring("udp-receive", move || receive_until(&stop, &socket, &log))?;
    Ok(vec![sender, receiver])
}

fn send_until(stop: &AtomicBool, socket: &UdpSocket, log: &ProbeLog) {
    let mut next = clock::now();
    while !stop.load(Ordering::Relaxed) {
        let number = {
            let mut log = lock(log);
            log.push(Probe {
                sent: clock::now(),
                back: 0,
            });
            u32::try_from(log.len() - 1).unwrap_or(u32::MAX)
        };
        let mut datagram = [0; 32];
        datagram[..4].copy_from_slice(&number.to_be_bytes());
        // "No route to host" and the like are what an outage looks like from here: a lost probe.
        let _lost = socket.send(&datagram);
        // A late wake-up skips the missed slots: a burst would not measure anything.
        next = (next + INTERVAL).max(clock::now());
        clock::sleep_until(next);
    }
}

fn receive_until(stop: &AtomicBool, socket: &UdpSocket, log: &ProbeLog) {
    let mut datagram = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut datagram) else {
            continue;
        };
        let back = clock::now();
        let number = datagram[..length]
            .first_chunk()
            .map(|number| u32::from_be_bytes(*number));
        if let Some(index) = number.and_then(|number| usize::try_from(number).ok())
            && let Some(probe) = lock(log).get_mut(index)
            && probe.back == 0
        {
            probe.back = back;
        }
    }
}
