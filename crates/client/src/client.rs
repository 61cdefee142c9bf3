//! The connection to a gateway, and its calls that carry no file bytes.

use std::{fmt, time::Duration};

use tonic::{Streaming, transport::Endpoint};

use crate::{
    connect,
    error::ClientError,
    options::{ConnectOptions, Transport},
    proto::v1::{
        CopyUploadRequest, DeleteUploadRequest, GetLimitsRequest, GetServerInfoRequest,
        GetUploadRequest, KeepUploadRequest, Limits, ListPartsRequest, ListPartsResponse,
        ListStoragesRequest, ListUploadsRequest, ListUploadsResponse, MoveUploadRequest,
        ServerInfo, SignDownloadRequest, Signature, Storage, Upload, UploadProgress,
        WatchUploadRequest, signing_service_client::SigningServiceClient,
        upload_service_client::UploadServiceClient,
    },
    retry::{BackOff, RetryPolicy},
    transfer::Events,
};

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest HTTP/2 frame in bytes: the gateway sends files in pieces of this size, and each frame costs both sides a system
/// call. The usual 16 KiB make a download a third slower.
const MAX_FRAME_SIZE: u32 = 64 * 1024;

/// How often an idle connection is pinged, and how long the gateway may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// The largest response in bytes. A record with 50,000 parts is much smaller.
const MAX_RESPONSE_SIZE: usize = 16 * 1024 * 1024;

/// A client of one gateway. It connects at the first call, and again after the connection was lost. Clones share the
/// connection.
///
/// # Examples
/// ```no_run
/// use upload_gateway_client::{Client, proto::v1::ListUploadsRequest};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::connect("http://127.0.0.1:50051")?;
/// let page = client.list(ListUploadsRequest { page_size: 10, ..Default::default() }).await?;
/// for upload in page.uploads {
///     println!("{} has {} committed bytes", upload.upload_id, upload.committed_size);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    pub(crate) uploads: UploadServiceClient<Transport>,
    pub(crate) signing: SigningServiceClient<Transport>,
}

// === impl Client ===

impl Client {
    /// A client of the gateway at `server`: `http://127.0.0.1:50051`, or `https://…` with the root certificates of the
    /// operating system. The connection is established by the first call.
    ///
    /// # Errors
    /// [`ClientError::InvalidServer`] if `server` is not a valid URL with one of these schemes.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_client::Client;
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// assert!(Client::connect("http://127.0.0.1:50051").is_ok());
    /// assert!(Client::connect("127.0.0.1:50051").is_err());
    /// # }
    /// ```
    pub fn connect(server: &str) -> Result<Self, ClientError> {
        Self::connect_with(server, &ConnectOptions::default())
    }

    /// As [`Client::connect`], with authorities, a client certificate, a token or an API key.
    ///
    /// # Errors
    /// [`ClientError::InvalidServer`] if `server` is not a valid URL, or a certificate or key is not valid.
    pub fn connect_with(server: &str, options: &ConnectOptions) -> Result<Self, ClientError> {
        let invalid = |error: &dyn fmt::Display| ClientError::InvalidServer {
            server: server.to_owned(),
            problem: error.to_string(),
        };
        let mut endpoint = Endpoint::from_shared(server.to_owned())
            .map_err(|error| invalid(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .max_frame_size(MAX_FRAME_SIZE)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                endpoint = endpoint
                    .tls_config(options.tls())
                    .map_err(|error| invalid(&error))?;
            }
            _ => return Err(invalid(&"must begin with http:// or https://")),
        }
        let channel = Transport::new(endpoint.connect_lazy(), options.credential());
        let uploads = UploadServiceClient::new(channel.clone());
        let signing = SigningServiceClient::new(channel);
        Ok(Self {
            endpoint,
            uploads: uploads.max_decoding_message_size(MAX_RESPONSE_SIZE),
            signing: signing.max_decoding_message_size(MAX_RESPONSE_SIZE),
        })
    }

    /// The URL of the gateway.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_client::Client;
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let client = Client::connect("http://127.0.0.1:50051").unwrap();
    /// assert_eq!(client.server(), "http://127.0.0.1:50051/");
    /// # }
    /// ```
    pub fn server(&self) -> String {
        self.endpoint.uri().to_string()
    }

    /// Finds out within 8 seconds whether a gRPC server answers at the address, with a connection of its own. Calls would
    /// only report that the connection failed, and uploads retry that.
    ///
    /// # Errors
    /// [`ClientError::Connect`], which names what is wrong.
    ///
    /// # Examples
    /// ```
    /// use upload_gateway_client::Client;
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let client = Client::connect("http://127.0.0.1:1").unwrap();
    /// let error = client.check_connection().await.unwrap_err();
    /// assert_eq!(error.to_string(), "no gateway answers at http://127.0.0.1:1");
    /// # }
    /// ```
    pub async fn check_connection(&self) -> Result<(), ClientError> {
        Ok(connect::check(&self.endpoint).await?)
    }

