//! Successful streams over the embedded stores: every way to cut a file into chunks, every relevant size.

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use upload_gateway_client::{
    Crc64Nvme,
    proto::v1::{
        FileDigest, FileMetadata, Finish, GetLimitsRequest, ListPartsRequest, Phase, UploadRequest,
        upload_request::Message,
    },
};

use crate::common::{TestGateway, bytes, chunk, finish, message, open, open_file, open_known};

pub(super) const PART: usize = 5 * 1024 * 1024;

fn md5(data: &[u8]) -> String {
    STANDARD.encode(Md5::digest(data))
}

pub(super) fn whole(name: &str, data: &[u8], chunk_size: usize) -> Vec<UploadRequest> {
    let mut messages = vec![open(name, Some(data.len()))];
    messages.extend(
        data.chunks(chunk_size)
            .enumerate()
            .map(|(index, piece)| chunk(index * chunk_size, piece)),
    );
    messages.push(finish());
    messages
}

#[tokio::test]
async fn files_of_every_relevant_size_are_stored_unchanged() {
    let gateway = TestGateway::start().await;
    let all = bytes(2 * PART + 17);
    for size in [
        0,
        1,
        4_999_999,
        5_000_000,
        5_000_001,
        PART - 1,
        PART,
        PART + 1,
        2 * PART,
        all.len(),
    ] {
        let data = &all[..size];
        let upload = gateway.upload(whole("a.bin", data, 1 << 20)).await.unwrap();
        assert_eq!(upload.phase(), Phase::Complete, "{size}");
        let object = upload.object.clone().unwrap();
        assert_eq!(object.size, i64::try_from(size).unwrap());
        assert_eq!(object.md5, md5(data), "{size}");
        assert_eq!(gateway.read(&upload).await, data, "{size}");
        // A small file is stored with one put: S3 then returns an ETag without a part count.
        assert_eq!(
            object.etag.contains('-'),
            size > 5_000_000,
            "{size}: {}",
            object.etag
        );
    }
}

#[tokio::test]
async fn files_of_unknown_size_are_stored_unchanged() {
    let gateway = TestGateway::start().await;
    let all = bytes(2 * PART + 17);
    for size in [
        0,
        1,
        5_000_000,
        5_000_001,
        PART,
        PART + 1,
        2 * PART,
        all.len(),
    ] {
        let data = &all[..size];
        let mut messages = vec![open("a.bin", None)];
        messages.extend(
            data.chunks(1 << 20)
                .enumerate()
                .map(|(index, piece)| chunk(index << 20, piece)),
        );
        messages.push(finish());
        let upload = gateway.upload(messages).await.unwrap();
        assert_eq!(upload.object.as_ref().unwrap().md5, md5(data), "{size}");
        assert_eq!(
            upload.file.as_ref().unwrap().file_size,
            Some(i64::try_from(size).unwrap())
        );
        assert_eq!(gateway.read(&upload).await, data, "{size}");
    }
}

#[tokio::test]
async fn parts_do_not_depend_on_the_chunks() {
    let gateway = TestGateway::start().await;
    let data = bytes(2 * PART);
    for size in [1009, 65_536, 2 << 20, 3_900_000] {
        let mut stream = gateway.converse().await;
        stream.send(open("a.bin", None)).await;
        let upload_id = stream.next().await.unwrap().upload_id;
        // Empty chunks are keep-alives; their offset does not matter.
        stream.send(chunk(0, &[])).await;
        stream.send_in_chunks(0, &data, size).await;
        stream.send(chunk(7, &[])).await;
        stream.committed(2 * PART).await;
        assert_eq!(gateway.get(&upload_id).await.unwrap().part_count, 2);
        let request = ListPartsRequest {
            upload_id,
            ..ListPartsRequest::default()
        };
        let listed = gateway.client().await.list_parts(request).await.unwrap();
        let listed = listed.into_inner().parts;
        let parts: Vec<_> = listed
            .iter()
            .map(|part| (part.part, part.offset, part.size))
            .collect();
        let part = i64::try_from(PART).unwrap();
        assert_eq!(parts, [(1, 0, part), (2, part, part)]);
        for (part, sent) in listed.iter().zip(data.chunks(PART)) {
            assert_eq!(part.crc64nvme, Some(Crc64Nvme::of(sent).0));
        }
        stream.send(finish()).await;
        let upload = stream.end().await.unwrap();
        // Its parts are one object.
        assert_eq!(upload.part_count, 0);
        assert_eq!(gateway.read(&upload).await, data);
    }
}

