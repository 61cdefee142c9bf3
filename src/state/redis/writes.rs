//! Writes of whole records: creates, updates, and another owner.

use upload_gateway_core::{
    error::{Error, Reason, Result},
    state::{Creation, Update},
    upload::{Fingerprint, Owner, Timestamp, Upload, UploadId, WriterTag},
};

use super::{
    Redis,
    record::{self, Stored, removal_time},
    scripts::SCRIPTS,
};

/// How often a create tries to replace the fingerprint of an upload that is over before it fails.
const CREATE_ATTEMPTS: usize = 5;

// === impl Redis ===

impl Redis {
    /// See [`RecordStore::create`](upload_gateway_core::state::RecordStore::create).
    pub(super) async fn create_within(&self, upload: &Upload, max_live: u64) -> Result<Creation> {
        if !upload.is_live() {
            return self.create_ended(upload).await;
        }
        // Sent together: one round trip. The sweeper removes entries without a record.
        let (created, has_room, indexed) = tokio::join!(
            self.create_record(upload),
            self.reserve(upload, max_live),
            self.index_uncounted(upload)
        );
        let is_refused = |error: &Error| error.reason() == Reason::StateFull;
        if created.as_ref().is_err_and(is_refused) {
            // The memory is full: the entries must not take more of it.
            self.unindex(upload).await?;
        }
        let (holder, has_room) = (created?, has_room?);
        indexed?;
        if let Some(known) = holder {
            self.unindex(upload).await?;
            return Ok(Creation::Exists(Box::new(known)));
        }
        // At its limit, too: an identical create may have found the upload already.
        if !has_room {
            if self.uncreate(upload).await? {
                self.unindex(upload).await?;
                return Ok(Creation::Full);
            }
            self.mark_live(upload).await?;
        }
        Ok(Creation::Created)
    }

    /// Stores a record that was rebuilt, of an upload that has ended. It is not written again: if this process ended before it is
    /// indexed, it would not be listed and its file would not expire. So its entries are written first.
    async fn create_ended(&self, upload: &Upload) -> Result<Creation> {
        self.index(upload).await?;
        match self.create_record(upload).await? {
            Some(known) => {
                self.index(&known).await?;
                Ok(Creation::Exists(Box::new(known)))
            }
            None => Ok(Creation::Created),
        }
    }

    /// See [`RecordStore::give`](upload_gateway_core::state::RecordStore::give).
    pub(super) async fn give_to(&self, upload: &Upload, owner: &Owner) -> Result<Update> {
        let given = Upload {
            owner: owner.clone(),
            fingerprint: None,
            ..upload.clone()
        };
        let released = upload.fingerprint.as_ref();
        let given = self.replace_and_release(&given, upload.writer, None, released);
        let given = given.await?;
        if let Update::Updated(_) = given {
            self.unindex(upload).await?;
        }
        Ok(given)
    }

    /// Replaces a record of version `upload.version`, written by `writer` and, if `seen` is given, with that
    /// `updated_at`.
    pub(super) async fn replace(
        &self,
        upload: &Upload,
        writer: Option<WriterTag>,
        seen: Option<Timestamp>,
    ) -> Result<Update> {
        let released = upload.fingerprint.as_ref().filter(|_| !upload.is_indexed());
        self.replace_and_release(upload, writer, seen, released)
            .await
    }

    /// As [`Redis::replace`]. Also releases a fingerprint, if the upload holds it.
    async fn replace_and_release(
        &self,
        upload: &Upload,
        writer: Option<WriterTag>,
        seen: Option<Timestamp>,
        released: Option<&Fingerprint>,
    ) -> Result<Update> {
        let mut arguments = vec![
            upload.version.to_string(),
            upload.id.to_string(),
            released.map_or("", Fingerprint::as_str).to_owned(),
            removal_time(upload).to_string(),
            record::header_json(upload)?,
            seen.map(|seen| seen.0.to_string()).unwrap_or_default(),
            record::writer_text(writer),
            if upload.is_live() { "" } else { "1" }.to_owned(),
        ];
        for (name, value) in record::header_fields(upload) {
            arguments.extend([name.to_owned(), value]);
        }
        arguments.extend(["owner".to_owned(), record::owner_text(&upload.owner)]);
        let script = match upload.is_live() {
            true => &SCRIPTS.update,
            false => &SCRIPTS.end,
        };
        // Sent together: one round trip. First the time at which the sweeper finishes what this process does not; one that is too
        // early is corrected.
        let (indexed, updated) = tokio::join!(
            self.index(upload),
            self.invoke::<(String, String)>(script, &upload.id, &arguments)
        );
        let (outcome, detail) = updated?;
        indexed?;
        match outcome.as_str() {
            "updated" => detail
                .parse()
                .map(Update::Updated)
                .map_err(|cause| Error::internal("update.lua returned an invalid version", cause)),
            "conflict" | "missing" => self.not_replaced(upload).await,
            _ => Err(Error::fault("update.lua returned an invalid answer")),
        }
    }

    /// The result of an update whose record is another one, or missing. Corrects the entries that were written beside it.
    async fn not_replaced(&self, upload: &Upload) -> Result<Update> {
        let Some(current) = self.whole(&upload.id).await? else {
            self.unlist(upload).await?;
            return Ok(Update::Missing);
        };
        if current.owner != upload.owner {
            self.unindex(upload).await?;
        }
        self.index(&current).await?;
        Ok(Update::Conflict(Box::new(current)))
    }

    /// Stores a new record. Returns the live upload with its fingerprint instead, if there is one.
    async fn create_record(&self, upload: &Upload) -> Result<Option<Upload>> {
        let fingerprint = upload.fingerprint.as_ref().map_or("", Fingerprint::as_str);
        let Stored {
            fields,
            parts,
            receipts,
            claims,
        } = Stored::new(upload)?;
        let mut over = String::new();
        for _ in 0..CREATE_ATTEMPTS {
            let mut arguments: Vec<Vec<u8>> = vec![
                upload.id.to_string().into(),
                fingerprint.into(),
                over.into(),
                removal_time(upload).to_string().into(),
                parts.clone(),
                claims.clone(),
                fields.len().to_string().into(),
            ];
            for (name, value) in &fields {
                arguments.extend([name.clone().into(), value.clone().into()]);
            }
            for (number, receipt) in &receipts {
                arguments.extend([number.to_string().into(), receipt.clone().into()]);
            }
            let holder: String = self.invoke(&SCRIPTS.create, &upload.id, &arguments).await?;
            if holder.is_empty() {
                return Ok(None);
            }
            // An upload that is over never becomes live again, so the new upload may have its fingerprint.
            match self.whole(&parse_holder(&holder)?).await? {
                Some(known) if known.is_indexed() => return Ok(Some(known)),
                _ => over = holder,
            }
        }
        Err(Error::state_unavailable(
            "the fingerprint got a new holder at each attempt",
        ))
    }

    /// Removes a new record. Whether that was possible: it is not if the record is used already.
    async fn uncreate(&self, upload: &Upload) -> Result<bool> {
        let fingerprint = upload.fingerprint.as_ref().map_or("", Fingerprint::as_str);
        let arguments = [
            upload.id.to_string(),
            fingerprint.to_owned(),
            upload.version.to_string(),
            upload.updated_at.0.to_string(),
        ];
        self.invoke(&SCRIPTS.uncreate, &upload.id, &arguments).await
    }
}

/// The upload that holds a fingerprint.
pub(super) fn parse_holder(id: &str) -> Result<UploadId> {
    id.parse()
        .map_err(|cause| Error::internal("a fingerprint has an invalid upload id", cause))
}
