//! The Linux kernel: links, addresses, announcements, witnesses, health.
//!
//! Everything here works in the network namespace of the calling thread. Netlink messages and
//! packet sockets stay inside; at the border there are types of the model.
//!
//! The order for a slot's addresses: [`links::find`] the parent, [`ParentSettings::apply`],
//! [`VirtualDevice::prepare`], then attach and tell the gate, then [`VirtualDevice::configure`].
//! Backwards: [`VirtualDevice::remove`], then let the gate forget, then
//! [`ParentSettings::restore`].

pub mod address_watch;
pub mod addresses;
pub mod announce;
pub mod control_socket;
mod frames;
pub mod health;
pub mod link_watch;
pub mod links;
pub mod nat_map;
mod netlink;
mod packet;
pub mod preflight;
pub mod realtime;
pub mod sysctl;
mod virtual_device;
pub mod witness;

pub use virtual_device::{ParentSettings, VirtualDevice, VirtualDeviceError};
