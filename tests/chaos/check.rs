//! What must hold at the end, read from the stores themselves and not through the gateways.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use upload_gateway_client::{ClientError, Uploaded};

use crate::{
    cluster::Cluster,
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
    /// Reads every object of both stores.
    pub(crate) async fn read(cluster: &Cluster) -> Result<Self, Failure> {
        let mut stored = Self::default();
        stored.read_s3(cluster).await?;
        stored.read_azure(cluster).await?;
        Ok(stored)
    }

    async fn read_s3(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        let (client, bucket) = (cluster.s3.client(), &cluster.s3.bucket);
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
                self.objects.insert((Store::S3.id(), key), content.finish());
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

/// All violations, as sentences.
pub(crate) fn violations(
    cluster: &Cluster,
    stored: &Stored,
    swept: &Swept,
    sent: &[Sent],
) -> Vec<String> {
    let mut found = stored.wrong_objects(sent);
    let left = stored.open_sessions.iter();
    found.extend(left.map(|key| format!("the sweep left a multipart upload: {key}")));
    if !cluster.may_forget_what_is_due() {
        let left = swept.live_records.iter();
        found.extend(left.map(|record| format!("the sweep left a record: {record}")));
    }
    if swept.report.failures > 0 {
        found.push(format!("the sweep failed: {:?}", swept.report));
    }
    let has_lost_state = cluster.has_lost_state();
    for sent in sent {
        let Sent {
            upload,
            outcomes,
            journal,
        } = sent;
        let number = upload.number;
        let ids = &journal.ids;
        for outcome in outcomes {
            match outcome {
                Outcome::Stored(uploaded) => found.extend(stored.missing(upload, uploaded)),
                Outcome::Hung => found.push(format!("upload {number}: no answer in time, {ids:?}")),
                Outcome::Failed(error) if is_explained(error, upload.course, has_lost_state) => {}
                Outcome::Failed(error) => found.push(format!(
                    "upload {number}: nothing explains {}: {error}, {ids:?}",
                    reason(error)
                )),
            }
        }
        let is_taken_over = |outcome: &Outcome| matches!(outcome, Outcome::Failed(error) if reason(error) == "TAKEN_OVER");
        if outcomes.iter().all(is_taken_over) {
            found.push(format!(
                "upload {number}: each sender lost to another one, {ids:?}"
            ));
        }
        if !has_lost_state {
            found.extend(journal.went_back.iter().map(|(from, to)| {
                format!("upload {number}: committed_size fell from {from} to {to}, {ids:?}")
            }));
        }
    }
    let crashes = cluster.incidents().into_iter();
    found.extend(
        crashes
            .filter(|(_, incident)| *incident != Incident::NotStarted)
            .map(|(index, incident)| format!("gateway {index}: {incident:?}")),
    );
    for (index, log) in cluster.gateway_logs().iter().enumerate() {
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        found.extend(panics.map(|line| format!("gateway {index}: {line}")));
    }
    found
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