    /// Reads the record of an upload.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn get(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let upload_id = upload_id.to_owned();
        let request = GetUploadRequest { upload_id };
        Ok(self.uploads.clone().get_upload(request).await?.into_inner())
    }

    /// The same, and retries while the gateway is unavailable.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::NoProgress`].
    pub(crate) async fn get_with_retries(
        &self,
        upload_id: &str,
        retry: &RetryPolicy,
        events: &Events,
    ) -> Result<Upload, ClientError> {
        let mut back_off = BackOff::new(retry.clone(), 0);
        loop {
            match self.get(upload_id).await {
                Err(failure) if failure.is_resumable() => {
                    let (known, delay) = ((Some(upload_id), 0), failure.retry_delay());
                    back_off.wait(known, failure, delay, events).await?;
                }
                got => return got,
            }
        }
    }

    /// Reads one page of uploads, newest first.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn list(
        &self,
        request: ListUploadsRequest,
    ) -> Result<ListUploadsResponse, ClientError> {
        let response = self.uploads.clone().list_uploads(request).await?;
        Ok(response.into_inner())
    }

    /// Reads one page of the committed parts of an upload, by number.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn list_parts(
        &self,
        request: ListPartsRequest,
    ) -> Result<ListPartsResponse, ClientError> {
        let response = self.uploads.clone().list_parts(request).await?;
        Ok(response.into_inner())
    }

    /// Aborts an open upload, or deletes the file of a complete one. The parts or the file are deleted from the store.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn delete(&self, upload_id: &str) -> Result<Upload, ClientError> {
        let upload_id = upload_id.to_owned();
        let request = DeleteUploadRequest { upload_id };
        let response = self.uploads.clone().delete_upload(request).await?;
        Ok(response.into_inner())
    }

    /// Sets how long the file of an upload is kept: for `expire_after` from now on, in whole seconds, or for ever, or as long as
    /// the storage keeps files. If the upload is not COMPLETE, the time begins when it becomes COMPLETE.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn keep(
        &self,
        upload_id: &str,
        expire_after: Option<Duration>,
    ) -> Result<Upload, ClientError> {
        let request = KeepUploadRequest {
            upload_id: upload_id.to_owned(),
            expire_after: expire_after.map(|time| prost_types::Duration {
                seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                nanos: 0,
            }),
        };
        let response = self.uploads.clone().keep_upload(request).await?;
        Ok(response.into_inner())
    }

    /// Copies the file of a COMPLETE upload to a storage; an empty `storage_id` means the default storage. The stream ends with
    /// the COMPLETE copy. If it ends early, the same call continues.
    ///
    /// # Errors
    /// [`ClientError::Refused`]. Items of the stream fail with a [`tonic::Status`].
    pub async fn copy_to(
        &self,
        upload_id: &str,
        storage_id: &str,
    ) -> Result<Streaming<UploadProgress>, ClientError> {
        let request = CopyUploadRequest {
            upload_id: upload_id.to_owned(),
            storage_id: storage_id.to_owned(),
        };
        let response = self.uploads.clone().copy_upload(request).await?;
        Ok(response.into_inner())
    }

    /// As [`Client::copy_to`]; when the copy is COMPLETE, the source is deleted.
    ///
    /// # Errors
    /// [`ClientError::Refused`]. Items of the stream fail with a [`tonic::Status`].
    pub async fn move_to(
        &self,
        upload_id: &str,
        storage_id: &str,
    ) -> Result<Streaming<UploadProgress>, ClientError> {
        let request = MoveUploadRequest {
            upload_id: upload_id.to_owned(),
            storage_id: storage_id.to_owned(),
        };
        let response = self.uploads.clone().move_upload(request).await?;
        Ok(response.into_inner())
    }

    /// Lists the storages that the caller can use, the default one first.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn storages(&self) -> Result<Vec<Storage>, ClientError> {
        let request = ListStoragesRequest {};
        let response = self.uploads.clone().list_storages(request).await?;
        Ok(response.into_inner().storages)
    }

    /// Reads which version of the gateway answers, and what it can do.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn server_info(&self) -> Result<ServerInfo, ClientError> {
        let request = GetServerInfoRequest {};
        let response = self.uploads.clone().get_server_info(request).await?;
        Ok(response.into_inner())
    }

    /// Reads the sizes, times and rates that uploads to a storage must respect. An empty `storage_id` means the default
    /// storage.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn limits(&self, storage_id: &str) -> Result<Limits, ClientError> {
        let storage_id = storage_id.to_owned();
        let request = GetLimitsRequest { storage_id };
        Ok(self.uploads.clone().get_limits(request).await?.into_inner())
    }

    /// Follows an upload until it is COMPLETE or ABORTED.
    ///
    /// # Errors
    /// [`ClientError::Refused`]. Items of the stream fail with a [`tonic::Status`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: upload_gateway_client::Client, upload_id: &str)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let mut changes = client.watch(upload_id).await?;
    /// while let Some(progress) = changes.message().await? {
    ///     println!("{} bytes are committed", progress.committed_size);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(&self, upload_id: &str) -> Result<Streaming<UploadProgress>, ClientError> {
        let upload_id = upload_id.to_owned();
        let request = WatchUploadRequest { upload_id };
        let response = self.uploads.clone().watch_upload(request).await?;
        Ok(response.into_inner())
    }

    /// Signs a request that downloads the object of a complete upload from the store. It is valid for `expiry_minutes`, at
    /// most 1,440; 0 means 1,440.
    ///
    /// # Errors
    /// [`ClientError::Refused`].
    pub async fn sign_download(
        &self,
        upload_id: &str,
        expiry_minutes: i32,
    ) -> Result<Signature, ClientError> {
        let request = SignDownloadRequest {
            upload_id: upload_id.to_owned(),
            expiry_minutes,
        };
        let response = self.signing.clone().sign_download(request).await?;
        Ok(response.into_inner().signature.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_must_be_an_http_url() {
        for server in ["", "127.0.0.1:50051", "ftp://127.0.0.1", "http://a b"] {
            assert!(Client::connect(server).is_err(), "{server}");
        }
    }
}
