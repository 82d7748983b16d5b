//! The sockets, one for each path, and where each peer is reached.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// The largest datagram that is sent or received whole, in bytes.
pub const DATAGRAM_BYTES_MAX: usize = 256;

/// Room for some hundred datagrams while the thread is away; more would only be old news.
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;

/// Datagrams of one path in one round. The kernel keeps less than this many in the buffer above
/// (each counts for at least 768 bytes of twice its size), so a round takes all that waited when
/// it began, and a path that is flooded meanwhile holds up neither timers nor commands.
const ROUND_MAX: usize = 1_024;

/// A path of this node.
#[derive(Clone, Debug)]
pub struct PathSpec {
    /// Its name; equal names reach each other.
    pub name: String,
    /// The address and port to receive on.
    pub local: SocketAddr,
    /// The interface that it is bound to, if any: then routing cannot lead it elsewhere.
    pub interface: Option<String>,
}

/// Where a peer is reached over one of our paths.
#[derive(Clone, Debug)]
pub struct PeerPath {
    /// The path's name.
    pub name: String,
    /// The peer's address and port on it.
    pub remote: SocketAddr,
}

/// Why a path could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("bind path '{name}' to {local}{}", .interface.as_ref().map_or(String::new(), |i| format!(" on interface {i}")))]
pub struct BindError {
    /// The path.
    pub name: String,
    /// The address.
    pub local: SocketAddr,
    /// The interface.
    pub interface: Option<String>,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// What passed over a path.
#[derive(Clone, Copy, Debug, Default)]
pub struct PathCounters {
    /// Datagrams handed to the kernel.
    pub sent: u64,
    /// Datagrams that the kernel refused, for example because the interface is down.
    pub refused: u64,
    /// Datagrams received, before they were authenticated.
    pub received: u64,
}

/// A datagram that has come.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// The index of the path.
    pub path: usize,
    /// Where it came from.
    pub from: SocketAddr,
    /// Its length.
    pub length: usize,
}

#[derive(Debug)]
struct Path {
    name: String,
    socket: UdpSocket,
    counters: PathCounters,
    /// Datagrams that it may still give in this round.
    left: usize,
}

#[derive(Debug)]
struct Peer {
    id: u32,
    /// Index of our path, address of the peer.
    remotes: Vec<(usize, SocketAddr)>,
}

/// All paths of this node.
#[derive(Debug)]
pub struct Paths {
    paths: Vec<Path>,
    peers: Vec<Peer>,
    /// The path whose turn it is.
    next: usize,
    round_max: usize,
}

impl Paths {
    /// Binds a socket for each path.
    ///
    /// # Errors
    /// [`BindError`] names the path, the address and what the kernel said.
    pub fn bind(specs: &[PathSpec]) -> Result<Self, BindError> {
        let paths = specs.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self {
            paths,
            peers: Vec::new(),
            next: 0,
            round_max: ROUND_MAX,
        })
    }

    /// Takes the sockets of an earlier process of the same life, in the order of `specs`, which have
    /// to be those that they were bound for. What waits in them is received.
    #[must_use]
    pub fn adopt(specs: &[PathSpec], sockets: Vec<OwnedFd>) -> Option<Self> {
        if specs.len() != sockets.len() {
            return None;
        }
        let pairs = specs.iter().zip(sockets);
        let paths = pairs.map(|(spec, socket)| path(spec, socket.into()));
        Some(Self {
            paths: paths.collect(),
            peers: Vec::new(),
            next: 0,
            round_max: ROUND_MAX,
        })
    }

    /// The names of the paths, by index.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(|p| p.name.as_str())
    }

    /// What passed over each path, by index.
    pub fn counters(&self) -> impl Iterator<Item = (&str, PathCounters)> {
        self.paths.iter().map(|p| (p.name.as_str(), p.counters))
    }

    /// The sockets, to be polled.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.paths.iter().map(|p| p.socket.as_fd())
    }

    /// Sets where `peer` is reached; paths that we have not are passed over.
    pub fn set_peer(&mut self, peer: u32, remotes: &[PeerPath]) {
        let remotes = remotes
            .iter()
            .filter_map(|r| {
                let index = self.paths.iter().position(|p| p.name == r.name)?;
                Some((index, r.remote))
            })
            .collect();
        self.remove_peer(peer);
        self.peers.push(Peer { id: peer, remotes });
    }

    /// Sets that `peer` is reached where an authenticated datagram of it has just come from.
    pub fn answer_to(&mut self, peer: u32, received: Received) {
        let remote = (received.path, received.from);
        match self.peers.iter_mut().find(|p| p.id == peer) {
            Some(known) if known.remotes == [remote] => {}
            Some(known) => {
                known.remotes.clear();
                known.remotes.push(remote);
            }
            None => self.peers.push(Peer {
                id: peer,
                remotes: vec![remote],
            }),
        }
    }

    /// Forgets `peer`.
    pub fn remove_peer(&mut self, peer: u32) {
        self.peers.retain(|p| p.id != peer);
    }

    /// Sends over every path to `peer`; returns over how many it went.
    pub fn send(&mut self, peer: u32, datagram: &[u8]) -> usize {
        let Some(peer) = self.peers.iter().find(|p| p.id == peer) else {
            return 0;
        };
        let mut sent = 0;
        for (index, remote) in &peer.remotes {
            let path = &mut self.paths[*index];
            match path.socket.send_to(datagram, remote) {
                Ok(_) => {
                    path.counters.sent += 1;
                    sent += 1;
                }
                Err(_) => path.counters.refused += 1,
            }
        }
        sent
    }

    /// Begins a round: every path may give so many datagrams as can have waited for it.
    pub fn begin_round(&mut self) {
        for path in &mut self.paths {
            path.left = self.round_max;
        }
    }

    /// The next datagram of this round, from one path after the other; none when all paths are
    /// drained or have given their share, which [`Paths::begin_round`] renews.
    pub fn receive(&mut self, buffer: &mut [u8; DATAGRAM_BYTES_MAX]) -> Option<Received> {
        for _ in 0..self.paths.len() {
            let index = self.next;
            self.next = (index + 1) % self.paths.len();
            let path = &mut self.paths[index];
            if path.left == 0 {
                continue;
            }
            match path.socket.recv_from(buffer) {
                Ok((length, from)) => {
                    path.left -= 1;
                    path.counters.received += 1;
                    return Some(Received {
                        path: index,
                        from,
                        length,
                    });
                }
                // Asked again as long as others have something: it may get some meanwhile.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // An error of the network, reported once; the socket is as good as before.
                Err(_) => path.left -= 1,
            }
        }
        None
    }
}

