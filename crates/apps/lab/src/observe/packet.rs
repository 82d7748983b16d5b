//! Packet sockets: sending single frames, and a tap with kernel time stamps.
#![expect(
    unsafe_code,
    reason = "sockaddr_ll, socket filters and recvmmsg have no safe wrapper"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::clock::{self, Nanos};

const ETH_P_ALL: u16 = 0x0003;
/// Headers are all the tap looks at.
const SNAP_LENGTH: usize = 96;
const BATCH: usize = 64;
const CONTROL_LENGTH: usize = 64;
const RECEIVE_BUFFER: libc::c_int = 32 << 20;
/// Offsets of a socket filter's ancillary loads (linux/filter.h).
const SKF_AD_PACKET_TYPE: u32 = (-0x1000_i32).cast_unsigned() + 4;
const SKF_AD_INTERFACE: u32 = (-0x1000_i32).cast_unsigned() + 8;

/// A packet socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct PacketSocket {
    descriptor: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket that can send but hears nothing yet.
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: plain system call; protocol 0 means that no frame is delivered.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just returned by socket(2) and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { descriptor })
    }

    /// Sends a whole frame through an interface.
    pub(super) fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        let address = link_address(interface, 0);
        // SAFETY: `frame` and `address` are valid for reads of the given lengths.
        let sent = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Starts to hear every frame that comes in through one of `interfaces`, with time stamps.
    pub(super) fn tap(&self, interfaces: &[u32]) -> io::Result<()> {
        self.attach_filter(interfaces)?;
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER)?;
        let on: libc::c_int = 1;
        self.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &on)?;
        let patience = libc::timeval {
            tv_sec: 0,
            tv_usec: 50_000,
        };
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
        let everything = link_address(0, ETH_P_ALL);
        // SAFETY: `everything` is a valid sockaddr_ll of the given length.
        let result = unsafe {
            libc::bind(
                self.descriptor.as_raw_fd(),
                (&raw const everything).cast(),
                length_of::<libc::sockaddr_ll>(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Frames that the kernel had to drop since the last call because the tap was too slow.
    pub(super) fn dropped(&self) -> io::Result<u32> {
        let mut statistics = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = length_of::<libc::tpacket_stats>();
        // SAFETY: `statistics` is writable for `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(statistics.tp_drops)
        }
    }

    /// Lets only frames from outside through those interfaces pass, cut to their headers.
    fn attach_filter(&self, interfaces: &[u32]) -> io::Result<()> {
        let load = |k| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, k);
        let give = |k| statement(libc::BPF_RET | libc::BPF_K, k);
        let own = u32::from(libc::PACKET_OUTGOING);
        let count = u8::try_from(interfaces.len()).map_err(io::Error::other)?;
        let mut program = vec![
            load(SKF_AD_PACKET_TYPE),
            jump_if_equal(own, count + 1, 0),
            load(SKF_AD_INTERFACE),
        ];
        for (done, interface) in (1..=count).zip(interfaces) {
            // Past the rest of the list and its final rejection.
            program.push(jump_if_equal(*interface, count - done + 1, 0));
        }
        program.push(give(0));
        program.push(give(u32::try_from(SNAP_LENGTH).map_err(io::Error::other)?));
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(io::Error::other)?,
            filter: program.as_mut_ptr(),
        };
        self.set_option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    fn set_option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` is valid for reads of its size; the kernel checks that size, and for
        // SO_ATTACH_FILTER the program it points to outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.descriptor.as_raw_fd(),
                level,
                name,
                (&raw const *value).cast(),
                length_of::<T>(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

/// The buffers of one tap: a batch of frame headers per system call.
pub(super) struct Batch {
    frames: Box<[[u8; SNAP_LENGTH]; BATCH]>,
    controls: Box<[[u64; CONTROL_LENGTH / 8]; BATCH]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            frames: Box::new([[0; SNAP_LENGTH]; BATCH]),
            controls: Box::new([[0; CONTROL_LENGTH / 8]; BATCH]),
        }
    }

    /// Waits up to 50 ms for frames and hands each to `sink`: interface, time, headers.
    pub(super) fn receive(
        &mut self,
        socket: &PacketSocket,
        mut sink: impl FnMut(u32, Nanos, &[u8]),
    ) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of these plain C structures.
        let (mut names, mut vectors, mut headers) = unsafe {
            (
                std::mem::zeroed::<[libc::sockaddr_ll; BATCH]>(),
                std::mem::zeroed::<[libc::iovec; BATCH]>(),
                std::mem::zeroed::<[libc::mmsghdr; BATCH]>(),
            )
        };
        for index in 0..BATCH {
            vectors[index] = libc::iovec {
                iov_base: self.frames[index].as_mut_ptr().cast(),
                iov_len: SNAP_LENGTH,
            };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = length_of::<libc::sockaddr_ll>();
            header.msg_iov = &raw mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LENGTH;
        }
        // SAFETY: every header points to buffers above that live until the end of this function.
        let received = unsafe {
            libc::recvmmsg(
                socket.descriptor.as_raw_fd(),
                headers.as_mut_ptr(),
                u32::try_from(BATCH).unwrap_or(1),
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error),
            };
        };
        let offset = clock::realtime_offset();
        for index in 0..received.min(BATCH) {
            let length = usize::try_from(headers[index].msg_len)
                .unwrap_or(0)
                .min(SNAP_LENGTH);
            let interface = u32::try_from(names[index].sll_ifindex).unwrap_or(0);
            let at = time_stamp(&headers[index].msg_hdr).map_or_else(clock::now, |realtime| {
                Nanos::try_from(realtime - offset).unwrap_or_else(|_| clock::now())
            });
            sink(interface, at, &self.frames[index][..length]);
        }
        Ok(())
    }
}

/// The kernel's time stamp of a received message, in nanoseconds of the real-time clock.
fn time_stamp(header: &libc::msghdr) -> Option<i128> {
    // SAFETY: `header` was filled in by recvmmsg(2) and its control buffer is alive; the CMSG
    // functions stay inside it, and SCM_TIMESTAMPNS carries one timespec.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(&raw const *header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET
                && (*control).cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let stamp: libc::timespec =
                    std::ptr::read_unaligned(libc::CMSG_DATA(control).cast());
                return Some(i128::from(stamp.tv_sec) * 1_000_000_000 + i128::from(stamp.tv_nsec));
            }
            control = libc::CMSG_NXTHDR(&raw const *header, control);
        }
    }
    None
}

fn link_address(interface: u32, protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or(0),
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump_if_equal(k: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: then,
        jf: otherwise,
        k,
    }
}

fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}
