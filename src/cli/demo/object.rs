//! Reads an object with the official S3 SDK, independently of the gateway.

use aws_sdk_s3::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
};

use super::{
    content::{Content, ContentDigest},
    gateway::EmbeddedS3,
};
use crate::{
    blobs::s3::SdkClient,
    cli::error::{CliError, chain},
};

pub(super) async fn read(s3: &EmbeddedS3, key: &str) -> Result<Content, CliError> {
    let credentials =
        Credentials::new(&s3.access_key_id, &s3.secret_access_key, None, None, "demo");
    let http_client = SdkClient::new(None)
        .map_err(|error| CliError::failed(format!("read the object back: {}", chain(&error))))?;
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&s3.endpoint)
        .credentials_provider(credentials)
        .force_path_style(true)
        .http_client(http_client)
        .build();
    let request = Client::from_conf(config)
        .get_object()
        .bucket(&s3.bucket)
        .key(key);
    let object = Box::pin(request.send()).await;
    let mut body = object
        .map_err(|error| CliError::failed(format!("read the object back: {}", chain(&error))))?
        .body;
    let mut digest = ContentDigest::default();
    while let Some(bytes) = body
        .try_next()
        .await
        .map_err(|error| CliError::failed(format!("read the object back: {}", chain(&error))))?
    {
        digest.update(&bytes);
    }
    Ok(digest.finish())
}
