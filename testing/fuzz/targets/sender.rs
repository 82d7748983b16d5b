//! The target `sender` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: vnfpool_fuzz::Target::write_seeds("sender"),
    |data: &[u8]| vnfpool_fuzz::sender::run(data)
);
