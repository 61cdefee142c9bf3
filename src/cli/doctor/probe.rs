//! What is put into a storage to check it: an object, and an object of two parts. All of it is deleted again, also if a step
//! fails.

use bytes::Bytes;
use futures::TryStreamExt;
use upload_gateway_core::{
    blobs::{BlobStore, Commit, NewObject, NewPart, Put, Session},
    error::{Error, Kind},
    upload::{CompositeMd5, Integrity, Md5, Part, Placement, UploadId, WriterTag, keys},
};

use super::{
    etags::Etags,
    step::{Failed, Step},
};

/// The content of the object, and of the last part.
pub(super) const CONTENT: &[u8] = b"written by upload-gateway doctor; safe to delete";

/// The name of the objects.
const NAME: &str = "doctor-probe.txt";

/// A storage to check.
pub(super) struct Probe<'a> {
    /// The store. Its adapter accepts every ETag.
    pub(super) store: &'a dyn BlobStore,
    /// The same store. Its adapter compares ETags with MD5s unless the answer names encryption.
    pub(super) comparing: &'a dyn BlobStore,
    /// The beginning of every key.
    pub(super) prefix: &'a str,
    /// How objects are stored: a policy of the bucket may demand it.
    pub(super) placement: &'a Placement,
    /// The smallest part, in bytes, that the store accepts before another one.
    pub(super) part_size: u64,
}

/// What came of a check.
pub(super) enum Checked {
    Good(Etags),
    /// The store cannot do it, and does not need to.
    Skipped,
}

/// A check, with all steps that failed: one of the check, and those of the clean-up.
type Outcome = Result<Checked, Vec<Failed>>;

// === impl Probe ===

