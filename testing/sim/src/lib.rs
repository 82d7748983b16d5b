//! Whole pools of the production machines in simulated time.
//!
//! One seed makes one *history*: a pool of elements and a manager ([`world`]), networks with
//! separate paths, clocks that drift, disks, and faults ([`faults`]) at random moments. What has to
//! hold is watched from outside ([`invariants`]). When all faults are over the pool has to serve and
//! to be armed again. The same seed gives the same history, always.
//!
//! ```text
//!  seed --> history: steps (when, which fault)          faults/*      what is done to the world
//!              |                                        invariants/*  what has to hold in it
//!              v                                        broken/*      worlds that break it on purpose
//!           world: hosts (clock, gates, agent: an Element per slot), manager (a Slot per slot, disk),
//!                  network (paths), streams, queue of events in true time
//! ```
//!
//! The harness proves itself: each shortcut of `docs/succession.md` sections 6 and 7 is built in
//! ([`broken`]) and has to be caught.

pub mod broken;
pub mod campaign;
pub mod clock;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod network;
pub mod queue;
pub mod trace;
pub mod world;
