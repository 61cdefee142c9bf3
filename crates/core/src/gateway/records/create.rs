//! New records.

use super::Records;
use crate::{
    error::{All, Result},
    gateway::{caller::Caller, refusal::too_large, storage::Storage},
    observe,
    upload::{
        FileMetadata, Identity, Md5, Plan, TooLarge, Upload, UploadId, WriterTag, keys::KeyParts,
        policy,
    },
};

// === impl Records ===

impl Records {
    /// The record of a new upload, after checking the caller and its file. A copy is identical to another one only if both copy the
    /// same upload, whatever `file_id` it has.
    pub(in crate::gateway) fn new_upload(
        &self,
        caller: &Caller,
        mut file: FileMetadata,
        storage: &Storage,
        writer: Option<WriterTag>,
        copy_of: Option<&UploadId>,
    ) -> Result<Upload> {
        caller.may_create()?;
        let (max_tags, max_tag_size) = (self.settings.max_tags, self.settings.max_tag_size);
        (
            policy::check(&file),
            policy::check_tags(&file, max_tags as usize, max_tag_size as usize),
            policy::check_filters(&file, &storage.extensions, &storage.mimes),
        )
            .all()?;
        file.file_mime = policy::effective_mime(&file);
        // A copy expires when its source does.
        let default = storage.expiry.default.filter(|_| copy_of.is_none());
        let asked = file.expire_after.or(default);
        file.expire_after = storage.expiry.of("file.expire_after", asked)?;
        *file.placement = storage.placed("file.placement", *file.placement)?;
        // The same digest can be written in several ways. The fingerprint must not depend on it.
        let md5: Option<Md5> = file.file_id.as_deref().and_then(|text| text.parse().ok());
        file.file_id = md5.map(|md5| md5.to_string()).or(file.file_id);
        let plan = self.plan(&file, storage)?;
        let first_part = plan.span(1).map_or(0, |span| span.size);
        let fits_one_part = file.file_size.is_some_and(|size| size <= first_part);
        file.file_digest = file
            .file_digest
            .decided(file.file_id.is_some(), fits_one_part);
        let copied = copy_of.map(|id| format!("copy of {id}"));
        let fingerprint = match (file.file_size, copied.as_ref().or(file.file_id.as_ref())) {
            (Some(file_size), Some(file_id)) => {
                let identity = Identity {
                    owner: &caller.owner,
                    storage_id: &storage.id,
                    file_name: &file.file_name,
                    file_size,
                    file_id,
                };
                Some(identity.fingerprint(&self.secret()?))
            }
            _ => None,
        };
        let id = UploadId::generate(fingerprint.as_ref());
        let times = self.times();
        let key = KeyParts {
            tenant: &caller.owner.tenant,
            created_at: times.now,
            id: &id,
            file_name: &file.file_name,
        };
        Ok(Upload {
            owner: caller.owner.clone(),
            storage_id: storage.id.clone(),
            object_key: storage.key.key(&storage.prefix, &key),
            fingerprint,
            writer,
            expires_at: times.expires_at,
            ends_at: times.now.plus(self.settings.upload_max_age),
            copy_of: copy_of.cloned(),
            origin: observe::origin(),
            file,
            ..Upload::begun(id, storage.store.kind(), plan, times.now)
        })
    }

    fn plan(&self, file: &FileMetadata, storage: &Storage) -> Result<Plan> {
        let max = storage.bounded(self.settings.bounded(u64::MAX));
        let planned = match file.file_size {
            Some(size) if size > max => Err(TooLarge { max }),
            Some(size) => Plan::known(size, storage.part_size, &storage.limits),
            None => Ok(Plan::unknown(storage.part_size, &storage.limits)),
        };
        planned.map_err(|TooLarge { max }| too_large(max))
    }

    /// The largest size, in bytes, that `upload` can have in its storage.
    pub(in crate::gateway) fn max_size(&self, upload: &Upload, storage: &Storage) -> u64 {
        let capacity = upload.plan.capacity();
        storage.bounded(self.settings.bounded(capacity))
    }
}
