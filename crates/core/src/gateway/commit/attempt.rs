//! One commit: the parts are compared, committed, and the object is verified.
//!
//! A negative answer counts only if a call that could contradict it agrees: a missing session or part is confirmed by the
//! commit itself, which names the parts, and by HEAD.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    blobs::{Commit, NewObject, Session, StoredObject, StoredPart, contradiction},
    error::Result,
    gateway::{
        recovery::{
            denials::has_parts,
            session::{placed, store_session},
        },
        refusal::too_little,
        storage::Storage,
    },
    upload::{
        Denied, Digests, Integrity, Part, Upload, listed_crc64s,
        object::{Difference, Verdict, verify},
    },
};

/// How often a commit is tried that the store refuses, or whose answer another answer contradicts.
const MAX_TRIES: usize = 2;

/// The commit of one upload. Its tries share what is known of earlier requests.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    storage: &'a Storage,
    upload: &'a Upload,
    session: Session<'a>,
    object: NewObject,
    parts: Vec<Part>,
    is_unanswered: AtomicBool,
    is_acknowledged: AtomicBool,
}

/// Why a commit made no object.
#[derive(Debug)]
pub(super) enum NotMade {
    /// There is no object, and the store denies the session or the parts.
    Denied(Denied),
    /// There is an object that the upload did not make.
    Different(Difference),
}

/// The object that the upload made, or why there is none.
pub(super) type Outcome = std::result::Result<StoredObject, NotMade>;

// === impl Attempt ===

impl<'a> Attempt<'a> {
    pub(super) fn new(storage: &'a Storage, upload: &'a Upload, digests: Digests) -> Self {
        Self {
            storage,
            upload,
            session: store_session(upload),
            object: storage.new_object(upload, digests),
            parts: upload.parts.iter_committed().cloned().collect(),
            is_unanswered: AtomicBool::new(false),
            is_acknowledged: AtomicBool::new(false),
        }
    }

    /// Whether a commit was sent whose response was lost.
    pub(super) fn is_unanswered(&self) -> bool {
        self.is_unanswered.load(Ordering::Relaxed)
    }

    /// Whether the store acknowledged a commit.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.is_acknowledged.load(Ordering::Relaxed)
    }

    /// Lists the parts, commits them and looks for the object.
    ///
    /// # Errors
    /// `Unavailable` also if the answers of the store contradict each other, or if it denies what it acknowledged.
    pub(super) async fn make_object(&self) -> Result<Outcome> {
        if self.upload.session.is_none() {
            return self.find_single_put().await;
        }
        for tries in 1..=MAX_TRIES {
            let listed = self.storage.single_try.list_parts(&self.session).await?;
            let denied = match &listed {
                None => Some(Denied::Session),
                Some(listed) => self.lacks_parts(listed).then_some(Denied::Parts),
            };
            // Sent only if something is missing.
            if denied.is_some()
                && let Some(outcome) = self.find().await?
            {
                return Ok(outcome);
            }
            let answer = self.send(listed.as_deref().unwrap_or_default()).await?;
            if answer == Commit::Done {
                self.is_acknowledged.store(true, Ordering::Relaxed);
            }
            if let Some(outcome) = self.find().await? {
                return Ok(outcome);
            }
            match (answer, denied) {
                (Commit::Done, _) => return Err(contradiction()),
                (Commit::SessionGone, Some(Denied::Session)) => {
                    return Ok(Err(NotMade::Denied(Denied::Session)));
                }
                (Commit::PartReplaced, Some(Denied::Parts)) => {
                    return Ok(Err(NotMade::Denied(Denied::Parts)));
                }
                // Only the same request could contradict a refusal.
                (Commit::Refused, _) if tries == MAX_TRIES => {
                    return Ok(Err(NotMade::Denied(Denied::Parts)));
                }
                // The two answers contradict each other, or the commit is repeated.
                (Commit::SessionGone | Commit::PartReplaced | Commit::Refused, _) => {}
            }
        }
        Err(contradiction())
    }

    fn lacks_parts(&self, listed: &[StoredPart]) -> bool {
        !has_parts(&self.storage.capabilities(), self.upload, listed)
    }

    /// Sends the commit of the parts that the store has listed.
    async fn send(&self, listed: &[StoredPart]) -> Result<Commit> {
        let parts = self.named(listed);
        let before = self.is_unanswered.swap(true, Ordering::Relaxed);
        let store = &self.storage.single_try;
        let answer = store.commit(&self.session, &self.object, &parts).await;
        let is_answered = match &answer {
            Ok(_) => true,
            Err(error) => error.operator_code().is_some() || !error.is_retryable(),
        };
        if is_answered {
            self.is_unanswered.store(before, Ordering::Relaxed);
        }
        answer
    }

    /// The parts as the commit names them.
    fn named(&self, listed: &[StoredPart]) -> Cow<'_, [Part]> {
        let has_all = || self.parts.iter().all(|part| part.crc64nvme().is_some());
        if self.object.integrity == Integrity::Md5 || has_all() {
            return Cow::Borrowed(&self.parts);
        }
        let crc64s = listed_crc64s(listed);
        let parts = self.parts.iter().cloned().map(|part| {
            let listed = crc64s.get(&part.number).copied();
            part.named(listed)
        });
        parts.collect()
    }

    /// The object of a single put that the release before recorded as a part. If the receipt is the MD5 of the bytes, the answer
    /// of the store has proven everything.
    async fn find_single_put(&self) -> Result<Outcome> {
        if let [part] = &self.parts[..]
            && !self.storage.requires_encryption
            && part.md5().is_some_and(|md5| md5.to_hex() == part.receipt)
        {
            return Ok(Ok(self.object.stored(part.receipt.clone(), part.size)));
        }
        self.find().await?.ok_or_else(contradiction)
    }

    /// The object under the upload's key; `None` if it does not exist. A different one counts only if a second HEAD agrees:
    /// the first one may have reached a replica with an older object.
    async fn find(&self) -> Result<Option<Outcome>> {
        match self.head().await? {
            Some(Err(_)) => self.head().await,
            found => Ok(found),
        }
    }

    async fn head(&self) -> Result<Option<Outcome>> {
        let found = self
            .storage
            .single_try
            .head(&self.upload.object_key)
            .await?;
        let expected = self.storage.expected(self.upload);
        let capabilities = self.storage.capabilities();
        match (
            verify(&expected, &capabilities, found.as_ref(), None),
            found,
        ) {
            (Verdict::Same, Some(found)) => {
                let stored =
                    placed(self.storage, &*self.storage.single_try, self.upload, found).await?;
                Ok(Some(Ok(stored)))
            }
            (Verdict::Different(difference), _) => Ok(Some(Err(NotMade::Different(difference)))),
            (Verdict::Unknown, _) => Err(too_little()),
            (Verdict::Absent | Verdict::Same, _) => Ok(None),
        }
    }
}
