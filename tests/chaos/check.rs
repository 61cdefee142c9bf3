//! What must hold at the end, read from the stores themselves and not through the gateways.

use std::{collections::BTreeMap, fmt};

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use upload_gateway::embedded_s3::{EmbeddedS3, EmbeddedS3Config};
use upload_gateway_client::{ClientError, Uploaded};

use crate::{
    cluster::Cluster,
    common,
    files::{Handled, expire_after},
    gateway::Incident,
    schedule::Store,
    senders::{Outcome, Sent, reason},
    sweep::Swept,
    uploads::{Content, Course, Upload},
};

/// Why reading a store failed.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The content of the stores.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Objects by store and key.
    objects: BTreeMap<(&'static str, String), Content>,
    /// The keys of multipart uploads that are neither complete nor aborted.
    open_sessions: Vec<String>,
}

// === impl Stored ===

impl Stored {
    /// Reads every object of all stores.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, Failure> {
        let mut stored = Self::default();
        let s3 = &cluster.s3;
        stored.read_s3(Store::S3, &s3.client(), &s3.bucket).await?;
        stored.read_azure(cluster).await?;
        stored.read_embedded(cluster).await?;
        Ok(stored)
    }

    /// The gateway with the embedded stores has ended.
    async fn read_embedded(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let config = EmbeddedS3Config {
            directory: cluster.embedded_blobs(),
            ..EmbeddedS3Config::default()
        };
        let server = EmbeddedS3::start(config.clone()).await?;
        let (id, secret) = (&config.access_key_id, config.secret_access_key.expose());
        let client = common::s3_client(&server.endpoint(), id, secret);
        self.read_s3(Store::Embedded, &client, &config.bucket)
            .await?;
        server.stop().await;
        Ok(())
    }

    async fn read_s3(
        &mut self,
        store: Store,
        client: &aws_sdk_s3::Client,
        bucket: &str,
    ) -> Result<(), Failure> {
        let mut pages = client
            .list_objects_v2()
            .bucket(bucket)
            .into_paginator()
            .send();
        while let Some(page) = pages.try_next().await? {
            for object in page.contents() {
                let key = object.key().unwrap_or_default().to_owned();
                let mut body = client
                    .get_object()
                    .bucket(bucket)
                    .key(&key)
                    .send()
                    .await?
                    .body;
                let mut content = Hashing::default();
                while let Some(piece) = body.try_next().await? {
                    content.take(&piece);
                }
                self.objects.insert((store.id(), key), content.finish());
            }
        }
        let uploads = client.list_multipart_uploads().bucket(bucket);
        let uploads = uploads.send().await?;
        let keys = uploads.uploads().iter().filter_map(|upload| upload.key());
        self.open_sessions.extend(keys.map(str::to_owned));
        Ok(())
    }

    async fn read_azure(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let client = cluster.azure.client();
        let mut blobs = client.list_blobs(None)?;
        while let Some(blob) = blobs.try_next().await? {
            let key = blob.name.unwrap_or_default();
            let mut body = client.blob_client(&key).download(None).await?.body;
            let mut content = Hashing::default();
            while let Some(piece) = body.try_next().await? {
                content.take(&piece);
            }
            self.objects
                .insert((Store::Azure.id(), key), content.finish());
        }
        Ok(())
    }

    /// Objects whose content is not the file that they are named after.
    fn wrong_objects(&self, sent: &[Sent]) -> Vec<String> {
        let mut expected = BTreeMap::new();
        let mut wrong = Vec::new();
        for ((store, key), found) in &self.objects {
            // What the gateway keeps of a record.
            if key.split('/').any(|name| name == ".records") {
                continue;
            }
            let number = Upload::number_of(key);
            let Some(sent) = number.and_then(|number| sent.get(number)) else {
                wrong.push(format!("{store} has {key}, which no sender sent"));
                continue;
            };
            let number = sent.upload.number;
            let expected = expected
                .entry(number)
                .or_insert_with(|| sent.upload.content());
            if found != expected {
                wrong.push(format!(
                    "upload {number}: {store} has {} other bytes at {key} instead of {}",
                    found.size, expected.size
                ));
            }
        }
        wrong
    }

    /// Objects that were reported to a sender as stored, and are missing.
    fn missing(&self, upload: &Upload, uploaded: &Uploaded) -> Option<String> {
        let key = uploaded.upload.object.as_ref().map(|object| &object.key);
        let is_there =
            key.is_some_and(|key| self.objects.contains_key(&(upload.store.id(), key.clone())));
        (!is_there).then(|| {
            format!(
                "upload {}: {} is COMPLETE, and {} has no {key:?}",
                upload.number,
                uploaded.upload.upload_id,
                upload.store.id(),
            )
        })
    }
}

