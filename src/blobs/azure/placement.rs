//! How blobs are stored: the headers that ask for it, and what completion sets if a client has left them out.
//!
//! An account key binds no header to a signature, so the client may send none of them. Blob tags need the permission `t`.

use std::collections::{BTreeMap, HashMap};

use azure_core::http::{Etag, RequestContent};
use azure_storage_blob::models::{
    BlobClientSetMetadataOptions, BlobClientSetPropertiesOptions, BlobTag, BlobTags,
};
use upload_gateway_core::{
    blobs::{NewObject, StoredObject, contradiction},
    error::{Error, Result},
    upload::{Features, Placement, metadata_keys},
};

use super::{
    AzureStore,
    fault::{code, fault},
    metadata,
};
use crate::blobs::url::tags;

/// The tier from which blobs cannot be read.
pub(super) const ARCHIVE: &str = "Archive";

/// The header with the tier.
const TIER: &str = "x-ms-access-tier";

/// What Azure supports.
/// <https://learn.microsoft.com/azure/storage/blobs/access-tiers-overview>
pub(super) const FEATURES: Features = Features {
    object_tags: true,
    storage_classes: &["Hot", "Cool", "Cold", ARCHIVE],
    server_side_encryption: false,
    encryption_scopes: true,
};

/// The headers that ask for a placement, without those of the metadata.
pub(super) fn headers(placement: &Placement) -> Vec<(&'static str, String)> {
    let scope = placement.encryption_scope().map(str::to_owned);
    let headers = [
        ("x-ms-blob-cache-control", placement.cache_control.clone()),
        (
            "x-ms-blob-content-disposition",
            placement.content_disposition.clone(),
        ),
        (
            "x-ms-blob-content-encoding",
            placement.content_encoding.clone(),
        ),
        ("x-ms-tags", tags(&placement.object_tags)),
        (TIER, placement.storage_class.clone()),
        ("x-ms-encryption-scope", scope),
    ];
    headers
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// The headers of a signed request that ask for a placement. The archive tier is set at completion: the blocks of an archived blob
/// cannot be verified, and what the client has left out cannot be set.
pub(super) fn signed_headers(placement: &Placement) -> Vec<(&'static str, String)> {
    let mut headers = headers(placement);
    headers.retain(|(name, value)| *name != TIER || value != ARCHIVE);
    headers
}

// === impl AzureStore ===

impl AzureStore {
    /// Sets what of a blob differs from `object`. The first change requires the ETag that was found, so that it is not made to
    /// a blob that was written since.
    pub(super) async fn place(
        &self,
        object: &NewObject,
        found: &StoredObject,
    ) -> Result<StoredObject> {
        let mut current = found.clone();
        if !has_properties(object, &current) {
            self.set_properties(object, &current).await?;
            current = self.described(&object.key).await?;
        }
        if let Some(all) = missing_metadata(object, &current) {
            self.set_metadata(object, &current, &all).await?;
            current = self.described(&object.key).await?;
        }
        let placement = &object.placement;
        if !placement.object_tags.is_empty()
            && self.tags(&object.key).await? != placement.object_tags
        {
            self.set_tags(object).await?;
        }
        if let Some(tier) = &placement.storage_class
            && current.placement.storage_class.as_ref() != Some(tier)
        {
            self.set_tier(&object.key, tier).await?;
            current = self.described(&object.key).await?;
        }
        Ok(current)
    }

    async fn described(&self, key: &str) -> Result<StoredObject> {
        self.describe(key).await?.ok_or_else(contradiction)
    }

    async fn set_properties(&self, object: &NewObject, found: &StoredObject) -> Result<()> {
        let placement = &object.placement;
        // Properties that are left out are removed.
        let md5 = object.md5.or(found.md5);
        let options = BlobClientSetPropertiesOptions {
            blob_cache_control: placement.cache_control.clone(),
            blob_content_disposition: placement.content_disposition.clone(),
            blob_content_encoding: placement.content_encoding.clone(),
            blob_content_md5: md5.map(|md5| md5.0.to_vec()),
            blob_content_type: Some(object.mime.clone()),
            if_match: Some(quoted(&found.etag)),
            ..BlobClientSetPropertiesOptions::default()
        };
        let blob = self.blob(&object.key);
        let answer = self.answer(blob.set_properties(Some(options)));
        changed("set the properties of a blob", answer.await)
    }

    async fn set_metadata(
        &self,
        object: &NewObject,
        found: &StoredObject,
        all: &HashMap<String, String>,
    ) -> Result<()> {
        let options = BlobClientSetMetadataOptions {
            encryption_scope: object.placement.encryption_scope().map(str::to_owned),
            if_match: Some(quoted(&found.etag)),
            ..BlobClientSetMetadataOptions::default()
        };
        let blob = self.blob(&object.key);
        let answer = self.answer(blob.set_metadata(all, Some(options)));
        changed("set the metadata of a blob", answer.await)
    }

    async fn tags(&self, key: &str) -> Result<BTreeMap<String, String>> {
        let blob = self.blob(key);
        let answer = self.answer(async { blob.get_tags(None).await?.into_model() });
        let tags = answer
            .await
            .map_err(|error| fault("read the tags of a blob", error))?;
        let tags = tags.blob_tag_set.into_iter().flatten();
        Ok(tags
            .filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
            .collect())
    }

    async fn set_tags(&self, object: &NewObject) -> Result<()> {
        let mut tags = BlobTags::default();
        let all = object.placement.object_tags.iter().map(|(key, value)| {
            let mut tag = BlobTag::default();
            (tag.key, tag.value) = (Some(key.clone()), Some(value.clone()));
            tag
        });
        tags.blob_tag_set = Some(all.collect());
        let tags = RequestContent::try_from(tags)
            .map_err(|error| Error::internal("write the tags of a blob", error))?;
        let blob = self.blob(&object.key);
        let answer = self.answer(blob.set_tags(tags, None));
        changed("set the tags of a blob", answer.await)
    }

    async fn set_tier(&self, key: &str, tier: &str) -> Result<()> {
        let tier = tier
            .parse()
            .map_err(|_| Error::fault("set a tier: it has no such name"))?;
        let blob = self.blob(key);
        let answer = self.answer(blob.set_tier(tier, None));
        changed("set the tier of a blob", answer.await)
    }
}

/// Whether the media type and the headers of a blob are those of `object`.
fn has_properties(object: &NewObject, found: &StoredObject) -> bool {
    let (asked, own) = (&object.placement, &found.placement);
    found.mime.as_ref() == Some(&object.mime)
        && (object.md5.is_none() || found.md5 == object.md5)
        && own.cache_control == asked.cache_control
        && own.content_disposition == asked.content_disposition
        && own.content_encoding == asked.content_encoding
}

/// All metadata of `object`, if a blob has other metadata. What the gateway alone writes is kept: it may know more now than
/// when the upload was created.
fn missing_metadata(object: &NewObject, found: &StoredObject) -> Option<HashMap<String, String>> {
    let mut all = metadata(object);
    for key in [
        metadata_keys::SIZE,
        metadata_keys::MD5,
        metadata_keys::CRC64NVME,
    ] {
        if let Some(value) = found.metadata.get(key) {
            all.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let is_same = found.metadata.len() == all.len()
        && all
            .iter()
            .all(|(key, value)| found.metadata.get(key) == Some(value));
    (!is_same).then_some(all)
}

fn quoted(etag: &str) -> Etag {
    Etag::from(format!("\"{etag}\""))
}

/// The result of a change. A blob that was written meanwhile is looked at again.
fn changed<T>(action: &str, answer: azure_core::Result<T>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if code(&error) == Some("ConditionNotMet") => {
            Err(contradiction().caused_by(error))
        }
        Err(error) => Err(fault(action, error)),
    }
}
/// The second one of these permissions if the object has tags.
pub(super) fn with_tags(
    object: &NewObject,
    plain: &'static str,
    tagged: &'static str,
) -> &'static str {
    match object.placement.object_tags.is_empty() {
        true => plain,
        false => tagged,
    }
}
