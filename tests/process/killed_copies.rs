//! Copies that continue after the gateway was killed.

use std::io::Cursor;

use futures::TryStreamExt;
use tonic::{Request, Status};
use upload_gateway_client::{
    Client, Source,
    proto::v1::{
        CopyUploadRequest, MoveUploadRequest, Phase, Upload,
        upload_service_client::UploadServiceClient,
    },
};
use upload_gateway_core::upload::{Crc64Nvme, Md5};

use crate::common::{self, bytes};

/// Copied by the store with one request.
const SMALL: usize = 1000;

/// Copied by the store in 14 parts.
const LARGE: usize = 66 << 20;

/// The id of the uploaded file.
async fn upload(server: &str, size: usize) -> String {
    let source = Source::seekable(Cursor::new(bytes(size)));
    let client = Client::connect(server).unwrap();
    let upload = client.upload("a.bin", source).size(size as u64);
    upload.await.unwrap().upload.upload_id
}

/// The last record of the copy that the gateway has sent, and how the call ended.
async fn copy(
    server: &str,
    (upload_id, moves): (&str, bool),
    fault: Option<&str>,
) -> (Option<Upload>, Result<(), Status>) {
    let client = UploadServiceClient::connect(server.to_owned()).await;
    let (mut client, upload_id) = (client.unwrap(), upload_id.to_owned());
    let fault = fault.map(|fault| fault.parse().unwrap());
    let storage_id = String::new();
    let messages = if moves {
        let mut request = Request::new(MoveUploadRequest {
            upload_id,
            storage_id,
        });
        fault.map(|fault| {
            request
                .metadata_mut()
                .insert("x-upload-gateway-fault", fault)
        });
        client.move_upload(request).await
    } else {
        let mut request = Request::new(CopyUploadRequest {
            upload_id,
            storage_id,
        });
        fault.map(|fault| {
            request
                .metadata_mut()
                .insert("x-upload-gateway-fault", fault)
        });
        client.copy_upload(request).await
    };
    let mut last = None;
    let mut messages = match messages {
        Ok(messages) => messages.into_inner(),
        Err(status) => return (None, Err(status)),
    };
    loop {
        match messages.try_next().await {
            Ok(Some(progress)) => last = progress.upload.or(last),
            Ok(None) => return (last, Ok(())),
            Err(status) => return (last, Err(status)),
        }
    }
}

#[tokio::test]
async fn a_copy_continues_after_the_gateway_was_killed_between_its_steps() {
    let config = "[faults]\nenabled = true\nallow_in_this_environment = true\n";
    let mut gateway = common::gateway_process(config);
    let server = format!("http://{}", gateway.address());
    for (size, moves, fault) in [
        (SMALL, false, "process:exit-before=store.put_object"),
        (SMALL, true, "process:exit-after=store.put_object"),
        (SMALL, false, "process:exit-before=store.head"),
        (LARGE, false, "process:exit-after=store.begin"),
        (LARGE, true, "process:exit-after=store.put_part"),
        (LARGE, false, "process:nth=9:exit-before=store.put_part"),
        (LARGE, true, "process:nth=14:exit-after=state.record_parts"),
    ] {
        let source = upload(&server, size).await;
        let (begun, ended) = copy(&server, (&source, moves), Some(fault)).await;
        assert!(ended.is_err(), "{fault}");
        gateway.wait();
        gateway.restart();
        let (copied, ended) = copy(&server, (&source, moves), None).await;
        ended.unwrap();
        let copied = copied.unwrap();
        assert_eq!(copied.phase(), Phase::Complete, "{fault}");
        let begun = begun.unwrap_or_default().upload_id;
        assert!(begun.is_empty() || begun == copied.upload_id, "{fault}");
        let source = Client::connect(&server).unwrap().get(&source).await;
        assert_eq!(source.is_err(), moves, "{fault}: {source:?}");
        let object = copied.object.unwrap();
        match size {
            SMALL => assert_eq!(object.md5, Md5::of(&bytes(size)).to_string(), "{fault}"),
            _ => {
                let crc64 = Crc64Nvme::of(&bytes(size)).0;
                assert_eq!(object.crc64nvme, Some(crc64), "{fault}");
            }
        }
    }
}
