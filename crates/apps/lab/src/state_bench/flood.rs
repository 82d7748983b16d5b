//! The generator: UDP flows of one packet each, whole frames from a packet socket in the client.
//!
//! A frame goes through the virtual wires in the system call that sends it, as far as the server,
//! which drops it first thing. So the generator's processor time is that of the forwarding.
#![expect(
    unsafe_code,
    reason = "packet sockets and sendmmsg have no safe wrapper"
)]

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::arrivals::Window;
use super::ctnetlink::{CLIENT, FIRST_PORT, SERVER, ports_of};
use crate::clock::{self, MILLISECOND, Nanos};
use crate::command;
use crate::namespaces::{Lab, Namespace, VIP_INSIDE_V4, interface_index};
use crate::signals;

/// Frames in one system call, at most.
const BATCH: usize = 64;
/// Shortest sleep between two calls: what is due meanwhile goes together.
const SLICE: Nanos = 200_000;
/// The client's own address on the wire, as the topology has it.
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0x0a, 0x01, 0, 0x0a];
const HEADERS: usize = 14 + 20 + 8;
const FRAME: usize = HEADERS + 4;

/// Drops the measured flows in front of everything else that the server would do with them.
pub(super) fn sink_rules() -> String {
    format!(
        "table netdev sink {{
    chain ingress {{
        type filter hook ingress device \"eth0\" priority 0; policy accept;
        ip saddr 10.2.0.254 udp dport >= {FIRST_PORT} drop
        ip saddr {CLIENT} udp dport >= {FIRST_PORT} drop
    }}
}}
"
    )
}

/// Makes the server drop the measured flows silently.
pub(super) fn furnish_sink(lab: &Lab) -> Result<()> {
    lab.namespace("server")?
        .run(|| command::run("nft", &["-f", "-"], &sink_rules()))
        .context("loading the rules of the server")?;
    Ok(())
}

/// What a generator has done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent {
    /// Frames, one a flow.
    pub(super) flows: u32,
    pub(super) took: Nanos,
}

/// The client's sending side: its socket, and the gateway that it sends to.
#[derive(Debug)]
pub(super) struct Generator {
    namespace: Namespace,
    descriptor: OwnedFd,
    address: libc::sockaddr_ll,
    template: [u8; FRAME],
}

impl Generator {
    /// Opens it, and asks the network for the hardware address of the virtual address.
    ///
    /// # Errors
    /// When nobody answers for the virtual address.
    pub(super) fn open(lab: &Lab) -> Result<Self> {
        let namespace = lab.namespace("client")?.clone();
        let gateway = namespace.run(find_gateway)?;
        let descriptor = namespace.run(|| packet_socket().context("opening the generator"))?;
        let index = interface_index(&namespace, "eth0")?;
        Ok(Self {
            namespace,
            descriptor,
            address: link_address(index),
            template: template(gateway),
        })
    }

    /// Opens the next flows from `numbers`, one packet each, `rate` a second (as fast as it goes
    /// without), until all are opened or `limit` is over.
    ///
    /// # Errors
    /// When the socket breaks, or on an interrupt.
    pub(super) fn flood(
        &self,
        numbers: Range<u32>,
        rate: Option<u32>,
        limit: Duration,
    ) -> Result<Sent> {
        self.flood_at(numbers, Pace::at(rate), limit)
    }

    /// As [`Generator::flood`], and never so that more than `window` packets are on their way to the
    /// server: as many clients do that wait for each other.
    ///
    /// # Errors
    /// As of [`Generator::flood`].
    pub(super) fn flood_windowed(
        &self,
        numbers: Range<u32>,
        rate: u32,
        window: Window,
        limit: Duration,
    ) -> Result<Sent> {
        let mut pace = Pace::at(Some(rate));
        pace.window = Some(window);
        self.flood_at(numbers, pace, limit)
    }

    fn flood_at(&self, numbers: Range<u32>, pace: Pace, limit: Duration) -> Result<Sent> {
        self.namespace.run(|| {
            let sent = send_paced(self, numbers, pace, limit, || signals::check().is_err())?;
            signals::check()?;
            Ok(sent)
        })
    }

