//! The device through which the kernel hands packets over, and takes them back.
#![allow(
    unsafe_code,
    reason = "one ioctl that no crate in use has, and the promise that a file keeps its descriptor"
)]

use std::ffi::c_short;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, ensure};
use tokio::io::unix::AsyncFd;

/// A TUN device: whole IP packets, without a header of the driver's own.
#[derive(Debug)]
pub(crate) struct Tun(AsyncFd<File>);

impl Tun {
    /// Makes the device `name`, which goes with this program.
    pub(crate) fn open(name: &str) -> anyhow::Result<Self> {
        let mut options = File::options();
        options
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK);
        let file = options
            .open("/dev/net/tun")
            .context("open /dev/net/tun: it takes CAP_NET_ADMIN and the kernel's tun module")?;
        attach(&file, name).with_context(|| format!("make the device {name}"))?;
        // SAFETY: a File owns its descriptor and gives the same one until it is dropped, which the AsyncFd
        // does after it has let go of it.
        Ok(Self(unsafe { AsyncFd::register(file) }?))
    }

    /// Waits until there is a packet, or an error to be read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// The next packet; none when there is no more.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = self
            .0
            .try_io(tokio::io::Interest::READABLE, |mut file| file.read(buffer));
        match read {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives a packet back to the kernel, which may drop it, as any network may.
    pub(crate) fn write(&self, packet: &[u8]) {
        let mut file = self.0.get_ref();
        let _ = file.write(packet);
    }
}

fn attach(file: &File, name: &str) -> anyhow::Result<()> {
    ensure!(
        name.len() < libc::IFNAMSIZ && name.is_ascii() && !name.is_empty(),
        "the name of a device is 1 to {} characters",
        libc::IFNAMSIZ - 1
    );
    // SAFETY: all zeroes is a value of every field of this structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // Both are small constants.
    request.ifr_ifru.ifru_flags = c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: the descriptor is open, and the request is an ifreq that lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if done < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
