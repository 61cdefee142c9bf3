//! A client of the upload gateway: uploads that resume by themselves, and the other calls of its gRPC API.
//!
//! - [`Client::upload`] sends a file or a pipe through the gateway. If the connection or a gateway fails, it opens the
//!   upload again and continues at the committed size, as the comments of [`proto::v1::ErrorReason`] say.
//! - `Client::upload_direct` sends a file straight to S3 or Azure Blob, with requests that the gateway signs.
//! - [`Client::download`] reads a file, and continues by itself where a stream broke.
//! - [`Client::get`], [`Client::list`], [`Client::delete`], [`Client::limits`], [`Client::watch`] and
//!   [`Client::sign_download`] make the other calls.
//!
//! Both ways of uploading compare the size and the MD5 of the object with the file before they return.
//!
//! # Examples
//! ```no_run
//! use tokio::fs::File;
//! use upload_gateway_client::{Client, Source, Target, UploadOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051")?;
//! let source = Source::file(File::open("report.pdf").await?).await?;
//! let target = Target::file("report.pdf", None);
//! let uploaded = client.upload(source, target, &UploadOptions::default(), |_| ()).await?;
//! println!("{} has {} bytes", uploaded.upload.upload_id, uploaded.size);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/upload.rs` is a complete program that also reports progress.
//!
//! # Features
//! - `direct` (on by default): `Client::upload_direct`. It adds an HTTP client, `reqwest`. Without it the crate needs only
//!   what gRPC needs.

mod back_off;
mod client;
mod connect;
mod credential;
mod digest;
#[cfg(feature = "direct")]
mod direct;
mod download;
mod error;
mod options;
pub mod proto;
mod reason;
mod stamp;
mod stream;
mod upload;

pub use self::{
    client::Client,
    connect::ConnectError,
    digest::Md5,
    download::{Download, DownloadOptions},
    error::{ClientError, Refusal, StoreRefusal},
    options::ConnectOptions,
    stream::{ReadSeek, Source, SourceFile},
    upload::{Event, Target, UploadOptions, Uploaded},
};
