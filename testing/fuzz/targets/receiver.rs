//! The target `receiver` for libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: vnfpool_fuzz::Target::write_seeds("receiver"),
    |data: &[u8]| vnfpool_fuzz::receiver::run(data)
);
