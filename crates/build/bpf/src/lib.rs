//! Compiles the BPF programs of drivers with clang, for their build scripts.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: &str = "on Debian: apt-get install clang libbpf-dev linux-libc-dev";

/// Compiles `src/bpf/<name>.bpf.c` of the crate being built to `<name>.bpf.o` in its `OUT_DIR`.
///
/// # Errors
/// What is missing and how to get it, or what clang said.
#[allow(
    clippy::print_stdout,
    reason = "that is how a build script talks to cargo"
)]
pub fn compile(name: &str) -> Result<(), String> {
    let source = format!("src/bpf/{name}.bpf.c");
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let output = PathBuf::from(variable("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let endian = variable("CARGO_CFG_TARGET_ENDIAN")?;
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());

    let mut command = Command::new(&clang);
    command
        .arg("-target")
        .arg(if endian == "big" { "bpfeb" } else { "bpfel" })
        .args(["-O2", "-g", "-Wall", "-Werror", "-c", &source, "-o"])
        .arg(&output);
    // `asm/types.h` lies in a directory per architecture on Debian.
    let multiarch = format!(
        "/usr/include/{}-linux-gnu",
        variable("CARGO_CFG_TARGET_ARCH")?
    );
    if Path::new(&multiarch).is_dir() {
        command.arg("-I").arg(multiarch);
    }

    let result = command
        .output()
        .map_err(|error| format!("cannot run {clang} ({error}); {PACKAGES}"))?;
    if result.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&result.stderr);
    if stderr.contains("file not found") {
        Err(format!("header files are missing; {PACKAGES}\n{stderr}"))
    } else {
        Err(format!("{clang} could not compile {source}\n{stderr}"))
    }
}