impl Probe<'_> {
    /// Puts an object, reads it back and deletes it.
    pub(super) async fn object(&self) -> Outcome {
        let object = self.new_object(CONTENT);
        let etag = match self.put(&object).await {
            Ok(Some(etag)) => etag,
            Ok(None) => return Ok(Checked::Skipped),
            Err(failed) => {
                // It may have been stored although the answer says otherwise.
                let _ = self.store.delete(&object.key).await;
                return Err(vec![failed]);
            }
        };
        let mut etags = Etags::default();
        etags.add("an object", etag, Md5::of(CONTENT).to_hex());
        let read = self.read_back(&object.key, &[CONTENT], &mut etags).await;
        let deleted = self.store.delete(&object.key).await;
        let deleted = deleted.map_err(|error| Step::DeleteObject.failed(error));
        both(read, [deleted]).map(|()| Checked::Good(etags))
    }

    /// Makes an object of two parts, reads it back and deletes it.
    pub(super) async fn parts(&self) -> Outcome {
        let first = vec![b'.'; usize::try_from(self.part_size).unwrap_or_default()];
        let parts = [Bytes::from(first), Bytes::from_static(CONTENT)];
        let object = self.new_object(&parts.concat());
        let begun = self.store.begin(&object).await;
        let begun = begun.map_err(|error| vec![Step::CreateSession.failed(error)])?;
        let session = Session {
            key: &object.key,
            id: &begun.id,
            scope: self.placement.encryption_scope(),
        };
        let mut etags = Etags::default();
        let made = self.make(&session, &object, &parts, &mut etags).await;
        let aborted = match &made {
            Ok(()) => Ok(()),
            Err(_) => self.store.abort(&session).await,
        };
        let deleted = self.store.delete(&object.key).await;
        let cleaned = [
            aborted.map_err(|error| Step::Abort.failed(error)),
            deleted.map_err(|error| Step::DeleteObject.failed(error)),
        ];
        both(made, cleaned).map(|()| Checked::Good(etags))
    }

    /// Creates a session, aborts it, and lists the sessions that the sweeper sees.
    pub(super) async fn abort(&self) -> Result<(), Failed> {
        let object = self.new_object(CONTENT);
        let begun = self.store.begin(&object).await;
        let begun = begun.map_err(|error| Step::CreateSession.failed(error))?;
        let session = Session {
            key: &object.key,
            id: &begun.id,
            scope: self.placement.encryption_scope(),
        };
        let aborted = self.store.abort(&session).await;
        aborted.map_err(|error| Step::Abort.failed(error))?;
        let swept = keys::KeyTemplate::default().prefix(self.prefix);
        let listed = self.store.list_sessions(&swept, None).await;
        listed
            .map(drop)
            .map_err(|error| Step::ListSessions.failed(error))
    }

    /// The ETag of a put object; `None` if the store has no conditional put.
    async fn put(&self, object: &NewObject) -> Result<Option<String>, Failed> {
        let put = self.store.put_object(object, Bytes::from_static(CONTENT));
        match put.await {
            Ok(Put::Stored(stored)) => Ok(Some(stored.etag)),
            Ok(Put::Exists) => Err(Step::PutObject.failed(Error::fault(
                "an object with a new random key exists already",
            ))),
            Err(error) if error.kind() == Kind::Unimplemented => Ok(None),
            Err(error) => Err(Step::PutObject.failed(error)),
        }
    }

    async fn make(
        &self,
        session: &Session<'_>,
        object: &NewObject,
        parts: &[Bytes; 2],
        etags: &mut Etags,
    ) -> Result<(), Failed> {
        let (mut recorded, mut offset) = (Vec::new(), 0);
        for (number, body) in (1..).zip(parts) {
            let part = self.put_part(session, number, offset, body).await?;
            offset += part.size;
            recorded.push(part);
        }
        let listed = self.store.list_parts(session).await;
        let listed = listed.map_err(|error| Step::ListParts.failed(error))?;
        if listed.is_none_or(|listed| listed.len() != parts.len()) {
            return Err(Step::ListParts.failed(Error::fault(
                "the store does not list the parts that it accepted",
            )));
        }
        let committed = self.store.commit(session, object, &recorded).await;
        match committed.map_err(|error| Step::Commit.failed(error))? {
            Commit::Done => {}
            other => {
                let problem = format!("the store does not accept its own parts: {other:?}");
                return Err(Step::Commit.failed(Error::fault(problem)));
            }
        }
        if self.store.capabilities().lists_part_digests {
            for (part, body) in recorded.into_iter().zip(parts) {
                etags.add("a part", part.receipt, Md5::of(body).to_hex());
            }
        }
        let pieces = [&*parts[0], &*parts[1]];
        self.read_back(&object.key, &pieces, etags).await
    }

    async fn put_part(
        &self,
        session: &Session<'_>,
        number: u32,
        offset: u64,
        body: &Bytes,
    ) -> Result<Part, Failed> {
        let md5 = Md5::of(body);
        let part = NewPart {
            number,
            writer: WriterTag::random(),
            checksum: md5.into(),
            body: body.clone(),
        };
        let receipt = self.store.put_part(session, part).await;
        Ok(Part {
            number,
            offset,
            size: body.len() as u64,
            checksum: Some(md5.into()),
            receipt: receipt.map_err(|error| Step::PutPart.failed(error))?,
            digest: None,
        })
    }

    /// Checks that the object is made of these pieces, and adds its ETag.
    async fn read_back(
        &self,
        key: &str,
        pieces: &[&[u8]],
        etags: &mut Etags,
    ) -> Result<(), Failed> {
        let found = self.comparing.head(key).await;
        let found = found.map_err(|error| Step::DescribeObject.failed(error))?;
        let found = found.ok_or_else(|| {
            let missing = "the store does not find the object that it accepted";
            Step::DescribeObject.failed(Error::fault(missing))
        })?;
        etags.add_encryption(!found.has_digests);
        if let [_, _, ..] = pieces {
            let composite = CompositeMd5::of(pieces.iter().map(|piece| Md5::of(piece)));
            let expected = format!("{}-{}", composite.md5.to_hex(), composite.parts);
            etags.add("an object of two parts", found.etag, expected);
        }
        let read = async {
            let chunks = self.store.read(key, None, None).await?;
            let chunks: Vec<Bytes> = chunks.try_collect().await?;
            if chunks.concat() != pieces.concat() {
                return Err(Error::fault(
                    "the store returned bytes that differ from those written",
                ));
            }
            Ok(())
        };
        read.await.map_err(|error| Step::ReadObject.failed(error))
    }

    pub(super) fn new_object(&self, content: &[u8]) -> NewObject {
        let upload_id = UploadId::generate(None);
        NewObject {
            key: keys::object_key(self.prefix, &upload_id, NAME),
            mime: "text/plain".into(),
            size: Some(content.len() as u64),
            md5: Some(Md5::of(content)),
            crc64nvme: None,
            integrity: Integrity::Md5,
            record: None,
            upload_id,
            // It is read at once, which archive classes do not allow.
            placement: Box::new(Placement {
                storage_class: None,
                ..self.placement.clone()
            }),
        }
    }
}

/// All failures of a check and of the clean-up after it.
fn both<const N: usize>(
    checked: Result<(), Failed>,
    cleaned: [Result<(), Failed>; N],
) -> Result<(), Vec<Failed>> {
    let results = std::iter::once(checked).chain(cleaned);
    let failures: Vec<Failed> = results.filter_map(Result::err).collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}