/// What must not be, as sentences.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    /// Objects with other bytes than their senders sent.
    wrong: Vec<String>,
    /// Objects that were reported to a sender as stored, and are not there.
    missing: Vec<String>,
    /// Multipart uploads and OPEN records after the sweep.
    left: Vec<String>,
    /// COMMITTING records after the sweep.
    committing: Vec<String>,
    /// Errors that nothing explains, senders without an answer, and crashes.
    other: Vec<String>,
}

// === impl Violations ===

impl Violations {
    pub(crate) fn find(cluster: &Cluster, stored: &Stored, swept: &Swept, sent: &[Sent]) -> Self {
        let mut found = Self {
            wrong: stored.wrong_objects(sent),
            ..Self::default()
        };
        found.add_left(cluster, stored, swept);
        for sent in sent {
            found.add_sent(cluster, stored, sent);
            found.add_expiry(cluster, swept, (stored, sent));
        }
        found.add_crashes(cluster);
        found
    }

    pub(crate) fn count(&self) -> usize {
        self.all().count()
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        let Self {
            wrong,
            missing,
            left,
            committing,
            other,
        } = self;
        [wrong, missing, left, committing, other]
            .into_iter()
            .flatten()
    }

    fn add_left(&mut self, cluster: &Cluster, stored: &Stored, swept: &Swept) {
        let sessions = stored.open_sessions.iter();
        self.left
            .extend(sessions.map(|key| format!("the sweep left a multipart upload: {key}")));
        if !cluster.may_forget_what_is_due() {
            let stayed = |record: &String| format!("the sweep left a record: {record}");
            self.left.extend(swept.open.iter().map(stayed));
            self.committing.extend(swept.committing.iter().map(stayed));
        }
        if swept.report.failures > 0 {
            self.other
                .push(format!("the sweep failed: {:?}", swept.report));
        }
    }

