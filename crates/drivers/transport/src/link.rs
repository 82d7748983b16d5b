//! Links between elements for service state: TLS on TCP, driven by a plain thread.
//!
//! The handshake is done by a task, with the same certificates and policies as everywhere. What
//! follows belongs to the one thread that has the [`Link`]: it neither blocks nor passes through
//! another thread, so that a change reaches the successor's kernel with two threads woken on its
//! way and no more ([decision 0020](../../docs/decisions/0020-state-goes-over-a-link.md)).

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::identity::Identity;
use crate::limits::HandshakeRate;
use crate::pki::Credentials;
use crate::policy::PeerPolicy;
use crate::rejection::{Rejection, RejectionCounters};
use crate::tls_stream::{self, Acceptor, CallError};

const ALPN: &[&[u8]] = &[b"vnfpool-state/2"];

/// Handshakes at once, of members' addresses and of all others.
const HANDSHAKES_MAX: usize = 16;
/// Handshakes a second, as a mean, likewise.
const HANDSHAKES_PER_SECOND: u32 = 50;
/// Links that wait to be taken.
const ARRIVALS_MAX: usize = 16;
/// A TCP connection has to be made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Data that is not acknowledged for so long ends the link.
const USER_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that the kernel keeps for each direction.
const SOCKET_BYTES: usize = 4 * 1024 * 1024;
/// After a failure to accept (no descriptors left, say).
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A connection to another element that one thread drives. Nothing of it blocks.
#[derive(Debug)]
pub struct Link {
    tcp: TcpStream,
    tls: rustls::Connection,
    peer: Identity,
    plain: Box<[u8]>,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// There is nothing more at the moment.
    All,
    /// There may be more.
    More,
    /// The peer has ended the link.
    Closed,
}

impl Link {
    fn new(
        tcp: tokio::net::TcpStream,
        mut tls: rustls::Connection,
        peer: Identity,
    ) -> io::Result<Self> {
        let tcp = tcp.into_std()?;
        tcp.set_nonblocking(true)?;
        tcp.set_nodelay(true)?;
        let socket = socket2::SockRef::from(&tcp);
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        // A bound: whoever sends bounds what it leaves here.
        tls.set_buffer_limit(None);
        Ok(Self {
            tcp,
            tls,
            peer,
            plain: vec![0; READ_BYTES].into(),
        })
    }

    /// Who is at the other end, by its certificate.
    #[must_use]
    pub const fn peer(&self) -> &Identity {
        &self.peer
    }

