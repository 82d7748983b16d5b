//! What happens beside the bytes of the wire.

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

/// SplitMix64: the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// From 0 up to `bound`, which it never is.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or_default()
    }

    /// Once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
