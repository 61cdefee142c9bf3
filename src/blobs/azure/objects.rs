//! Lists blobs.

use azure_storage_blob::models::BlobContainerClientListBlobsOptions;
use futures::TryStreamExt;
use upload_gateway_core::{blobs::ObjectPage, error::Result};

use super::{AzureStore, fault::fault};

// === impl AzureStore ===

impl AzureStore {
    /// See [`ObjectStore::list`](upload_gateway_core::blobs::ObjectStore::list). A page starts at the marker of the one before.
    /// Blobs with only uncommitted blocks are not listed.
    pub(super) async fn blob_page(&self, prefix: &str, after: Option<&str>) -> Result<ObjectPage> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix.to_owned()),
            marker: after.map(str::to_owned),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let page = self.answer(async {
            let mut pages = self.client.list_blobs(Some(options))?.into_pages();
            let page = pages.try_next().await?;
            page.map(azure_core::http::Response::into_model).transpose()
        });
        let page = page.await.map_err(|error| fault("list the blobs", error))?;
        let Some(page) = page else {
            return Ok(ObjectPage::default());
        };
        let names = page.blob_items.into_iter().filter_map(|blob| blob.name);
        Ok(ObjectPage {
            keys: names.collect(),
            next: page.next_marker.filter(|marker| !marker.is_empty()),
        })
    }
}
