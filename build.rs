//! Generates the servers of the API from the protos, with protox so that no `protoc` is needed, and keeps the descriptors
//! for reflection. The messages are those of `upload-gateway-client`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut protos = fs::read_dir("proto/uploadgateway/v1")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?;
    protos.sort();
    let descriptors = protox::compile(protos, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out.join("uploadgateway.v1.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::proto::RequestCodec")
        .extern_path(".uploadgateway.v1", "::upload_gateway_client::proto::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
