//! Blocks that Azure copies by itself: Put Block From URL.
//!
//! The source is read with a signature that is made for each block. Azure computes no MD5 of a block by itself, so only blocks whose
//! MD5 is given are copied: Azure compares the bytes with it.

use async_trait::async_trait;
use azure_core::http::Etag;
use azure_storage_blob::models::{
    BlockBlobClientStageBlockFromUrlOptions, BlockBlobClientStageBlockFromUrlResultHeaders,
};
use upload_gateway_core::{
    blobs::{
        COPY_LIFETIME, Copied, CopySource, CopyStore, PartCopy, Session, cannot_copy,
        object_changed, part_damaged,
    },
    clock::Clock,
    error::{Error, Result},
    upload::Md5,
};

use super::{
    AzureStore, BlockId,
    fault::{fault, is_copy_refusal, report, status},
    http::within,
    is_damage,
    policy::call_options,
    sas::Grant,
};
use crate::blobs::{transport::Timeouts, url::path};

/// Accounts copy from each other, whatever their endpoints are.
const SERVICE: &str = "azure";

#[async_trait]
impl CopyStore for AzureStore {
    fn copy_service(&self) -> Option<&str> {
        Some(SERVICE)
    }

    async fn copy_source(&self, key: &str, etag: &str, clock: &dyn Clock) -> Result<CopySource> {
        let grant = Grant {
            container: &self.container,
            blob: Some(key),
            permissions: "r",
            lifetime: COPY_LIFETIME,
            https_only: self.url.scheme() == "https",
            ..Grant::default()
        };
        let signature = self
            .signer
            .allow(&grant, clock.now(), self.operation_timeout);
        let (signature, blob) = (signature.await?, path(key));
        Ok(CopySource {
            address: format!("{}/{blob}?{signature}", self.url),
            etag: etag.to_owned(),
        })
    }

    async fn copy_part(
        &self,
        session: &Session<'_>,
        part: &PartCopy,
        source: &CopySource,
    ) -> Result<Copied> {
        let md5 = part.md5;
        let md5 = md5.ok_or_else(|| cannot_copy("a block is only copied if its MD5 is known"))?;
        let id = BlockId::streamed(part.number, part.writer)?;
        // The response comes after the bytes were copied, so the time-out is that of a commit.
        let timeout = self.commit_timeout;
        let options = BlockBlobClientStageBlockFromUrlOptions {
            encryption_scope: session.scope.map(str::to_owned),
            source_content_md5: Some(md5.0.to_vec()),
            source_if_match: Some(Etag::from(format!("\"{}\"", source.etag))),
            source_range: Some(part.range.clone().into()),
            method_options: call_options(Timeouts::silence(timeout), Vec::new()),
            ..BlockBlobClientStageBlockFromUrlOptions::default()
        };
        let (name, address) = (id.to_bytes(), source.address.clone());
        let blob = self.blob(session.key).block_blob_client();
        let copying = blob.stage_block_from_url(&name, 0, address, Some(options));
        let output = within(timeout, copying).await.map_err(failed)?;
        // Azure returns the MD5 only if it has compared it.
        let compared = output.content_md5().ok().flatten();
        Ok(Copied {
            receipt: id.to_base64(),
            md5: compared.and_then(|md5| md5.try_into().ok()).map(Md5),
        })
    }
}

fn failed(error: azure_core::Error) -> Error {
    let action = "copy a block";
    match status(&error) {
        _ if is_damage(&error) => part_damaged(report(&error)),
        Some(412) => object_changed().caused_by(report(&error)),
        _ if is_copy_refusal(&error) => {
            cannot_copy(format!("{action}: the store refuses it")).caused_by(report(&error))
        }
        _ => fault(action, error),
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::upload::Timestamp;
    use url::Url;

    use super::*;
    use crate::blobs::azure::AzureConfig;

    #[derive(Debug)]
    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            Timestamp(1_764_158_400_000)
        }
    }

    #[tokio::test]
    async fn the_source_of_a_copy_can_only_be_read_for_five_minutes() {
        let mut config = AzureConfig::new("account", "media");
        config.account_key = Some("a2V5".into());
        config.public_endpoint = Some("https://files.example".parse().unwrap());
        let store = AzureStore::connect(config).unwrap();
        let source = store.copy_source("a/b ü.bin", "0x1", &Noon).await.unwrap();
        let url: Url = source.address.parse().unwrap();
        assert_eq!(url.host_str(), Some("account.blob.core.windows.net"));
        assert_eq!(url.path(), "/media/a/b%20%C3%BC.bin");
        let value = |name: &str| {
            let mut pairs = url.query_pairs();
            let pair = pairs.find(|(key, _)| key == name);
            pair.map(|(_, value)| value.into_owned())
        };
        assert_eq!(value("sp").as_deref(), Some("r"));
        assert_eq!(value("sr").as_deref(), Some("b"));
        assert_eq!(value("spr").as_deref(), Some("https"));
        assert_eq!(value("se").as_deref(), Some("2025-11-26T12:05:00Z"));
        let printed = format!("{source:?}");
        assert!(!printed.contains("sig"), "{printed}");
    }
}
