//! A packet socket on one interface.
#![expect(
    unsafe_code,
    reason = "packet socket addresses and filters have no safe wrapper"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the casts are of small constants: an address family, sizes of structures"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What a packet socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Nothing; it only sends.
    Nothing,
    /// ARP and neighbor discovery, received before any traffic control program (the gate's, for
    /// one) can drop it. That is why it is a tap for all protocols with a filter: sockets for one
    /// protocol are served behind traffic control.
    NeighborTraffic,
}

/// A non-blocking packet socket, bound to one interface.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    descriptor: OwnedFd,
}

impl PacketSocket {
    pub(crate) fn open(ifindex: u32, receive: Receive) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: it receives nothing before it is bound, so nothing that the filter is
        // meant to keep out.
        // SAFETY: no pointers.
        let descriptor = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: a new descriptor that nobody else knows.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let socket = Self { descriptor };
        if receive == Receive::NeighborTraffic {
            socket.set_option(libc::SO_ATTACH_FILTER, libc::SOL_SOCKET, &FILTER.program())?;
            socket.set_option(PACKET_IGNORE_OUTGOING, libc::SOL_PACKET, &1_i32)?;
        }
        socket.bind(ifindex, receive)?;
        Ok(socket)
    }

    /// Sends a frame through the interface's traffic control, the gate included.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        Ok(
            rustix::net::send(&self.descriptor, frame, rustix::net::SendFlags::empty())
                .map(drop)?,
        )
    }

    /// The next frame, cut to the buffer, or none if there is none now.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
        use rustix::io::Errno;
        let flags = rustix::net::RecvFlags::empty();
        match rustix::net::recv(&self.descriptor, &mut *buffer, flags) {
            Ok((length, _)) => Ok(buffer.get(..length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn bind(&self, ifindex: u32, receive: Receive) -> io::Result<()> {
        let protocol = match receive {
            Receive::Nothing => 0,
            Receive::NeighborTraffic => ETH_P_ALL.to_be(),
        };
        // SAFETY: all of its fields are numbers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::sa_family_t;
        address.sll_protocol = protocol;
        address.sll_ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
        let length = size_of_val(&address) as libc::socklen_t;
        // SAFETY: pointer and length are those of a whole socket address.
        checked(unsafe {
            libc::bind(
                self.descriptor.as_raw_fd(),
                (&raw const address).cast(),
                length,
            )
        })
        .map(drop)
    }

    fn set_option<T>(&self, option: i32, level: i32, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: pointer and length are those of `value`; a filter's own pointer is to a static.
        checked(unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                length,
            )
        })
        .map(drop)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

const ETH_P_ALL: u16 = 3;
const PACKET_IGNORE_OUTGOING: i32 = 23;

struct Filter([libc::sock_filter; 12]);

impl Filter {
    /// The kernel copies the program, and does not write to it.
    fn program(&'static self) -> libc::sock_fprog {
        libc::sock_fprog {
            len: self.0.len() as u16,
            filter: self.0.as_ptr().cast_mut(),
        }
    }
}

/// Accepts untagged ARP, and ICMPv6 of types 135 and 136.
static FILTER: Filter = Filter([
    // A frame with a VLAN tag belongs to another LAN. SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT.
    instruction(LOAD_WORD, 0, 0, 0xffff_f000 + 48),
    instruction(JUMP_EQUAL, 0, 9, 0),
    instruction(LOAD_HALF, 0, 0, 12),
    instruction(JUMP_EQUAL, 6, 0, 0x0806),
    instruction(JUMP_EQUAL, 0, 6, 0x86dd),
    instruction(LOAD_BYTE, 0, 0, 20),
    instruction(JUMP_EQUAL, 0, 4, 58),
    instruction(LOAD_BYTE, 0, 0, 54),
    instruction(JUMP_EQUAL, 1, 0, 135),
    instruction(JUMP_EQUAL, 0, 1, 136),
    instruction(RETURN, 0, 0, 0xffff),
    instruction(RETURN, 0, 0, 0),
]);

const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
