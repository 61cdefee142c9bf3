//! Every answer of the state store and of the blob store is lost once, and every call fails for longer than the gateway
//! retries: nothing is lost or stored twice.

use std::future::Future;

use futures::{StreamExt, stream};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upload_gateway::config::ByteSize;
use upload_gateway_client::proto::v1::Upload;

use super::{
    client::{self, Client},
    common::{TestGateway, bytes, finish},
    for_each_store,
    stores::{Stores, assert_stored, assert_whole, begin, resume},
};

for_each_store!(
    a_stream_succeeds_despite_any_lost_answer,
    a_small_file_succeeds_despite_any_lost_answer,
    a_direct_upload_succeeds_despite_any_lost_answer,
    a_stream_that_ended_in_an_outage_of_any_call_can_resume,
);

/// The calls of one upload by two streams, and how often the longer of them makes each.
const STREAMED: &[(&str, u32)] = &[
    ("state.create", 1),
    ("state.summary", 1),
    ("state.take_over", 1),
    ("state.record_parts", 1),
    ("state.update", 2),
    ("store.begin", 1),
    ("store.put_part", 1),
    ("store.list_parts", 1),
    ("store.commit", 1),
    ("store.head", 1),
];

/// The calls of a small file.
const SMALL: &[(&str, u32)] = &[
    ("state.create", 1),
    ("state.record_parts", 1),
    ("state.update", 2),
    ("store.put_object", 1),
    ("store.head", 1),
];

/// The calls of a client that sends to the store itself.
const SIGNED: &[(&str, u32)] = &[
    ("state.create", 1),
    ("state.get", 1),
    ("state.claim", 1),
    ("state.update", 1),
    ("store.sign", 1),
    ("store.list_parts", 1),
    ("store.composition", 1),
    ("store.head", 1),
];

/// Runs `case` with each fault of the table, each on new stores, some of them concurrently.
async fn with_each<F: Future<Output = ()> + Send>(
    table: &[(&str, u32)],
    action: &str,
    stores: &Stores,
    case: impl Fn(String, Stores) -> F + Sync,
) {
    let faults = table.iter().flat_map(|&(call, times)| {
        (1..=times).map(move |nth| format!("{call}:nth={nth}:{action}"))
    });
    let cases = faults.map(|fault| async {
        let stores = stores.fresh().await;
        case(fault, stores).await;
    });
    stream::iter(cases)
        .buffer_unordered(4)
        .collect::<()>()
        .await;
}

/// A file that is sent in two streams: the first part by the first one, the rest by the second one.
struct TwoStreams<'a> {
    gateway: &'a TestGateway,
    data: &'a [u8],
    part: usize,
    upload_id: Option<String>,
}

impl Stores {
    fn two_streams<'a>(&self, gateway: &'a TestGateway, data: &'a [u8]) -> TwoStreams<'a> {
        TwoStreams {
            gateway,
            data,
            part: self.part,
            upload_id: None,
        }
    }
}

impl TwoStreams<'_> {
    /// Sends the file, or the rest of it, with `fault` in the header of each stream.
    async fn send(&mut self, fault: &str) -> Result<Upload, Status> {
        let upload_id = match &self.upload_id {
            Some(known) => known,
            None => {
                let (mut first, opened) = begin(&self.gateway.grpc, fault, self.data).await?;
                let known = self.upload_id.insert(opened.upload_id);
                first
                    .send_in_chunks(0, &self.data[..self.part], 1 << 20)
                    .await;
                while first.next().await?.committed_size == 0 {}
                known
            }
        };
        resume(&self.gateway.grpc, fault, upload_id, self.data).await
    }
}

async fn a_stream_succeeds_despite_any_lost_answer(stores: Stores) {
    with_each(STREAMED, "fail-after", &stores, async |fault, stores| {
        let gateway = stores.gateway().await;
        let data = bytes(stores.part + 1000);
        let sent = stores.two_streams(&gateway, &data).send(&fault).await;
        let upload = sent.unwrap_or_else(|status| panic!("{fault}: {status}"));
        if fault.starts_with("store.begin") {
            // The session whose name was lost; the sweeper would end it.
            stores.abort_open_sessions().await;
        }
        assert_whole(&stores, &gateway, &upload, &data).await;
    })
    .await;
}

async fn a_small_file_succeeds_despite_any_lost_answer(stores: Stores) {
    with_each(SMALL, "fail-after", &stores, async |fault, stores| {
        let gateway = stores.gateway().await;
        let data = bytes(1000);
        let (stream, _) = begin(&gateway.grpc, &fault, &data).await.unwrap();
        stream.send_in_chunks(0, &data, 400).await;
        stream.send(finish()).await;
        let sent = stream.end().await;
        let upload = sent.unwrap_or_else(|status| panic!("{fault}: {status}"));
        assert_whole(&stores, &gateway, &upload, &data).await;
    })
    .await;
}

async fn a_direct_upload_succeeds_despite_any_lost_answer(stores: Stores) {
    with_each(SIGNED, "fail-after", &stores, async |fault, mut stores| {
        stores.config.storage[0].options.part_size = ByteSize(client::PART as u64);
        let gateway = stores.gateway().await;
        let mut client = Client::asking_for(&gateway, &fault).await;
        let data = bytes(client::PART + 1000);
        let described = client::file("film.mp4", &data);
        let step = client.create(described.clone()).await.unwrap();
        let id = step.upload_id.clone();
        client.begin(&step).await;
        client.put_part(&id, 1, &data).await;
        let found = client.create(described).await.unwrap();
        assert_eq!((found.upload_id, found.part_list), (id.clone(), vec![1]));
        client.put_part(&id, 2, &data).await;
        let upload = client.finish(&id).await;
        assert_stored(&stores, &gateway, &upload, &data).await;
    })
    .await;
}

async fn a_stream_that_ended_in_an_outage_of_any_call_can_resume(mut stores: Stores) {
    stores.config.limits.store_retry_timeout_seconds = 1;
    stores.config.limits.commit_lease_seconds = 2;
    let always = "times=1000:fail-before";
    with_each(STREAMED, always, &stores, async |fault, stores| {
        let gateway = stores.gateway().await;
        let data = bytes(stores.part + 1000);
        let mut streams = stores.two_streams(&gateway, &data);
        let status = streams.send(&fault).await.expect_err(&fault);
        assert_eq!(status.code(), Code::Unavailable, "{fault}: {status}");
        assert!(status.get_details_retry_info().is_some(), "{fault}");
        let upload = streams.send("").await;
        let upload = upload.unwrap_or_else(|status| panic!("{fault}: {status}"));
        if fault.starts_with("state.update") {
            // The session that was not recorded; the sweeper would end it.
            stores.abort_open_sessions().await;
        }
        assert_whole(&stores, &gateway, &upload, &data).await;
    })
    .await;
}