    /// Takes bytes to send. They are kept without a bound until [`Link::flush`] has sent them: the
    /// caller bounds them by what its protocol leaves unacknowledged.
    ///
    /// # Errors
    /// The link is over.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(bytes)
    }

    /// Sends what the network takes now; whether that was all. If not, wait until [`Link::as_fd`]
    /// can be written.
    ///
    /// # Errors
    /// The link is over.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Appends what has come to `out`, a piece at a time.
    ///
    /// # Errors
    /// The link is over; so is one on which something came that is not the peer's.
    pub fn receive(&mut self, out: &mut BytesMut) -> io::Result<Received> {
        let came = match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => return self.plain(out).map(|_| Received::Closed),
            Ok(_) => Received::More,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Received::All,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::More,
            Err(error) => return Err(error),
        };
        if came == Received::More {
            self.tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        match self.plain(out)? {
            true => Ok(Received::Closed),
            false => Ok(came),
        }
    }

    /// Appends what is deciphered; whether the peer has said that nothing more comes.
    fn plain(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        loop {
            match self.tls.reader().read(&mut self.plain) {
                Ok(0) => return Ok(true),
                Ok(length) => out.extend_from_slice(self.plain.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Drop for Link {
    /// Says that nothing more comes, as far as the network takes it.
    fn drop(&mut self) {
        self.tls.send_close_notify();
        let _ = self.flush();
    }
}

/// Calls the element at `address`, which has to be whom `expected` allows.
///
/// # Errors
/// [`CallError`] says who refused whom and why.
pub async fn connect(
    credentials: &Credentials,
    expected: PeerPolicy,
    address: SocketAddr,
) -> Result<Link, CallError> {
    let connecting = tokio::net::TcpStream::connect(address);
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
        .await
        .map_err(|_| CallError::Io(io::ErrorKind::TimedOut.into()))?
        .map_err(CallError::Io)?;
    let socket = socket2::SockRef::from(&tcp);
    // Less will do where the system allows no more.
    let _ = socket.set_send_buffer_size(SOCKET_BYTES);
    tcp.set_nodelay(true).map_err(CallError::Io)?;
    let stream = tls_stream::connect(credentials, expected, ALPN, tcp).await?;
    let (tcp, tls) = stream.into_inner();
    let peer =
        peer_of(tls.peer_certificates()).ok_or(CallError::Server(Rejection::BadCertificate))?;
    Link::new(tcp, tls.into(), peer).map_err(CallError::Io)
}

fn peer_of(certificates: Option<&[rustls_pki_types::CertificateDer<'_>]>) -> Option<Identity> {
    let certificate = certificates.and_then(<[_]>::first)?;
    let id = crate::SpiffeId::from_certificate(certificate).ok()?;
    Some(id.identity)
}

/// Accepts links. Dropping it ends that.
///
/// Whoever reaches the port can begin handshakes and leave them lying. So the handshakes from the
/// addresses of members ([`LinkListener::members`]) are counted apart: nobody else can use them up without
/// answering at such an address.
#[derive(Debug)]
pub struct LinkListener {
    arrivals: mpsc::Receiver<Link>,
    members: MemberAddresses,
    task: JoinHandle<()>,
}

/// The addresses from which members call, as far as they are known.
#[derive(Clone, Debug, Default)]
pub struct MemberAddresses(Arc<Mutex<BTreeSet<IpAddr>>>);

impl MemberAddresses {
    /// Replaces them.
    pub fn set(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().map(|address| address.to_canonical());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = addresses.collect();
    }

    fn contains(&self, address: IpAddr) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&address.to_canonical())
    }
}

impl LinkListener {
    /// Listens at `address` for whom `policy` allows, within a tokio runtime.
    ///
    /// # Errors
    /// The address is taken, or the certificates are unusable.
    pub fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        policy: PeerPolicy,
        counters: Arc<RejectionCounters>,
    ) -> io::Result<Self> {
        let acceptor = Acceptor::new(credentials, policy, ALPN, counters);
        let acceptor = acceptor.map_err(io::Error::other)?;
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
        socket.bind(&address.into())?;
        socket.listen(128)?;
        let listener = TcpListener::from_std(socket.into())?;
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let members = MemberAddresses::default();
        let door = Door {
            acceptor,
            listener,
            members: members.clone(),
            of_members: Share::new(),
            of_others: Share::new(),
            sender,
        };
        let task = tokio::spawn(door.run());
        Ok(Self {
            arrivals,
            members,
            task,
        })
    }

    /// Where members call from, to be set by who knows; none at first.
    #[must_use]
    pub fn members(&self) -> MemberAddresses {
        self.members.clone()
    }

    /// The next link.
    pub async fn accept(&mut self) -> Option<Link> {
        self.arrivals.recv().await
    }
}

impl Drop for LinkListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Door {
    acceptor: Acceptor,
    listener: TcpListener,
    members: MemberAddresses,
    of_members: Share,
    of_others: Share,
    sender: mpsc::Sender<Link>,
}

/// The handshakes that some callers may begin.
struct Share {
    at_once: Arc<Semaphore>,
    rate: HandshakeRate,
}

impl Share {
    fn new() -> Self {
        Self {
            at_once: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            rate: HandshakeRate::new(HANDSHAKES_PER_SECOND, Instant::now()),
        }
    }

    /// Permission for one, to be kept until it is over.
    fn take(&mut self) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.at_once).try_acquire_owned().ok()?;
        self.rate.take(Instant::now()).then_some(permit)
    }
}

impl Door {
    async fn run(mut self) {
        loop {
            let (tcp, remote) = match self.listener.accept().await {
                Ok(arrival) => arrival,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a link");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let share = match self.members.contains(remote.ip()) {
                true => &mut self.of_members,
                false => &mut self.of_others,
            };
            let Some(permit) = share.take() else {
                self.acceptor.turn_away(Rejection::Busy, remote);
                continue;
            };
            let (acceptor, sender) = (self.acceptor.clone(), self.sender.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let Ok((stream, peer)) = acceptor.accept(tcp, remote).await else {
                    return;
                };
                let (tcp, tls) = stream.into_inner();
                match Link::new(tcp, tls.into(), peer.identity) {
                    Ok(link) => drop(sender.try_send(link)),
                    Err(error) => tracing::debug!(%error, "a link ended at once"),
                }
            });
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