fn bind(spec: &PathSpec) -> Result<Path, BindError> {
    let socket = || -> io::Result<UdpSocket> {
        let domain = Domain::for_address(spec.local);
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        // Network control, RFC 4594 CS6: ahead of bulk traffic where anybody looks at it.
        if spec.local.is_ipv4() {
            socket.set_tos_v4(0xc0)?;
        }
        if let Some(interface) = &spec.interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        socket.bind(&spec.local.into())?;
        Ok(socket.into())
    };
    let socket = socket().map_err(|source| BindError {
        name: spec.name.clone(),
        local: spec.local,
        interface: spec.interface.clone(),
        source,
    })?;
    Ok(path(spec, socket))
}

fn path(spec: &PathSpec, socket: UdpSocket) -> Path {
    Path {
        name: spec.name.clone(),
        socket,
        counters: PathCounters::default(),
        left: ROUND_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(names: &[&str]) -> (Paths, Vec<SocketAddr>) {
        let specs: Vec<_> = names
            .iter()
            .map(|name| PathSpec {
                name: (*name).to_owned(),
                local: "127.0.0.1:0".parse().unwrap(),
                interface: None,
            })
            .collect();
        let paths = Paths::bind(&specs).unwrap();
        let addresses = paths
            .paths
            .iter()
            .map(|p| p.socket.local_addr().unwrap())
            .collect();
        (paths, addresses)
    }

    fn receive_all(paths: &mut Paths) -> Vec<Vec<u8>> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        paths.begin_round();
        std::iter::from_fn(|| {
            let received = paths.receive(&mut buffer)?;
            Some(buffer[..received.length].to_vec())
        })
        .collect()
    }

    #[test]
    fn a_message_goes_over_every_path_that_both_have() {
        let (mut one, _) = node(&["link", "inside", "only-here"]);
        let (mut other, at) = node(&["inside", "link"]);
        one.set_peer(
            7,
            &[
                PeerPath {
                    name: "inside".into(),
                    remote: at[0],
                },
                PeerPath {
                    name: "link".into(),
                    remote: at[1],
                },
                PeerPath {
                    name: "unknown".into(),
                    remote: at[1],
                },
            ],
        );
        assert_eq!(one.send(7, b"hello"), 2);
        assert_eq!(one.send(8, b"nobody"), 0);
        assert_eq!(receive_all(&mut other), [b"hello", b"hello"]);
    }

    #[test]
    fn an_answer_goes_back_to_where_the_question_came_from() {
        let (mut manager, at) = node(&["any"]);
        let (mut element, element_at) = node(&["management"]);
        element.set_peer(
            0,
            &[PeerPath {
                name: "management".into(),
                remote: at[0],
            }],
        );
        assert_eq!(element.send(0, b"request"), 1);
        let received = manager.receive(&mut [0; DATAGRAM_BYTES_MAX]).unwrap();
        assert_eq!(received.from, element_at[0]);
        manager.answer_to(3, received);
        assert_eq!(manager.send(3, b"info"), 1);
        assert_eq!(receive_all(&mut element), [b"info"]);
    }

    /// Goal: a flooded path holds up neither the other paths nor the thread. Method: one path has
    /// more than its share, the other a single datagram, which is the second one to come.
    #[test]
    fn paths_take_turns_and_a_round_ends() {
        let (mut one, _) = node(&["flooded", "quiet"]);
        let (mut other, at) = node(&["flooded", "quiet"]);
        other.round_max = 3;
        let path = |name: &str, remote| PeerPath {
            name: name.into(),
            remote,
        };
        one.set_peer(1, &[path("flooded", at[0])]);
        one.set_peer(2, &[path("quiet", at[1])]);
        for _ in 0..5 {
            assert_eq!(one.send(1, b"junk"), 1);
        }
        assert_eq!(one.send(2, b"word"), 1);
        let first: [&[u8]; 4] = [b"junk", b"word", b"junk", b"junk"];
        assert_eq!(receive_all(&mut other), first);
        assert_eq!(receive_all(&mut other), [b"junk", b"junk"]);
        assert!(receive_all(&mut other).is_empty());
    }

    #[test]
    fn an_address_that_is_not_ours_is_named() {
        let error = Paths::bind(&[PathSpec {
            name: "link".into(),
            local: "192.0.2.1:7401".parse().unwrap(),
            interface: None,
        }])
        .unwrap_err();
        assert_eq!(error.to_string(), "bind path 'link' to 192.0.2.1:7401");
    }
}
