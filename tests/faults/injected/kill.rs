//! The gateway's process ends at an exact moment, as if it were killed, and another gateway resumes the upload.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use tokio::time::timeout;
use upload_gateway_client::proto::v1::{Phase, Upload};

use super::{
    common::{TestGateway, bytes, finish},
    for_each_store,
    stores::{Stores, assert_whole, begin_of_size, resume},
};

for_each_store!(
    a_part_that_was_put_and_not_recorded_is_sent_again,
    a_part_that_was_recorded_and_not_acknowledged_is_not_sent_again,
    a_session_that_was_begun_and_not_recorded_is_begun_again,
    a_commit_that_was_never_sent_is_sent_when_its_lease_has_expired,
    a_commit_whose_answer_was_not_read_is_found_at_once,
    a_commit_that_was_answered_and_not_recorded_is_found_at_once,
    a_commit_of_a_file_of_unknown_size_is_found_at_once,
    a_commit_that_was_recorded_and_not_reported_is_reported,
    a_small_file_that_was_put_and_not_recorded_is_the_same_object,
    a_small_file_that_was_recorded_and_not_acknowledged_is_complete,
);

/// SIGABRT, with which a fault ends the process.
const ABORTED: Option<i32> = Some(6);

/// Half of a commit's default lease: what is done by then has not waited for the lease to expire.
const AT_ONCE: Duration = Duration::from_secs(45);

/// A gateway that ended during an upload, and another one.
struct Killed<'a> {
    stores: &'a Stores,
    survivor: TestGateway,
    data: Vec<u8>,
    /// The record that it left.
    left: Upload,
}

impl<'a> Killed<'a> {
    /// Sends a file of this size, the first part in an earlier stream, to a gateway that ends as `faults` says.
    async fn by(faults: &str, stores: &'a Stores, size: usize) -> Self {
        Self::declaring(Some(size), faults, stores, size).await
    }

    /// A file of one part and a little.
    async fn two_parts_by(faults: &str, stores: &'a Stores) -> Self {
        Self::by(faults, stores, stores.part + 1000).await
    }

    async fn declaring(
        declared: Option<usize>,
        faults: &str,
        stores: &'a Stores,
        size: usize,
    ) -> Self {
        let mut process = stores.process();
        let survivor = stores.gateway().await;
        let data = bytes(size);
        let grpc = format!("http://127.0.0.1:{}", process.port());
        let begun = begin_of_size(&grpc, faults, declared).await;
        let (mut stream, opened) = begun.unwrap();
        let (first, rest) = data.split_at(size.min(stores.part));
        stream.send_in_chunks(0, first, 1 << 20).await;
        if !rest.is_empty() && !faults.contains("store.begin") {
            stream.committed(first.len()).await;
        }
        stream.send_in_chunks(first.len(), rest, 1 << 20).await;
        stream.send(finish()).await;
        stream.end().await.unwrap_err();
        assert_eq!(process.ended().signal(), ABORTED, "{}", process.log());
        let left = survivor.get(&opened.upload_id).await.unwrap();
        Self {
            stores,
            survivor,
            data,
            left,
        }
    }

    fn committed(&self) -> usize {
        usize::try_from(self.left.committed_size).unwrap()
    }

    /// Resumes at the other gateway and finishes.
    async fn resumes(&self) {
        let resumed = resume(&self.survivor.grpc, "", &self.left.upload_id, &self.data);
        let upload = timeout(AT_ONCE, resumed).await.expect("it takes too long");
        assert_whole(self.stores, &self.survivor, &upload.unwrap(), &self.data).await;
    }
}

async fn a_part_that_was_put_and_not_recorded_is_sent_again(stores: Stores) {
    let fault = "process:nth=2:exit-before=state.record_parts";
    let killed = Killed::two_parts_by(fault, &stores).await;
    assert_eq!(killed.committed(), stores.part);
    assert_eq!(stores.stored_parts(&killed.left).await.len(), 2);
    killed.resumes().await;
}

async fn a_part_that_was_recorded_and_not_acknowledged_is_not_sent_again(stores: Stores) {
    let fault = "process:nth=2:exit-after=state.record_parts";
    let killed = Killed::two_parts_by(fault, &stores).await;
    assert_eq!(killed.committed(), killed.data.len());
    killed.resumes().await;
}

async fn a_session_that_was_begun_and_not_recorded_is_begun_again(stores: Stores) {
    let killed = Killed::two_parts_by("process:exit-after=store.begin", &stores).await;
    assert_eq!((killed.committed(), &*killed.left.resumable_id), (0, ""));
    // No record has this session; the sweeper would end it.
    stores.abort_open_sessions().await;
    killed.resumes().await;
}

async fn a_commit_that_was_never_sent_is_sent_when_its_lease_has_expired(mut stores: Stores) {
    stores.config.limits.store_retry_timeout_seconds = 1;
    stores.config.limits.commit_lease_seconds = 2;
    let killed = Killed::two_parts_by("process:exit-before=store.commit", &stores).await;
    assert_eq!(killed.left.phase(), Phase::Committing);
    killed.resumes().await;
}

async fn a_commit_whose_answer_was_not_read_is_found_at_once(stores: Stores) {
    let killed = Killed::two_parts_by("process:exit-after=store.commit", &stores).await;
    assert_eq!(killed.left.phase(), Phase::Committing);
    killed.resumes().await;
}

async fn a_commit_that_was_answered_and_not_recorded_is_found_at_once(stores: Stores) {
    // The first update records the session, the second one that the commit begins.
    let fault = "process:nth=3:exit-before=state.update";
    let killed = Killed::two_parts_by(fault, &stores).await;
    assert_eq!(killed.left.phase(), Phase::Committing);
    killed.resumes().await;
}

async fn a_commit_of_a_file_of_unknown_size_is_found_at_once(stores: Stores) {
    let (fault, size) = ("process:exit-after=store.commit", stores.part + 1000);
    let killed = Killed::declaring(None, fault, &stores, size).await;
    assert_eq!(killed.left.phase(), Phase::Committing);
    killed.resumes().await;
}

async fn a_commit_that_was_recorded_and_not_reported_is_reported(stores: Stores) {
    let fault = "process:nth=3:exit-after=state.update";
    let killed = Killed::two_parts_by(fault, &stores).await;
    assert_eq!(killed.left.phase(), Phase::Complete);
    killed.resumes().await;
}

async fn a_small_file_that_was_put_and_not_recorded_is_the_same_object(stores: Stores) {
    let killed = Killed::by("process:exit-after=store.put_object", &stores, 1000).await;
    assert_eq!(killed.committed(), 0);
    killed.resumes().await;
}

async fn a_small_file_that_was_recorded_and_not_acknowledged_is_complete(stores: Stores) {
    let killed = Killed::by("process:exit-after=state.update", &stores, 1000).await;
    assert_eq!(killed.left.phase(), Phase::Complete);
    killed.resumes().await;
}
