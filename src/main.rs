//! The `upload-gateway` binary.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
use tikv_jemallocator::Jemalloc;

/// Returns freed memory to the system within seconds, so that the memory of the process stays below the sum that `serve`
/// prints. Set by `.cargo/config.toml`.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    upload_gateway::cli::main()
}
