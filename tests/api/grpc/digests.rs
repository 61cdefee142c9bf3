//! Which digest of a whole file is computed, and what the last message of a stream can have checked.

use tonic::Code;
use upload_gateway_client::{
    Crc64Nvme,
    proto::v1::{
        FileDigest, FileMetadata, Finish, Phase, Upload, UploadRequest, upload_request::Message,
    },
};
use upload_gateway_core::upload::Md5;

use crate::common::{TestGateway, bytes, chunk, finish, message, open_file, open_known, reason};

/// The size of a part in bytes.
const PART: usize = 5 << 20;

/// The size of a message in bytes.
const MESSAGE: usize = 1 << 20;

fn file(size: Option<usize>, file_digest: FileDigest) -> UploadRequest {
    open_file(FileMetadata {
        file_name: "a.bin".into(),
        file_size: size.map(|size| i64::try_from(size).unwrap()),
        file_digest: file_digest.into(),
        ..FileMetadata::default()
    })
}

fn crc64(data: &[u8]) -> u64 {
    Crc64Nvme::of(data).0
}

fn finish_with(file_id: Option<&[u8]>, crc64nvme: Option<u64>) -> UploadRequest {
    message(Message::Finish(Finish {
        file_size: None,
        file_id: file_id.map(|data| Md5::of(data).to_string()),
        crc64nvme,
    }))
}

fn messages(open: UploadRequest, data: &[u8], finish: UploadRequest) -> Vec<UploadRequest> {
    let pieces = data.chunks(MESSAGE).enumerate();
    let chunks = pieces.map(|(index, piece)| chunk(index * MESSAGE, piece));
    [open].into_iter().chain(chunks).chain([finish]).collect()
}

/// The digest that runs, and those of the object.
fn digests(upload: &Upload) -> (FileDigest, bool, Option<u64>) {
    let object = upload.object.clone().unwrap_or_default();
    let file = upload.file.clone().unwrap_or_default();
    (file.file_digest(), !object.md5.is_empty(), object.crc64nvme)
}

#[tokio::test]
async fn the_digest_follows_from_the_file_unless_it_is_chosen() {
    use FileDigest::{Auto, Crc64nvme, Md5, None as Nothing, Unspecified};
    let gateway = TestGateway::start().await;
    let (small, large) = (bytes(1000), bytes(PART + 1000));
    for (size, chosen, data, runs, has_md5, has_crc64) in [
        (Some(1000), Unspecified, &small, Md5, true, true),
        (
            Some(PART + 1000),
            Unspecified,
            &large,
            Crc64nvme,
            false,
            true,
        ),
        (Some(PART + 1000), Auto, &large, Crc64nvme, false, true),
        (None, Auto, &large, Crc64nvme, false, true),
        // It is put whole, so both are known.
        (None, Auto, &small, Crc64nvme, true, true),
        // The store has compared the parts by their CRC-64s.
        (Some(PART + 1000), Md5, &large, Md5, true, true),
        (None, Nothing, &large, Nothing, false, true),
        (Some(1000), Nothing, &small, Nothing, false, false),
    ] {
        let mut stream = gateway.converse().await;
        stream.send(file(size, chosen)).await;
        let opened = stream.next().await.unwrap().upload.unwrap();
        let case = format!("{size:?}, {chosen:?}");
        assert_eq!(digests(&opened).0, runs, "{case}");
        stream.send_in_chunks(0, data, MESSAGE).await;
        stream.send(finish()).await;
        let upload = stream.end().await.unwrap();
        let expected = has_crc64.then(|| crc64(data));
        assert_eq!(digests(&upload), (runs, has_md5, expected), "{case}");
        assert_eq!(
            gateway.get(&upload.upload_id).await.unwrap().object,
            upload.object
        );
    }
}