    /// Sends one packet of the flow with these ports, the number in its payload; returns the moment
    /// before it was sent.
    pub(super) fn send_one(&self, source: u16, target: u16, number: u32) -> Result<Nanos> {
        let mut batch = Batch::new(self);
        batch.set(0, source, target);
        batch.frames[0][HEADERS..].copy_from_slice(&number.to_be_bytes());
        let at = clock::now();
        match batch.send(self, 1).context("sending a packet")? {
            1 => Ok(at),
            _ => bail!("a packet could not be sent"),
        }
    }

    /// Floods on a thread of its own until it is stopped or the flows are used up.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn in_background(
        self: &Arc<Self>,
        numbers: Range<u32>,
        rate: u32,
    ) -> Result<Background> {
        let shared = Arc::new(Shared::default());
        let (generator, on_thread) = (Arc::clone(self), Arc::clone(&shared));
        let thread = self.namespace.spawn_ordinary("flood", move || {
            let stop = || on_thread.stop.load(Ordering::Relaxed) || signals::check().is_err();
            let pace = Pace::at(Some(rate));
            let sent = send_paced(&generator, numbers, pace, BACKGROUND_LIMIT, stop);
            on_thread.failed.store(sent.is_err(), Ordering::Relaxed);
        })?;
        Ok(Background {
            shared,
            thread: Some(thread),
        })
    }
}

/// A background flood ends by itself after this.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(120);

/// A flood on its own thread. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    failed: AtomicBool,
}

impl Background {
    /// Ends it.
    ///
    /// # Errors
    /// When it had failed before.
    pub(super) fn finish(mut self) -> Result<()> {
        self.stop();
        if self.shared.failed.load(Ordering::Relaxed) {
            bail!("the generator failed beside the measurement");
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to clean up.
            let _panicked = thread.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}

/// How fast a flood goes.
#[derive(Debug)]
struct Pace {
    /// Flows a second; none: as fast as it goes.
    rate: Option<u32>,
    /// Of packets on their way.
    window: Option<Window>,
}

impl Pace {
    const fn at(rate: Option<u32>) -> Self {
        let window = None;
        Self { rate, window }
    }

    /// How many flows should have been opened by now.
    fn due(&self, passed: Nanos) -> u32 {
        match self.rate {
            None => u32::MAX,
            Some(rate) => {
                let due = passed.saturating_mul(u64::from(rate)) / 1_000_000_000;
                u32::try_from(due).unwrap_or(u32::MAX).saturating_add(1)
            }
        }
    }

    /// How many more packets may be on their way, after so many.
    fn room(&mut self, sent: u32) -> Result<u32> {
        match &mut self.window {
            None => Ok(u32::MAX),
            Some(window) => window.room(sent),
        }
    }
}

fn send_paced(
    generator: &Generator,
    numbers: Range<u32>,
    mut pace: Pace,
    limit: Duration,
    stop: impl Fn() -> bool,
) -> Result<Sent> {
    let mut batch = Batch::new(generator);
    let began = clock::now();
    let end = began + clock::nanos(limit);
    let mut next = numbers.start;
    while next < numbers.end && !stop() {
        let now = clock::now();
        if now >= end {
            break;
        }
        let sent = next - numbers.start;
        let due = pace.due(now - began).min(numbers.end - numbers.start);
        let wanted = due.saturating_sub(sent).min(pace.room(sent)?);
        let wanted = usize::try_from(wanted).unwrap_or(0).min(BATCH);
        if wanted == 0 {
            clock::sleep_until(now + SLICE);
            continue;
        }
        for (index, number) in (next..).take(wanted).enumerate() {
            let (source, target) = ports_of(number);
            batch.set(index, source, target);
        }
        match batch.send(generator, wanted) {
            Ok(sent) => next += sent,
            // The path is full for a moment; what was not sent is sent later.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                clock::sleep_until(now + SLICE);
            }
            Err(error) => return Err(error).context("sending flows"),
        }
    }
    Ok(Sent {
        flows: next - numbers.start,
        took: clock::now() - began,
    })
}

/// The frames of one system call.
struct Batch {
    frames: Box<[[u8; FRAME]; BATCH]>,
}

impl Batch {
    fn new(generator: &Generator) -> Self {
        Self {
            frames: Box::new([generator.template; BATCH]),
        }
    }

