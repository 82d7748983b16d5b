//! What happens beside the bytes of the wire.

use vnfpool_random::Random;

/// Bytes of an input before those of the wire.
pub const SCRIPT_BYTES: usize = 8;

/// The head of an input: a byte of bits, each a kind of fault, and the seed of when they happen. All
/// zero: nothing goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    faults: u8,
    seed: u64,
}

impl Script {
    /// Cuts an input into its script and the bytes of the wire.
    #[must_use]
    pub fn split(input: &[u8]) -> (Self, &[u8]) {
        let (head, wire) = input.split_at(input.len().min(SCRIPT_BYTES));
        let mut bytes = [0; SCRIPT_BYTES];
        bytes
            .iter_mut()
            .zip(head)
            .for_each(|(to, from)| *to = *from);
        let [faults, rest @ ..] = bytes;
        let seed = rest
            .iter()
            .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        (Self { faults, seed }, wire)
    }

    /// An input of these faults and bytes.
    #[must_use]
    pub fn input(faults: u8, wire: &[u8]) -> Vec<u8> {
        let mut input = vec![0; SCRIPT_BYTES];
        input[0] = faults;
        input.extend_from_slice(wire);
        input
    }

    /// Whether a kind of fault happens, by the number of its bit.
    #[must_use]
    pub const fn has(self, bit: u8) -> bool {
        self.faults >> bit & 1 == 1
    }

    /// Decides when.
    #[must_use]
    pub const fn random(self) -> Random {
        Random::new(self.seed)
    }
}
