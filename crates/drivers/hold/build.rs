//! Compiles the BPF programs that note what is held.

fn main() -> Result<(), String> {
    vnfpool_bpf_build::compile("hold")
}