    fn set(&mut self, index: usize, source: u16, target: u16) {
        if let Some(frame) = self.frames.get_mut(index) {
            frame[34..36].copy_from_slice(&source.to_be_bytes());
            frame[36..38].copy_from_slice(&target.to_be_bytes());
        }
    }

    /// Sends the first `count` frames; returns how many were taken.
    fn send(&mut self, generator: &Generator, count: usize) -> io::Result<u32> {
        // SAFETY: all-zero is a valid value of these plain C structures.
        let (mut vectors, mut headers) = unsafe {
            (
                std::mem::zeroed::<[libc::iovec; BATCH]>(),
                std::mem::zeroed::<[libc::mmsghdr; BATCH]>(),
            )
        };
        for ((vector, header), frame) in vectors
            .iter_mut()
            .zip(&mut headers)
            .zip(self.frames.iter_mut())
        {
            *vector = libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: FRAME,
            };
            header.msg_hdr.msg_name = (&raw const generator.address).cast_mut().cast();
            header.msg_hdr.msg_namelen = length_of::<libc::sockaddr_ll>();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to buffers that live until the end of this function, and to an
        // address that the kernel only reads; `count` is at most their number.
        let sent = unsafe {
            libc::sendmmsg(
                generator.descriptor.as_raw_fd(),
                headers.as_mut_ptr(),
                u32::try_from(count.min(BATCH)).unwrap_or(0),
                0,
            )
        };
        u32::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call; protocol 0 means that no frame is delivered.
    let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` was just returned by socket(2) and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn link_address(interface: u32) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
        sll_protocol: ETH_P_IP.to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

const ETH_P_IP: u16 = 0x0800;

/// A frame from the client to the server through the gateway `gateway`, but for its ports.
fn template(gateway: [u8; 6]) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[0..6].copy_from_slice(&gateway);
    frame[6..12].copy_from_slice(&CLIENT_MAC);
    frame[12..14].copy_from_slice(&ETH_P_IP.to_be_bytes());
    let ip = &mut frame[14..34];
    let length = u16::try_from(FRAME - 14).unwrap_or(0);
    // Version 4, header of 5 words; don't fragment; time to live 64; UDP.
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[6] = 0x40;
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&CLIENT.octets());
    ip[16..20].copy_from_slice(&SERVER.octets());
    let sum = checksum(ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // The UDP checksum stays 0, which means that there is none (RFC 768).
    let length = u16::try_from(FRAME - 34).unwrap_or(0);
    frame[38..40].copy_from_slice(&length.to_be_bytes());
    frame
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The hardware address of the virtual address, from the client's own table.
fn find_gateway() -> Result<[u8; 6]> {
    let probe = UdpSocket::bind("0.0.0.0:0").context("asking for the gateway")?;
    signals::wait_for(
        "the virtual address to be answered for",
        Duration::from_secs(5),
        || {
            // Below every measured port, so that it is no flow of a measurement.
            let _unreachable_yet = probe.send_to(b"?", (SERVER, 9));
            let table =
                fs::read_to_string("/proc/thread-self/net/arp").context("reading neighbours")?;
            if let Some(found) = neighbour(&table, &VIP_INSIDE_V4.to_string()) {
                return Ok(Some(found));
            }
            clock::sleep_until(clock::now() + 20 * MILLISECOND);
            Ok(None)
        },
    )
}

fn neighbour(table: &str, address: &str) -> Option<[u8; 6]> {
    let fields = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = fields
        .into_iter()
        .find(|fields| fields.first() == Some(&address))?;
    let bytes: Vec<u8> = line
        .get(3)?
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    // All zero: asked for, not answered yet.
    bytes.try_into().ok().filter(|mac| *mac != [0; 6])
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_frame_sums_up() {
        let frame = template([2; 6]);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_ne!(checksum(&frame[14..33]), 0);
    }

    #[test]
    fn an_unanswered_neighbour_is_none() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            10.1.0.254       0x1         0x2         00:00:5e:00:01:0b     *        eth0\n\
            10.1.0.2         0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        assert_eq!(
            neighbour(table, "10.1.0.254"),
            Some([0, 0, 0x5e, 0, 1, 0x0b])
        );
        assert_eq!(neighbour(table, "10.1.0.2"), None);
        assert_eq!(neighbour(table, "10.1.0.3"), None);
    }
}
