//! Which digest the store of a storage compares with the bytes that it receives.
//!
//! Every store compares MD5s. A CRC-64/NVME is much cheaper, but a store that does not know it ignores it silently. So before the
//! first use a store is asked: it gets a few bytes with a wrong CRC-64/NVME. Only one that refuses them for that reason gets
//! CRC-64s.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{Instant, timeout},
};

use crate::{
    blobs::{BlobStore, NewObject, sign::OPAQUE},
    error::{Error, Reason, Result},
    state::{Note, NoteStore},
    upload::{
        Crc64Nvme, Integrity, Md5, Placement, UploadId,
        keys::{SIDE_OBJECTS, directory},
    },
};

/// When a store is asked again whose answer decided nothing.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How long uploads wait for the answer. Without one they use MD5s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes that are put. Not empty: an empty body may not be compared.
const BODY: &[u8] =
    b"The upload gateway asks whether the store compares this with its CRC-64/NVME. Delete it.\n";

/// Which digest a storage is configured to use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrityChoice {
    /// The CRC-64/NVME if the store compares it, else the MD5.
    #[default]
    Auto,
    /// The CRC-64/NVME, without asking the store.
    Crc64Nvme,
    /// The MD5.
    Md5,
}

/// Finds out which digest a store compares.
#[derive(Debug)]
pub(super) struct IntegrityProbe {
    storage_id: String,
    store: Arc<dyn BlobStore>,
    prefix: String,
    placement: Placement,
    /// Has the answer for all replicas.
    notes: Arc<dyn NoteStore>,
    answer: Arc<Mutex<Answer>>,
    takes_plain_parts: OnceCell<bool>,
}

/// What is known of a store.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Unknown,
    Known(Integrity),
    /// Its answer decided nothing.
    Undecided {
        ask_at: Instant,
    },
}

// === impl Answer ===

impl Answer {
    /// `None`: the store's answer decided nothing.
    fn of(found: Option<Integrity>) -> Self {
        match found {
            Some(integrity) => Self::Known(integrity),
            None => Self::Undecided {
                ask_at: Instant::now() + ASK_AGAIN,
            },
        }
    }

    /// The digest to use now. `None`: the store is to be asked.
    fn now(self) -> Option<Integrity> {
        match self {
            Self::Known(integrity) => Some(integrity),
            Self::Undecided { ask_at } if ask_at > Instant::now() => Some(Integrity::Md5),
            Self::Unknown | Self::Undecided { .. } => None,
        }
    }
}

// === impl IntegrityProbe ===

impl IntegrityProbe {
    pub(super) fn new(storage: &super::Storage, notes: Arc<dyn NoteStore>) -> Self {
        let answer = match storage.integrity {
            IntegrityChoice::Auto => Answer::Unknown,
            IntegrityChoice::Crc64Nvme => Answer::Known(Integrity::Crc64Nvme),
            IntegrityChoice::Md5 => Answer::Known(Integrity::Md5),
        };
        Self {
            storage_id: storage.id.clone(),
            store: Arc::clone(&storage.single_try),
            prefix: storage.prefix.clone(),
            placement: storage.placement.clone(),
            notes,
            answer: Arc::new(Mutex::new(answer)),
            takes_plain_parts: OnceCell::new(),
        }
    }

    /// The digest for new sessions and single puts. Asks the store if that was never done; without a decisive answer in time the MD5.
    pub(super) async fn integrity(self: &Arc<Self>) -> Integrity {
        if let Ok(answer) = self.answer.try_lock()
            && let Some(integrity) = answer.now()
        {
            return integrity;
        }
        let found = timeout(ANSWER_TIMEOUT, self.ask()).await;
        found.unwrap_or_default()
    }

    /// Asks the store, unless another caller does that or has done it meanwhile.
    async fn ask(self: &Arc<Self>) -> Integrity {
        let mut answer = Arc::clone(&self.answer).lock_owned().await;
        if let Some(integrity) = answer.now() {
            return integrity;
        }
        // Runs to its end even if the caller is cancelled: what the store has accepted is deleted.
        let probe = Arc::clone(self);
        let asked = tokio::spawn(async move {
            *answer = Answer::of(probe.find_out().await);
            answer.now()
        });
        asked.await.ok().flatten().unwrap_or_default()
    }

