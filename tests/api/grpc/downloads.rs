//! Files that are read over gRPC.

use tonic::{Code, Status, Streaming};
use upload_gateway_client::proto::v1::{
    Chunk, DownloadRequest, DownloadResponse, Upload, download_response::Message,
};

use super::upload::{PART, whole};
use crate::common::{TestGateway, bytes, open, reason};

/// The messages of a download.
async fn begin(
    gateway: &TestGateway,
    upload_id: &str,
    (offset, length): (i64, i64),
) -> Result<Streaming<DownloadResponse>, Status> {
    let request = DownloadRequest {
        upload_id: upload_id.into(),
        offset,
        length,
    };
    let response = gateway.client().await.download(request).await?;
    Ok(response.into_inner())
}

/// The record and the bytes of a download, whose offsets and digests were checked.
async fn read(
    gateway: &TestGateway,
    upload_id: &str,
    (offset, length): (i64, i64),
) -> Result<(Upload, Vec<u8>), Status> {
    let mut messages = begin(gateway, upload_id, (offset, length)).await?;
    let first = messages.message().await?.unwrap();
    let Some(Message::Upload(upload)) = first.message else {
        panic!("the first message is {first:?}");
    };
    let mut read = Vec::new();
    while let Some(next) = messages.message().await? {
        let Some(Message::Chunk(chunk)) = next.message else {
            panic!("a message is {next:?}");
        };
        let Chunk {
            offset: at,
            data,
            crc32c,
        } = chunk;
        assert_eq!(at, offset + i64::try_from(read.len()).unwrap());
        let found = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &data);
        assert_eq!(crc32c.map(u64::from), Some(found));
        assert!((1..=256 * 1024).contains(&data.len()));
        read.extend(data);
    }
    Ok((upload, read))
}

#[tokio::test]
async fn a_file_is_read_whole_and_in_parts() {
    let gateway = TestGateway::start().await;
    for size in [0, 1, PART + 70_001] {
        let data = bytes(size);
        let uploaded = gateway.upload(whole("a.bin", &data, 1 << 20)).await;
        let uploaded = uploaded.unwrap();
        let end = i64::try_from(size).unwrap();
        for (offset, length) in [
            (0, 0),
            (0, 1),
            (end / 2, 0),
            (end / 2, 9),
            (end, 0),
            (0, i64::MAX),
        ] {
            let range = read(&gateway, &uploaded.upload_id, (offset, length)).await;
            let (upload, read) = range.unwrap();
            assert_eq!(upload.object, uploaded.object);
            let from = usize::try_from(offset).unwrap();
            let to = match usize::try_from(length).unwrap() {
                0 => size,
                length => from.saturating_add(length).min(size),
            };
            assert!(read == data[from..to], "{offset} + {length} of {size}");
        }
    }
}

#[tokio::test]
async fn ranges_that_no_file_has_are_refused() {
    let gateway = TestGateway::start().await;
    let uploaded = gateway.upload(whole("a.bin", b"abc", 3)).await.unwrap();
    let refused = async |range| {
        let read = read(&gateway, &uploaded.upload_id, range).await;
        read.unwrap_err()
    };
    let beyond = refused((4, 0)).await;
    let expected = (Code::OutOfRange, "WRONG_OFFSET".to_owned());
    assert_eq!(reason(&beyond), expected);
    assert!(beyond.message().contains("ends at 3"), "{beyond:?}");
    for range in [(-1, 0), (0, -1), (i64::MIN, i64::MIN)] {
        let refused = refused(range).await;
        let expected = (Code::InvalidArgument, "INVALID_FIELD".to_owned());
        assert_eq!(reason(&refused), expected, "{range:?}");
    }
    let unknown = read(&gateway, "uploads-0-0", (0, 0)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn only_a_complete_upload_is_read() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    let refused = read(&gateway, &upload_id, (0, 0)).await.unwrap_err();
    let expected = (Code::FailedPrecondition, "WRONG_PHASE".to_owned());
    assert_eq!(reason(&refused), expected);
}

#[tokio::test]
async fn an_object_that_was_replaced_is_not_read() {
    let gateway = TestGateway::start().await;
    let uploaded = gateway.upload(whole("a.bin", b"abc", 3)).await.unwrap();
    let object = uploaded.object.as_ref().unwrap();
    let put = |body: &'static [u8]| {
        let put = gateway.s3().put_object().bucket(&object.bucket);
        put.key(&object.key).body(body.to_vec().into()).send()
    };
    put(b"other").await.unwrap();
    let refused = read(&gateway, &uploaded.upload_id, (0, 0)).await;
    let refused = refused.unwrap_err();
    let expected = (Code::DataLoss, "OBJECT_CHANGED".to_owned());
    assert_eq!(reason(&refused), expected);
    let marked = gateway.get(&uploaded.upload_id).await.unwrap();
    assert!(marked.object_changed_at.is_some());
}
