//! The program `vnfpool`.

fn main() -> std::process::ExitCode {
    vnfpool::main()
}