#[tokio::test]
async fn a_crc64_is_checked_and_one_of_other_bytes_aborts_the_upload() {
    let gateway = TestGateway::start().await;
    for size in [0, 1000, PART + 1000] {
        let data = bytes(size);
        let right = finish_with(None, Some(crc64(&data)));
        let open = || file(Some(size), FileDigest::Auto);
        let upload = gateway.upload(messages(open(), &data, right)).await;
        // The MD5 of a small file is computed as well; of a large one only the CRC-64 is.
        assert_eq!(upload.unwrap().phase(), Phase::Complete, "{size}");
        let wrong = finish_with(None, Some(crc64(&data) ^ 1));
        let refused = gateway.upload(messages(open(), &data, wrong)).await;
        let refused = refused.unwrap_err();
        assert_eq!(reason(&refused), (Code::DataLoss, "DIGEST_MISMATCH".into()));
    }
}

#[tokio::test]
async fn an_unknown_digest_loses_nothing() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART + 1000);
    for (chosen, asked, wanted) in [
        (
            FileDigest::Crc64nvme,
            finish_with(Some(&data), None),
            "file_digest = MD5",
        ),
        (
            FileDigest::Md5,
            finish_with(None, Some(crc64(&data))),
            "file_digest = CRC64NVME",
        ),
        (
            FileDigest::None,
            finish_with(None, Some(crc64(&data))),
            "file_digest = CRC64NVME",
        ),
    ] {
        let mut stream = gateway.converse().await;
        stream.send(file(Some(data.len()), chosen)).await;
        let opened = stream.next().await.unwrap();
        stream.send_in_chunks(0, &data, MESSAGE).await;
        stream.send(asked).await;
        let refused = stream.end().await.unwrap_err();
        assert_eq!(
            reason(&refused),
            (Code::FailedPrecondition, "DIGEST_UNKNOWN".into())
        );
        assert!(refused.message().contains(wanted), "{}", refused.message());
        let left = gateway.get(&opened.upload_id).await.unwrap();
        assert_eq!(left.phase(), Phase::Open);
        // The same without it, or with the other one.
        let mut stream = gateway.converse().await;
        stream.send(open_known(&opened.upload_id)).await;
        let committed = usize::try_from(stream.next().await.unwrap().committed_size).unwrap();
        stream
            .send_in_chunks(committed, &data[committed..], MESSAGE)
            .await;
        stream
            .send(match chosen {
                FileDigest::Crc64nvme => finish_with(None, Some(crc64(&data))),
                FileDigest::Md5 => finish_with(Some(&data), None),
                _ => finish(),
            })
            .await;
        assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
    }
}

#[tokio::test]
async fn the_crc64_continues_in_another_stream() {
    let gateway = TestGateway::start().await;
    let data = bytes(3 * PART + 1000);
    let mut stream = gateway.converse().await;
    stream.send(file(None, FileDigest::Auto)).await;
    let opened = stream.next().await.unwrap();
    stream
        .send_in_chunks(0, &data[..2 * PART + 7], MESSAGE)
        .await;
    stream.committed(2 * PART).await;
    drop(stream);
    let mut stream = gateway.converse().await;
    stream.send(open_known(&opened.upload_id)).await;
    let committed = usize::try_from(stream.next().await.unwrap().committed_size).unwrap();
    assert_eq!(committed, 2 * PART);
    stream
        .send_in_chunks(committed, &data[committed..], MESSAGE)
        .await;
    stream.send(finish_with(None, Some(crc64(&data)))).await;
    let upload = stream.end().await.unwrap();
    assert_eq!(upload.object.unwrap().crc64nvme, Some(crc64(&data)));
}

#[tokio::test]
async fn a_promised_md5_needs_a_digest_that_computes_it() {
    let gateway = TestGateway::start().await;
    let data = bytes(10);
    for chosen in [FileDigest::Crc64nvme, FileDigest::None] {
        let open = open_file(FileMetadata {
            file_name: "a.bin".into(),
            file_id: Md5::of(&data).to_string(),
            file_digest: chosen.into(),
            ..FileMetadata::default()
        });
        let refused = gateway.upload(messages(open, &data, finish())).await;
        assert_eq!(reason(&refused.unwrap_err()).0, Code::InvalidArgument);
    }
    let unknown = open_file(FileMetadata {
        file_name: "a.bin".into(),
        file_digest: 99,
        ..FileMetadata::default()
    });
    let refused = gateway.upload(messages(unknown, &data, finish())).await;
    assert_eq!(reason(&refused.unwrap_err()).0, Code::InvalidArgument);
}
