//! Both machines against each other over a stream that breaks anywhere, and against hostile peers.

mod machines;
mod replication;
mod wire;
mod world;
