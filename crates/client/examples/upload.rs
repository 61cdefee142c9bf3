//! `cargo run --example upload -- FILE SERVER [UPLOAD_ID]` uploads a file. The id resumes an upload after a restart.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::{env, error::Error, path::Path};

use tokio::fs::File;
use upload_gateway_client::{Client, ClientError, Event, Source, Target, UploadOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let [path, server, upload_id @ ..] = &env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("usage: upload FILE SERVER [UPLOAD_ID]".into());
    };
    Ok(send(path, server, upload_id.first().cloned()).await?)
}

pub(crate) async fn send(path: &str, server: &str, id: Option<String>) -> Result<(), ClientError> {
    let file = File::open(path).await?;
    let name = Path::new(path).file_name().unwrap_or_default();
    let new = Target::file(name.to_string_lossy(), file.metadata().await?.len());
    let target = id.map_or(new, Target::Upload);
    let (source, options) = (Source::file(file).await?, UploadOptions::default());
    let on_event = |event: Event<'_>| match event {
        Event::Opened(upload) => println!("upload id {}", upload.upload_id),
        Event::Progress(progress) => println!("{} bytes committed", progress.committed_size),
        Event::Retrying { cause, delay } => println!("{cause}; next try in {delay:?}"),
    };
    let client = Client::connect(server)?;
    let uploaded = client.upload(source, target, &options, on_event).await?;
    println!("{} bytes stored", uploaded.size);
    Ok(())
}
