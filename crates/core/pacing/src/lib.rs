//! How long a lease has to be (`lease = "auto"`), as sans-IO machines.
//!
//! A lease that is too short ends while everybody lives: the successor takes over without cause. One
//! that is too long lets a real failure last. What decides is the longest silence that was *not* a
//! failure: a thread that woke late, datagrams that were lost or queued.
//!
//! * [`Meter`] at each element measures the silences of its peers, as they end;
//! * [`Pacer`] at the manager chooses the pace of the terms to come from the longest of them. How a
//!   new pace comes into force is succession's business (docs/succession.md, R17).

mod meter;
mod pacer;

pub use meter::Meter;
pub use pacer::{Advice, Limit, Pacer};
