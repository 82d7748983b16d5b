//! The example as a program.

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    vnfpool_lb::run(vnfpool_lb::Options::parse()).await
}