    fn add_sent(&mut self, cluster: &Cluster, stored: &Stored, sent: &Sent) {
        let Sent {
            upload,
            outcomes,
            journal,
            handled,
        } = sent;
        let (number, ids) = (upload.number, &journal.ids);
        let has_lost_state = cluster.has_lost_state() && upload.store != Store::Embedded;
        for outcome in outcomes {
            match outcome {
                // A deletion or a move that failed may have deleted it.
                Outcome::Stored(_) if handled.as_ref().is_some_and(Handled::may_delete) => {}
                // A record of an earlier time expires.
                Outcome::Stored(_)
                    if expire_after(upload).is_some() && cluster.may_have_earlier_records() => {}
                Outcome::Stored(uploaded) => self.missing.extend(stored.missing(upload, uploaded)),
                Outcome::Hung => self
                    .other
                    .push(format!("upload {number}: no answer in time, {ids:?}")),
                Outcome::Failed(error) if is_explained(error, upload.course, has_lost_state) => {}
                Outcome::Failed(error) => self.other.push(format!(
                    "upload {number}: nothing explains {}: {error}, {ids:?}",
                    reason(error)
                )),
            }
        }
        if let Some(handled) = handled {
            self.wrong.extend(handled.wrong.clone());
            let key = outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Stored(uploaded) => uploaded.upload.object.as_ref(),
                Outcome::Failed(_) | Outcome::Hung => None,
            });
            let key = key.map(|object| &object.key);
            self.add_handled(stored, (upload, key), handled);
        }
        let is_taken_over = |outcome: &Outcome| matches!(outcome, Outcome::Failed(error) if reason(error) == "TAKEN_OVER");
        if outcomes.iter().all(is_taken_over) {
            self.other.push(format!(
                "upload {number}: each sender lost to another one, {ids:?}"
            ));
        }
        if !has_lost_state {
            self.other
                .extend(journal.went_back.iter().map(|(from, to)| {
                    format!("upload {number}: committed_size fell from {from} to {to}, {ids:?}")
                }));
        }
    }

    /// What calls on the stored file have acknowledged.
    fn add_handled(
        &mut self,
        stored: &Stored,
        (upload, key): (&Upload, Option<&String>),
        handled: &Handled,
    ) {
        let (store, number) = (upload.store.id(), upload.number);
        let has = |key: &String| stored.objects.contains_key(&(store, key.clone()));
        let copy = handled.made.as_ref().filter(|key| !has(key));
        self.missing
            .extend(copy.map(|key| format!("upload {number}: {store} has no copy {key}")));
        let is_deleted = handled.may_delete() && handled.is_done && handled.has_expired().is_none();
        let left = key.filter(|key| is_deleted && has(key));
        self.left.extend(
            left.map(|key| format!("upload {number}: {store} has {key} after its deletion")),
        );
    }

    /// Files that have expired and are found or stored, and files that have not and are not found.
    fn add_expiry(&mut self, cluster: &Cluster, swept: &Swept, (stored, sent): (&Stored, &Sent)) {
        let changed = sent.handled.as_ref();
        let changed = changed.and_then(|handled| Some((handled, handled.has_expired()?)));
        let Some((handled, has_expired)) = changed else {
            return;
        };
        let (number, store) = (sent.upload.number, sent.upload.store);
        let is_embedded = store == Store::Embedded;
        if cluster.may_have_earlier_records() && !is_embedded {
            return;
        }
        let id = &handled.id;
        let is_found = swept.found.iter().any(|found| found.as_str() == id);
        if is_found == has_expired {
            let what = if is_found { "is found" } else { "is not found" };
            let expiry = if is_found { "has" } else { "has not" };
            let wrong = format!("upload {number}: {id} {what} and {expiry} expired");
            self.other.push(wrong);
        }
        // The sweeper does not know of a file whose record is lost.
        if has_expired && (is_embedded || !cluster.has_lost_state()) {
            let mut keys = stored.objects.keys();
            let left = keys.find(|(of, key)| *of == store.id() && key.contains(id.as_str()));
            self.left.extend(
                left.map(|(of, key)| format!("upload {number}: {of} has {key}, which has expired")),
            );
        }
    }

    fn add_crashes(&mut self, cluster: &Cluster) {
        let crashes = cluster.incidents().into_iter();
        self.other.extend(
            crashes
                .filter(|(_, incident)| *incident != Incident::NotStarted)
                .map(|(index, incident)| format!("gateway {index}: {incident:?}")),
        );
        for (index, log) in cluster.gateway_logs().iter().enumerate() {
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            self.other
                .extend(panics.map(|line| format!("gateway {index}: {line}")));
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "  at the end        {} wrong, {} missing, {} left behind, {} in COMMITTING, {} other violations",
            self.wrong.len(),
            self.missing.len(),
            self.left.len(),
            self.committing.len(),
            self.other.len()
        )?;
        self.all()
            .try_for_each(|violation| writeln!(formatter, "  VIOLATED: {violation}"))
    }
}

/// Whether the faults explain the error: after what was done to the servers, the upload could not resume.
fn is_explained(error: &ClientError, course: Course, has_lost_state: bool) -> bool {
    match reason(error).as_str() {
        "TAKEN_OVER" => course == Course::Contested,
        // Resume tokens restore what was streamed, if the sender has one.
        "UPLOAD_NOT_FOUND" | "SESSION_LOST" => {
            has_lost_state && !matches!(course, Course::Streamed | Course::Contested)
        }
        _ => false,
    }
}

/// Computes the content of an object that is read in pieces.
#[derive(Default)]
struct Hashing {
    size: u64,
    sha256: Sha256,
}

// === impl Hashing ===

impl Hashing {
    fn take(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        self.sha256.update(piece);
    }

    fn finish(self) -> Content {
        Content {
            size: self.size,
            sha256: self.sha256.finalize().into(),
        }
    }
}
