//! Lists objects.

use upload_gateway_core::{blobs::ObjectPage, error::Result};

use super::{
    S3Store,
    fault::{fault, page_without_progress},
};

const ACTION: &str = "list the objects";

// === impl S3Store ===

impl S3Store {
    /// See [`ObjectStore::list`](upload_gateway_core::blobs::ObjectStore::list). A page starts after the last key of the one before.
    pub(super) async fn object_page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<ObjectPage> {
        let output = self
            .client
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(prefix)
            .set_start_after(after.map(str::to_owned))
            .send()
            .await
            .map_err(|error| fault(ACTION, error))?;
        let objects = output.contents.unwrap_or_default().into_iter();
        let keys: Vec<String> = objects.filter_map(|object| object.key).collect();
        let next = match output.is_truncated {
            // A store that ignores the start would return the same page forever.
            Some(true) => keys
                .last()
                .filter(|last| last.as_str() > after.unwrap_or_default())
                .map(|last| Some(last.clone()))
                .ok_or_else(|| page_without_progress(ACTION))?,
            _ => None,
        };
        Ok(ObjectPage { keys, next })
    }
}