#[tokio::test]
async fn parts_are_listed_in_pages() {
    let gateway = TestGateway::start().await;
    let mut stream = gateway.converse().await;
    stream.send(open("a.bin", None)).await;
    let upload_id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &bytes(5 * PART), 1 << 20).await;
    stream.committed(5 * PART).await;
    let mut client = gateway.client().await;
    for (page_size, pages) in [(1, 5), (2, 3), (5, 1), (0, 1), (i32::MAX, 1)] {
        let mut request = ListPartsRequest {
            upload_id: upload_id.clone(),
            page_size,
            ..ListPartsRequest::default()
        };
        let (mut numbers, mut count) = (Vec::new(), 0);
        loop {
            let page = client
                .list_parts(request.clone())
                .await
                .unwrap()
                .into_inner();
            numbers.extend(page.parts.iter().map(|part| part.part));
            count += 1;
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(
            (numbers, count),
            (vec![1, 2, 3, 4, 5], pages),
            "in pages of {page_size}"
        );
    }
}

#[tokio::test]
async fn a_file_can_be_sent_byte_by_byte() {
    let gateway = TestGateway::start().await;
    let data = bytes(3000);
    let upload = gateway.upload(whole("a.bin", &data, 1)).await.unwrap();
    assert_eq!(gateway.read(&upload).await, data);
}

#[tokio::test]
async fn an_interrupted_stream_resumes_after_its_complete_parts() {
    let gateway = TestGateway::start().await;
    let data = bytes(3 * PART + 1000);
    let mut first = gateway.converse().await;
    first.send(open("a.bin", Some(data.len()))).await;
    let upload_id = first.next().await.unwrap().upload_id;
    // Cut in the middle of the third part.
    first
        .send_in_chunks(0, &data[..2 * PART + PART / 2], 1 << 20)
        .await;
    first.committed(2 * PART).await;
    drop(first);

    let mut second = gateway.converse().await;
    second.send(open_known(&upload_id)).await;
    let opened = second.next().await.unwrap();
    assert_eq!(opened.committed_size, i64::try_from(2 * PART).unwrap());
    second
        .send_in_chunks(2 * PART, &data[2 * PART..], 1 << 20)
        .await;
    second.send(finish()).await;
    let upload = second.end().await.unwrap();
    // The digest continued, although no single stream carried the whole file.
    assert_eq!(upload.object.as_ref().unwrap().md5, md5(&data));
    assert_eq!(gateway.read(&upload).await, data);
}

#[tokio::test]
async fn another_process_on_the_same_stores_resumes_the_upload() {
    let directory = tempfile::TempDir::new().unwrap();
    let config = upload_gateway::config::Config {
        data_dir: directory.path().join("data"),
        ..Default::default()
    };
    let data = bytes(2 * PART + 1000);
    let gateway = TestGateway::over(config).await;
    let mut first = gateway.converse().await;
    first.send(open("a.bin", None)).await;
    let upload_id = first.next().await.unwrap().upload_id;
    first.send_in_chunks(0, &data[..PART + 100], 1 << 20).await;
    first.committed(PART).await;
    drop(first);
    let config = gateway.stop().await;

    let gateway = TestGateway::over(config).await;
    let mut second = gateway.converse().await;
    second.send(open_known(&upload_id)).await;
    let committed = usize::try_from(second.next().await.unwrap().committed_size).unwrap();
    assert_eq!(committed, PART);
    second
        .send_in_chunks(committed, &data[committed..], 1 << 20)
        .await;
    second.send(finish()).await;
    let upload = second.end().await.unwrap();
    assert_eq!(upload.object.as_ref().unwrap().md5, md5(&data));
    assert_eq!(gateway.read(&upload).await, data);
}

#[tokio::test]
async fn bytes_that_are_sent_again_are_compared_and_skipped() {
    let gateway = TestGateway::start().await;
    let data = bytes(2 * PART + 1000);
    let mut first = gateway.converse().await;
    first.send(open("a.bin", Some(data.len()))).await;
    let upload_id = first.next().await.unwrap().upload_id;
    first.send_in_chunks(0, &data[..2 * PART], 1 << 20).await;
    first.committed(2 * PART).await;
    drop(first);
    for begin in [0, PART] {
        let second = gateway.converse().await;
        second.send(open_known(&upload_id)).await;
        second.send_in_chunks(begin, &data[begin..], 1 << 20).await;
        if begin == PART {
            second.send(finish()).await;
            let upload = second.end().await.unwrap();
            assert_eq!(gateway.read(&upload).await, data);
        }
    }
}

