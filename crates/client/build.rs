//! Generates the API from the protos, with protox so that no `protoc` is needed.

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut protos = fs::read_dir("proto/uploadgateway/v1")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    protos.sort();
    let descriptors = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure()
        .build_server(false)
        // Bytes fields as `bytes::Bytes`: prost then decodes them without a copy.
        .bytes(".")
        // Rarely set, and much larger than the rest.
        .boxed(".uploadgateway.v1.FileMetadata.placement")
        .compile_fds(descriptors)?;
    Ok(())
}
