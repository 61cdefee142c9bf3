//! The gateway's process ends between two steps of a deletion, and another gateway finishes it.

use std::os::unix::process::ExitStatusExt;

use tonic::{Code, Request};
use upload_gateway_client::proto::v1::{
    DeleteUploadRequest, Phase, Upload, upload_service_client::UploadServiceClient,
};

use super::{
    common::{TestGateway, bytes, chunk, finish, open, until},
    for_each_store,
    stores::Stores,
};

for_each_store!(a_deletion_that_was_cut_off_anywhere_is_finished);

/// SIGABRT, with which a fault ends the process.
const ABORTED: Option<i32> = Some(6);

/// Where the process ends. Before the first one nothing has happened.
const STEPS: [&str; 6] = [
    "exit-before=state.update",
    "exit-after=state.update",
    "exit-before=store.delete",
    "exit-after=store.delete",
    "nth=2:exit-before=state.update",
    "nth=2:exit-after=state.update",
];

async fn complete(gateway: &TestGateway) -> Upload {
    let data = bytes(1000);
    let messages = vec![open("a.bin", Some(data.len())), chunk(0, &data), finish()];
    gateway.upload(messages).await.unwrap()
}

/// Asks a process that ends at this step to delete the file.
async fn cut_off(stores: &Stores, step: &str, upload: &Upload) {
    let mut process = stores.process();
    let grpc = format!("http://127.0.0.1:{}", process.port());
    let mut client = UploadServiceClient::connect(grpc).await.unwrap();
    let mut request = Request::new(DeleteUploadRequest {
        upload_id: upload.upload_id.clone(),
    });
    let fault = format!("process:{step}").parse().unwrap();
    let metadata = request.metadata_mut();
    metadata.insert("x-upload-gateway-fault", fault);
    client.delete_upload(request).await.unwrap_err();
    assert_eq!(process.ended().signal(), ABORTED, "{}", process.log());
}

async fn a_deletion_that_was_cut_off_anywhere_is_finished(mut stores: Stores) {
    stores.config.sweeper.interval_seconds = 1;
    let survivor = stores.gateway().await;
    let (store, other) = (stores.store().await, complete(&survivor).await);
    let key = |upload: &Upload| upload.object.as_ref().unwrap().key.clone();
    for step in STEPS {
        let upload = complete(&survivor).await;
        cut_off(&stores, step, &upload).await;
        let found = survivor.get(&upload.upload_id).await;
        if step == STEPS[0] {
            assert_eq!(found.unwrap().phase(), Phase::Complete, "{step}");
            assert_eq!(stores.read(&upload).await, bytes(1000));
            continue;
        }
        assert_eq!(found.unwrap_err().code(), Code::NotFound, "{step}");
        let key = key(&upload);
        // A HEAD beside the deletion may get a 500 from versitygw.
        let is_gone = async || matches!(store.head(&key).await, Ok(None));
        until(step, is_gone).await;
    }
    assert_eq!(stores.read(&other).await, bytes(1000), "another file");
}
