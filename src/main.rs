//! The `upload-gateway` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    upload_gateway::cli::main()
}