    /// The answer that a replica has kept, or that of the store, which is kept then.
    async fn find_out(&self) -> Option<Integrity> {
        let note = Note::Integrity(self.storage_id.clone());
        let kept = self.notes.note(&note).await;
        if let Ok(Some(text)) = &kept
            && let Ok(integrity) = serde_json::from_str(text)
        {
            return Some(integrity);
        }
        let integrity = match compares_crc64(&*self.store, &self.prefix, &self.placement).await {
            Ok(true) => Integrity::Crc64Nvme,
            Ok(false) => Integrity::Md5,
            Err(error) => {
                tracing::warn!(storage_id = self.storage_id, %error, "the store has not answered whether it compares CRC64NVMEs; it gets MD5s, and is asked again in an hour");
                return None;
            }
        };
        let kept = async {
            let text = serde_json::to_string(&integrity).unwrap_or_default();
            let seen = kept?;
            self.notes.replace_note(&note, seen.as_deref(), &text).await
        };
        // The next start asks again.
        if let Err(error) = kept.await {
            tracing::warn!(storage_id = self.storage_id, %error, "the answer of the store about CRC64NVME could not be kept");
        }
        tracing::info!(
            storage_id = self.storage_id,
            ?integrity,
            "the store has answered which digest it compares"
        );
        Some(integrity)
    }

    /// Whether a session with CRC-64s takes parts of which only the MD5 is known. The store is asked once.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn takes_plain_parts(&self) -> Result<bool> {
        let ask = async || {
            let object = probe_object(&self.prefix, &self.placement);
            let store = Arc::clone(&self.store);
            // Runs to its end even if the caller is cancelled: what it begins, it ends.
            let asked = tokio::spawn(async move { store.takes_plain_parts(&object).await });
            asked
                .await
                .map_err(|error| Error::internal("ask whether a store takes parts", error))?
        };
        self.takes_plain_parts.get_or_try_init(ask).await.copied()
    }
}

/// Asks a store whether it compares CRC-64s: it gets an object below `prefix`, stored like `placement`, whose CRC-64 is wrong.
///
/// # Errors
/// The store's answer decides nothing.
pub async fn compares_crc64(
    store: &dyn BlobStore,
    prefix: &str,
    placement: &Placement,
) -> Result<bool> {
    let object = probe_object(prefix, placement);
    match store.replace(&object, Bytes::from_static(BODY)).await {
        Err(error) if error.reason() == Reason::ChecksumMismatch => return Ok(true),
        put => put?,
    }
    if let Err(error) = store.delete(&object.key).await {
        tracing::warn!(key = object.key, %error, "the object with which the store was asked about CRC64NVME could not be deleted");
    }
    Ok(false)
}

/// The object with a wrong CRC-64. Its key is that of no upload and of no side object, and always the same, so that there is one at
/// most if responses were lost or it cannot be deleted.
fn probe_object(prefix: &str, placement: &Placement) -> NewObject {
    NewObject {
        key: format!("{}{SIDE_OBJECTS}/probe", directory(prefix)),
        mime: OPAQUE.to_owned(),
        upload_id: UploadId::generate(None),
        size: Some(BODY.len() as u64),
        md5: Some(Md5::of(BODY)),
        crc64nvme: Some(Crc64Nvme(!Crc64Nvme::of(BODY).0)),
        integrity: Integrity::Crc64Nvme,
        record: None,
        placement: Box::new(placement.clone()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_is_asked_again_an_hour_after_an_answer_that_decided_nothing() {
        let (undecided, known) = (Answer::of(None), Answer::of(Some(Integrity::Crc64Nvme)));
        assert_eq!(Answer::Unknown.now(), None);
        for (passed, now) in [
            (Duration::ZERO, Some(Integrity::Md5)),
            (ASK_AGAIN - Duration::from_secs(1), Some(Integrity::Md5)),
            (Duration::from_secs(1), None),
        ] {
            advance(passed).await;
            assert_eq!(undecided.now(), now, "{passed:?}");
            assert_eq!(known.now(), Some(Integrity::Crc64Nvme));
        }
    }
}
