//! A model checker for the machines of succession.
//!
//! It runs the production's machines (`element::Element`, `manager::Slot`), cloned, not a model of
//! them, through every history of small worlds, and checks in every state what has to hold
//! (docs/succession.md, section 1).
//!
//! It has an explorer of its own instead of a library's: states are tuples of numbers of parts
//! ([`engine`]), so that a machine runs once for each of *its* states and inputs while the world has
//! thousands of times as many; and a violation comes with its shortest history for nothing. A
//! general explorer would clone, hash and run every machine in every state of the world.

pub mod chief;
pub mod clock;
pub mod engine;
pub mod explore;
pub mod host;
pub mod intern;
pub mod letter;
pub mod liveness;
pub mod moves;
pub mod mutation;
pub mod net;
pub mod story;
pub mod world;
pub mod worlds;
