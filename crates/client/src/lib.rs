//! A client of the upload gateway: uploads and downloads that resume by themselves, and the other calls of its gRPC API.
//!
//! - [`Client::upload`] sends a file, a pipe or any other bytes through the gateway. If the connection or a gateway fails, it
//!   opens the upload again and continues at the committed size, as the comments of [`proto::v1::ErrorReason`] say. With a
//!   [`ResumeStore`], the same call continues in another process, too.
//! - `Client::upload_direct` sends a file straight to S3 or Azure Blob, with requests that the gateway signs.
//! - [`Client::download_file`] and [`Client::download`] read a file, and continue by themselves where a stream broke.
//! - [`Client::get`], [`Client::list`], [`Client::delete`], [`Client::limits`], [`Client::watch`] and
//!   [`Client::sign_download`] make the other calls.
//!
//! Uploads and downloads compare the size and the MD5 of the object with the file before they return.
//!
//! # Examples
//! ```no_run
//! use upload_gateway_client::{Client, Source};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:50051")?;
//! let uploaded = client.upload("report.pdf", Source::open("report.pdf").await?).await?;
//! println!("{} has {} bytes", uploaded.upload.upload_id, uploaded.size);
//! # Ok(())
//! # }
//! ```
//!
//! An upload or a download that was started is a stream of [`Event`]s, for a progress bar: see [`Transfer`].
//! `examples/upload.rs` is a complete program.
//!
//! # Features
//! - `direct` (on by default): `Client::upload_direct`. It adds an HTTP client, `reqwest`. Without it the crate needs only
//!   what gRPC needs.
//!
//! # Versions
//! The crate follows semantic versioning. It compiles with Rust 1.95 and later; a later minimum is a new minor version.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod builder;
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
mod resume;
mod retry;
mod stamp;
mod stream;
mod transfer;
mod upload;

#[cfg(feature = "direct")]
pub use self::direct::DirectUpload;
pub use self::{
    builder::{Creates, KnownUpload, NewUpload, UploadBuilder, Way},
    client::Client,
    connect::ConnectError,
    digest::{Crc64Nvme, Md5},
    download::{Download, DownloadBuilder, Downloaded, FileDownload},
    error::{ClientError, Refusal, StoreRefusal},
    options::ConnectOptions,
    resume::{Check, FileResumeStore, ResumeStore, SavedUpload},
    retry::RetryPolicy,
    stream::{ReadSeek, Source, SourceFile},
    transfer::{Event, Progress, Transfer},
    upload::Uploaded,
};
