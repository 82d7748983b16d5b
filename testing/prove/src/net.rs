//! What is on its way: one part of the world.

/// The network, the buffers of sockets included. Letters are known by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Net {
    /// Letters that arrive within this tick, in this order.
    pub queue: Vec<u32>,
    /// Letters that are held, with the ticks that they have been.
    pub late: Vec<(u8, u32)>,
    /// What waits in the sockets of machines that stand still.
    pub sockets: Vec<u32>,
}

/// What fits into the sockets of machines that stand still.
pub const SOCKETS_MAX: usize = 4;

/// The most letters on their way within one tick: a storm is a fault.
pub const QUEUE_MAX: usize = 64;

/// What is not a part with a machine: links, and what has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scene {
    /// The links that are cut, a set of [`crate::world::link`].
    pub cut: u16,
    /// How often each kind of disturbance has happened.
    pub spent: [u8; crate::world::KINDS],
    /// No copy is proved.
    pub stream_broken: bool,
    /// The manager's timer has fired in this tick.
    pub manager_beat: bool,
    /// Nothing has happened in this tick yet.
    pub fresh: bool,
}

impl Scene {
    /// How many disturbances there were.
    #[must_use]
    pub fn disturbances(&self) -> u8 {
        self.spent.iter().sum()
    }
}
