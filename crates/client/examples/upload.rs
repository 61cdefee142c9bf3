//! `cargo run --example upload -- FILE SERVER [UPLOAD_ID]` uploads a file. The id resumes an upload after a restart.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::{env, error::Error, path::Path};

use upload_gateway_client::{Client, ClientError, Event, Source};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [path, server, upload_id @ ..] = &env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("usage: upload FILE SERVER [UPLOAD_ID]".into());
    };
    Ok(send(path, server, upload_id.first()).await?)
}

pub(crate) async fn send(path: &str, server: &str, id: Option<&String>) -> Result<(), ClientError> {
    let client = Client::connect(server)?;
    let source = Source::open(path).await?;
    let name = Path::new(path).file_name().unwrap_or_default();
    let mut transfer = match id {
        Some(id) => client.resume(id, source).start(),
        None => client.upload(name.to_string_lossy(), source).start(),
    };
    while let Some(event) = transfer.next().await {
        match event {
            Event::Opened { upload, offset } => println!("{} from byte {offset}", upload.upload_id),
            Event::Progress(progress) => println!("{} bytes committed", progress.committed_size),
            Event::Retrying { cause, delay } => println!("{cause}; next try in {delay:?}"),
        }
    }
    println!("{} bytes stored", transfer.finish().await?.size);
    Ok(())
}