#[tokio::test]
async fn the_same_create_finds_the_same_upload_until_it_is_finished() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART + 1000);
    let create = || {
        open_file(FileMetadata {
            file_name: "a.bin".into(),
            file_size: Some(i64::try_from(data.len()).unwrap()),
            file_id: md5(&data),
            ..FileMetadata::default()
        })
    };
    let mut first = gateway.converse().await;
    first.send(create()).await;
    let upload_id = first.next().await.unwrap().upload_id;
    first.send(chunk(0, &data[..PART / 2])).await;
    first.send(chunk(PART / 2, &data[PART / 2..PART])).await;
    first.committed(PART).await;
    drop(first);

    let mut second = gateway.converse().await;
    second.send(create()).await;
    let found = second.next().await.unwrap();
    assert_eq!(
        (found.upload_id.clone(), found.committed_size),
        (upload_id.clone(), i64::try_from(PART).unwrap())
    );
    second.send(chunk(PART, &data[PART..])).await;
    second.send(finish()).await;
    second.end().await.unwrap();

    let mut third = gateway.converse().await;
    third.send(create()).await;
    assert_ne!(third.next().await.unwrap().upload_id, upload_id);
}

#[tokio::test]
async fn restart_aborts_the_upload_that_it_finds() {
    let gateway = TestGateway::start().await;
    let file = FileMetadata {
        file_name: "a.bin".into(),
        file_size: Some(10),
        file_id: md5(b"0123456789"),
        ..FileMetadata::default()
    };
    let mut first = gateway.converse().await;
    first.send(open_file(file.clone())).await;
    let upload_id = first.next().await.unwrap().upload_id;
    let mut restart = open_file(file);
    if let Some(Message::Open(open)) = &mut restart.message {
        open.restart = true;
    }
    let mut second = gateway.converse().await;
    second.send(restart).await;
    assert_ne!(second.next().await.unwrap().upload_id, upload_id);
    assert_eq!(
        gateway.get(&upload_id).await.unwrap().phase(),
        Phase::Aborted
    );
}

#[tokio::test]
async fn opening_a_complete_upload_returns_its_record() {
    let gateway = TestGateway::start().await;
    let upload = gateway.upload(whole("a.bin", b"abc", 3)).await.unwrap();
    let again = gateway
        .upload(vec![
            open_known(&upload.upload_id),
            chunk(0, b"abc"),
            finish(),
        ])
        .await
        .unwrap();
    assert_eq!(again, upload);
}

#[tokio::test]
async fn a_file_without_digest_has_no_md5() {
    let gateway = TestGateway::start().await;
    let data = bytes(PART + 5);
    let create = open_file(FileMetadata {
        file_name: "a.bin".into(),
        file_digest: FileDigest::None.into(),
        ..FileMetadata::default()
    });
    let upload = gateway
        .upload(vec![
            create,
            chunk(0, &data[..2 << 20]),
            chunk(2 << 20, &data[2 << 20..4 << 20]),
            chunk(4 << 20, &data[4 << 20..]),
            finish(),
        ])
        .await
        .unwrap();
    assert_eq!(upload.object.as_ref().unwrap().md5, "");
    assert_eq!(gateway.read(&upload).await, data);
}

#[tokio::test]
async fn finish_can_declare_size_and_digest() {
    let gateway = TestGateway::start().await;
    let finish = message(Message::Finish(Finish {
        file_size: Some(3),
        file_id: Some(md5(b"abc")),
        crc64nvme: None,
    }));
    let upload = gateway
        .upload(vec![open("a.bin", None), chunk(0, b"abc"), finish])
        .await
        .unwrap();
    assert_eq!(upload.object.unwrap().md5, md5(b"abc"));
}

#[tokio::test]
async fn limits_are_those_of_the_gateway_and_the_store() {
    let gateway = TestGateway::start().await;
    let limits = gateway
        .client()
        .await
        .get_limits(GetLimitsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(limits.part_size, i64::try_from(PART).unwrap());
    assert_eq!(limits.max_single_put_size, 5_000_000);
    // The largest part is a quarter of the 256 MiB budget; S3 accepts 10,000 parts.
    assert_eq!(limits.max_file_size, 10_000 * (64 << 20));
    assert_eq!(
        limits.max_unknown_file_size,
        (1_000 * 5 + 2_000 * 16 + 7_000 * 64) << 20
    );
}

#[tokio::test]
async fn a_sender_that_reads_no_progress_can_finish() {
    let gateway = TestGateway::start().await;
    let data = bytes(12 * PART);
    let stream = gateway.converse().await;
    stream.send(open("a.bin", Some(data.len()))).await;
    stream.send_in_chunks(0, &data, 1 << 20).await;
    stream.send(finish()).await;
    let upload = stream.end().await.unwrap();
    assert_eq!(upload.object.unwrap().md5, md5(&data));
}
