//! The whole program in trouble: real daemons in namespaces of their own, wrong configurations,
//! full disks, hostile packets (needs root).
//!
//! Each test builds a [`site::Site`]: a laboratory with a manager and, mostly, a pool of two
//! gateways. Waiting has generous limits; how long things take is not judged.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failing test is what unwrap says, and its logs belong to its output"
)]

mod balancer;
mod blocks;
mod caller;
mod clock;
mod daemon;
mod drain;
mod evidence;
mod fencing;
mod ftp;
mod function;
mod haproxy;
mod hooks;
mod hostile;
mod ipv6;
mod leftovers;
mod links;
mod lost_state;
mod manager;
mod operator;
mod packets;
mod pool_life;
mod privileges;
mod registration;
mod replacement;
mod rogue;
mod secrecy;
mod setup;
mod site;
mod snapshot;
mod state;
mod store;
mod tap;
mod tokens;
