//! Generates the API from the protos, with protox so that no `protoc` is needed.

use std::error::Error;

const PROTOS: [&str; 4] = [
    "proto/uploadgateway/v1/errors.proto",
    "proto/uploadgateway/v1/types.proto",
    "proto/uploadgateway/v1/upload.proto",
    "proto/uploadgateway/v1/signing.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        // Bytes fields as `bytes::Bytes`: prost then decodes them without a copy.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
