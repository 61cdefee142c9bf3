//! The `upload-gateway` binary.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Buffers of all sizes come and go. The allocator of the C library keeps the gaps between them, so that the process would use
/// more and more memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    upload_gateway::cli::main()
}
