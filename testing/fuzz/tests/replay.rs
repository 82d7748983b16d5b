//! Each target with what it begins with, and with spoiled copies of it: so much is tried in every run of
//! the tests, the rest by the fuzzer.

#![allow(clippy::print_stdout, reason = "which copy failed")]

use vnfpool_fuzz::{SCRIPT_BYTES, Target};
use vnfpool_random::Random;

/// Spoiled copies of each seed. With them each target takes some seconds without optimisation.
const COPIES: u64 = 300;

/// Goal: no target fails on what real peers say, on any bytes of it that are changed, doubled, cut out or
/// cut off, in calm or trouble. Method: always the same seeds of changes; a failure shows its own.
fn replay(name: &str) {
    let target = Target::ALL.into_iter().find(|target| target.name == name);
    let target = target.expect("the target is in the list");
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    for (number, seed) in seeds.iter().enumerate() {
        assert!(seed.len() > SCRIPT_BYTES, "a seed that says nothing");
        println!("{name}: seed {number}, {} bytes", seed.len());
        (target.run)(seed);
        for copy in 0..COPIES {
            println!("{name}: seed {number}, copy {copy}");
            (target.run)(&spoiled(seed, &mut Random::new(copy)));
        }
    }
}

fn spoiled(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut input = seed.to_vec();
    // Half of them in the seed's own trouble.
    if random.once_in(2) {
        for byte in &mut input[..SCRIPT_BYTES] {
            *byte = random.next().to_le_bytes()[0];
        }
    }
    for _ in 0..1 + random.index(4) {
        let at = random.index(input.len());
        let end = (at + 1 + random.index(64)).min(input.len());
        match random.index(5) {
            0 | 1 => input[at] = random.next().to_le_bytes()[0],
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => input.truncate(end),
        }
        if input.is_empty() {
            break;
        }
    }
    input
}

#[test]
fn the_receiver_survives_spoiled_streams() {
    replay("receiver");
}

#[test]
fn the_sender_survives_spoiled_answers() {
    replay("sender");
}

#[test]
fn the_codec_of_connections_survives_spoiled_items() {
    replay("conntrack");
}

#[test]
fn the_session_survives_spoiled_functions() {
    replay("sdk");
}
