//! CRC64NVME of objects and parts.

use std::fs;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sdk_s3::operation::create_multipart_upload::CreateMultipartUploadOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_parts::ListPartsOutput;
use aws_sdk_s3::operation::upload_part::UploadPartOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use upload_gateway_core::upload::Crc64Nvme;

use super::server::*;

const HELLO: &[u8] = b"Hello World";
/// Of [`HELLO`]: what AWS computes.
const RIGHT: &str = "ZZYyy35L4mE=";
const WRONG: &str = "AAAAAAAAAAA=";

impl TestServer {
    async fn create_with(
        &self,
        algorithm: Option<ChecksumAlgorithm>,
        checksum_type: Option<ChecksumType>,
    ) -> Result<CreateMultipartUploadOutput, String> {
        let create = self.client.create_multipart_upload();
        let create = create.bucket(BUCKET).key(KEY);
        let create = create
            .set_checksum_algorithm(algorithm)
            .set_checksum_type(checksum_type);
        code(create.send().await)
    }

    /// An upload with the checksum.
    async fn begin(&self) -> String {
        let algorithm = Some(ChecksumAlgorithm::Crc64Nvme);
        let created = self.create_with(algorithm, None).await.unwrap();
        created.upload_id.unwrap()
    }

    async fn part(
        &self,
        upload_id: &str,
        number: i32,
        body: &Bytes,
        crc: Option<&str>,
    ) -> Result<UploadPartOutput, String> {
        let part = self.client.upload_part().bucket(BUCKET).key(KEY);
        let part = part.upload_id(upload_id).part_number(number);
        let part = part.set_checksum_crc64_nvme(crc.map(str::to_owned));
        code(part.body(body.clone().into()).send().await)
    }

    async fn list(&self, upload_id: &str) -> ListPartsOutput {
        let list = self.client.list_parts().bucket(BUCKET).key(KEY);
        list.upload_id(upload_id).send().await.unwrap()
    }

    /// Completes with the CRC of the whole, and returns that of the answer and its type.
    async fn complete_with(
        &self,
        upload_id: &str,
        parts: Vec<CompletedPart>,
        whole: Option<&str>,
    ) -> Result<(Option<String>, Option<ChecksumType>), String> {
        let list = CompletedMultipartUpload::builder();
        let list = list.set_parts(Some(parts)).build();
        let complete = self.client.complete_multipart_upload();
        let complete = complete.bucket(BUCKET).key(KEY).upload_id(upload_id);
        let complete = complete.set_checksum_crc64_nvme(whole.map(str::to_owned));
        let answer = code(complete.multipart_upload(list).send().await)?;
        Ok((answer.checksum_crc64_nvme, answer.checksum_type))
    }

    /// Describes an object, with its checksum.
    async fn head(&self, key: &str) -> Result<HeadObjectOutput, String> {
        let head = self.client.head_object().bucket(BUCKET).key(key);
        code(head.checksum_mode(ChecksumMode::Enabled).send().await)
    }
}

fn crc(bytes: &[u8]) -> String {
    Crc64Nvme::of(bytes).to_string()
}

fn with_crc(number: i32, stored: &UploadPartOutput, crc: Option<&str>) -> CompletedPart {
    let part = CompletedPart::builder().part_number(number);
    let part = part.set_checksum_crc64_nvme(crc.map(str::to_owned));
    part.e_tag(stored.e_tag().unwrap()).build()
}

/// The CRC as answers about whole objects name it.
fn full(crc: &str) -> (Option<String>, Option<ChecksumType>) {
    (Some(crc.to_owned()), Some(ChecksumType::FullObject))
}

fn described(head: HeadObjectOutput) -> (Option<String>, Option<ChecksumType>) {
    (head.checksum_crc64_nvme, head.checksum_type)
}

#[tokio::test]
async fn a_put_with_a_wrong_crc_stores_nothing_and_one_with_the_right_crc_keeps_it() {
    let server = TestServer::start().await;
    let put = |crc: Option<&str>| {
        let put = server.client.put_object().bucket(BUCKET).key(KEY);
        let put = put.set_checksum_crc64_nvme(crc.map(str::to_owned));
        put.body(HELLO.to_vec().into()).send()
    };

    for (crc, refusal) in [
        (WRONG, "BadDigest"),
        // Of the right length, in the other order of bytes.
        ("YeJLfssylmU=", "BadDigest"),
        ("AAAA", "InvalidRequest"),
        ("not base64", "InvalidRequest"),
    ] {
        let refused = put(Some(crc)).await;
        let response = refused.as_ref().unwrap_err().raw_response().unwrap();
        assert_eq!(response.status().as_u16(), 400, "{crc}");
        assert_eq!(code(refused).unwrap_err(), refusal, "{crc}");
        assert_eq!(server.read(None).await.unwrap_err(), "NoSuchKey");
    }
    let directory = server.directory.path();
    assert_eq!((temporary_files(directory), part_files(directory)), (0, 0));

    for named in [Some(RIGHT), None] {
        let stored = put(named).await.unwrap();
        assert_eq!(
            (stored.checksum_crc64_nvme, stored.checksum_type),
            full(RIGHT)
        );
        assert_eq!(described(server.head(KEY).await.unwrap()), full(RIGHT));
    }
}

#[tokio::test]
async fn reads_return_the_crc_of_the_whole_object_if_they_ask_for_it() {
    let server = TestServer::start().await;
    let put = server.client.put_object().bucket(BUCKET).key(KEY);
    put.body(HELLO.to_vec().into()).send().await.unwrap();
    let get = || server.client.get_object().bucket(BUCKET).key(KEY);

    let asked = get().checksum_mode(ChecksumMode::Enabled).send().await;
    let asked = asked.unwrap();
    let named = (asked.checksum_crc64_nvme, asked.checksum_type);
    assert_eq!(named, full(RIGHT));
    assert_eq!(asked.body.collect().await.unwrap().to_vec(), HELLO);

    let range = get()
        .checksum_mode(ChecksumMode::Enabled)
        .range("bytes=0-4");
    assert_eq!(range.send().await.unwrap().checksum_crc64_nvme, None);
    assert_eq!(get().send().await.unwrap().checksum_crc64_nvme, None);
    let head = server.client.head_object().bucket(BUCKET).key(KEY);
    assert_eq!(head.send().await.unwrap().checksum_crc64_nvme, None);
}

#[tokio::test]
async fn a_crc_in_a_trailer_is_compared() {
    let server = TestServer::start().await;
    let file = server.root.path().join("source");
    let body = content(1, 3 * MIB);
    fs::write(&file, &body).unwrap();
    let put = server.client.put_object().bucket(BUCKET).key("sdk");
    let put = put.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let put = put.body(ByteStream::from_path(&file).await.unwrap());
    put.send().await.unwrap();
    assert_eq!(
        described(server.head("sdk").await.unwrap()),
        full(&crc(&body))
    );

    for (crc, status) in [(WRONG, 400), ("AAAA", 400), (RIGHT, 200)] {
        let answer = put_with_trailer(&server, "trailer", crc).await;
        let (found, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(found, status, "{crc}: {text}");
        let stored = server.read_key("trailer").await;
        assert_eq!(stored.is_ok(), status == 200, "{crc}");
    }
}

/// Puts [`HELLO`] in one chunk, followed by its CRC.
async fn put_with_trailer(server: &TestServer, key: &str, crc: &str) -> reqwest::Response {
    const BODY: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let url = format!("{}/{BUCKET}/{key}", server.endpoint);
    let body = format!(
        "{:x}\r\n{}\r\n0\r\nx-amz-checksum-crc64nvme:{crc}\r\n\r\n",
        HELLO.len(),
        str::from_utf8(HELLO).unwrap()
    );
    let length = HELLO.len().to_string();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("x-amz-content-sha256", BODY),
        ("x-amz-decoded-content-length", &length),
        ("x-amz-trailer", "x-amz-checksum-crc64nvme"),
    ];
    let identity = Credentials::new("embedded", "secret", None, None, "test").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(SystemTime::now())
        .settings(SigningSettings::default());
    let parameters = parameters.build().unwrap().into();
    let payload = SignableBody::StreamingUnsignedPayloadTrailer;
    let signable = SignableRequest::new("PUT", &url, headers.into_iter(), payload).unwrap();
    let (signature, _) = sign(signable, &parameters).unwrap().into_parts();
    let mut put = reqwest::Client::new().put(&url).body(body);
    for (name, value) in headers {
        put = put.header(name, value);
    }
    let (signed, _) = signature.into_parts();
    for header in signed {
        put = put.header(header.name().to_owned(), header.value().to_owned());
    }
    put.send().await.unwrap()
}

#[tokio::test]
async fn creating_an_upload_with_the_crc_names_it_with_its_only_type() {
    let server = TestServer::start().await;
    let crc64nvme = Some(ChecksumAlgorithm::Crc64Nvme);
    let named = (crc64nvme.clone(), Some(ChecksumType::FullObject));
    for checksum_type in [None, Some(ChecksumType::FullObject)] {
        let created = server.create_with(crc64nvme.clone(), checksum_type).await;
        let created = created.unwrap();
        assert_eq!((created.checksum_algorithm, created.checksum_type), named);
        let listed = server.list(created.upload_id.as_deref().unwrap()).await;
        assert_eq!((listed.checksum_algorithm, listed.checksum_type), named);
    }
    let uploads = server.client.list_multipart_uploads().bucket(BUCKET);
    for upload in uploads.send().await.unwrap().uploads() {
        let found = (
            upload.checksum_algorithm.clone(),
            upload.checksum_type.clone(),
        );
        assert_eq!(found, named);
    }

    let composite = Some(ChecksumType::Composite);
    let refused = server.create_with(crc64nvme, composite).await;
    assert_eq!(refused.unwrap_err(), "InvalidRequest");
    let full = Some(ChecksumType::FullObject);
    let refused = server.create_with(None, full).await;
    assert_eq!(refused.unwrap_err(), "InvalidRequest");
    let created = server.create_with(None, None).await.unwrap();
    assert_eq!(
        (created.checksum_algorithm, created.checksum_type),
        (None, None)
    );
}

#[tokio::test]
async fn parts_have_their_crc_also_if_the_request_does_not_name_it() {
    let server = TestServer::start().await;
    let upload_id = server.begin().await;
    let (one, two) = (content(1, 5 * MIB), content(2, 1000));

    for (named, refusal) in [(WRONG, "BadDigest"), ("AAAA", "InvalidRequest")] {
        let refused = server.part(&upload_id, 1, &one, Some(named)).await;
        assert_eq!(refused.unwrap_err(), refusal);
    }
    assert!(server.list(&upload_id).await.parts().is_empty());

    let first = server.part(&upload_id, 1, &one, Some(&crc(&one))).await;
    assert_eq!(first.unwrap().checksum_crc64_nvme, Some(crc(&one)));
    // Replaced by other bytes, later.
    server.part(&upload_id, 2, &one, None).await.unwrap();
    let second = server.part(&upload_id, 2, &two, None).await;
    assert_eq!(second.unwrap().checksum_crc64_nvme, Some(crc(&two)));

    let check = async |server: &TestServer| {
        let listed = server.list(&upload_id).await;
        let listed = listed.parts().iter().map(|part| {
            let crc = part.checksum_crc64_nvme().unwrap().to_owned();
            (part.part_number().unwrap(), part.size().unwrap(), crc)
        });
        let expected = [(1, 5 * MIB as i64, crc(&one)), (2, 1000, crc(&two))];
        assert_eq!(listed.collect::<Vec<_>>(), expected);
    };
    check(&server).await;

    // A crash may lose what is kept of one part, and leave what was of the one before.
    let parts = server.directory.path().join("parts").join(&upload_id);
    let kept = |number: &str| parts.join(number).with_extension("crc64nvme");
    let server = server
        .restart(|_| {
            fs::write(kept("00001"), b"{\"md5\":\"half a fi").unwrap();
        })
        .await;
    check(&server).await;
    fs::copy(kept("00002"), kept("00001")).unwrap();
    check(&server).await;
    fs::remove_file(kept("00001")).unwrap();
    check(&server).await;
}

#[tokio::test]
async fn completing_compares_the_crcs_of_parts_and_of_the_whole_and_keeps_it() {
    let server = TestServer::start().await;
    let upload_id = server.begin().await;
    let parts = [content(1, 5 * MIB), content(2, 5 * MIB), content(3, 77)];
    let whole = crc(&parts.concat());
    let mut stored = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        stored.push(server.part(&upload_id, number, part, None).await.unwrap());
    }
    let crcs = parts.each_ref().map(|part| crc(part));
    let named = |crcs: [Option<&str>; 3]| {
        let parts = (1..).zip(&stored).zip(crcs);
        let parts = parts.map(|((number, part), crc)| with_crc(number, part, crc));
        parts.collect::<Vec<_>>()
    };
    let all = crcs.each_ref().map(|crc| Some(crc.as_str()));

    for (parts, named_whole, refusal) in [
        (named([all[0], Some(WRONG), all[2]]), None, "InvalidPart"),
        (
            named([all[1], all[0], all[2]]),
            Some(&*whole),
            "InvalidPart",
        ),
        (named(all), Some(WRONG), "BadDigest"),
        (named([None; 3]), Some(WRONG), "BadDigest"),
        (named(all), Some("AAAA"), "InvalidRequest"),
        (named([Some("AAAA"), None, None]), None, "InvalidRequest"),
    ] {
        let refused = server.complete_with(&upload_id, parts, named_whole).await;
        assert_eq!(refused.unwrap_err(), refusal);
        assert_eq!(server.head(KEY).await.unwrap_err(), "NotFound");
    }

    let answer = server
        .complete_with(&upload_id, named(all), Some(&whole))
        .await;
    assert_eq!(answer.unwrap(), full(&whole));
    let repeated = server
        .complete_with(&upload_id, named([None; 3]), None)
        .await;
    assert_eq!(repeated.unwrap(), full(&whole));
    let repeated = server
        .complete_with(&upload_id, named(all), Some(WRONG))
        .await;
    assert_eq!(repeated.unwrap_err(), "BadDigest");
    assert_eq!(described(server.head(KEY).await.unwrap()), full(&whole));
    assert_eq!(part_files(server.directory.path()), 3);
    let server = server.restart(|_| ()).await;
    assert_eq!(described(server.head(KEY).await.unwrap()), full(&whole));
}

#[tokio::test]
async fn an_upload_without_the_crc_refuses_parts_with_it_and_compares_what_completing_names() {
    let server = TestServer::start().await;
    let body = content(1, 1000);
    for (crcs, whole, refusal) in [
        (None, Some(WRONG), Some("BadDigest")),
        (Some(WRONG), None, Some("InvalidPart")),
        (Some(&*crc(&body)), Some(&*crc(&body)), None),
    ] {
        let upload_id = server.create().await;
        let refused = server.part(&upload_id, 1, &body, Some(&crc(&body))).await;
        assert_eq!(refused.unwrap_err(), "InvalidRequest");
        let stored = server.part(&upload_id, 1, &body, None).await.unwrap();
        assert_eq!(stored.checksum_crc64_nvme, None);
        let listed = server.list(&upload_id).await;
        assert_eq!(
            (listed.checksum_algorithm, listed.checksum_type),
            (None, None)
        );
        assert_eq!(listed.parts.unwrap()[0].checksum_crc64_nvme, None);

        let parts = vec![with_crc(1, &stored, crcs)];
        let answer = server.complete_with(&upload_id, parts, whole).await;
        match refusal {
            Some(refusal) => assert_eq!(answer.unwrap_err(), refusal),
            None => assert_eq!(answer.unwrap(), full(&crc(&body))),
        }
    }
    let upload_id = server.create().await;
    let stored = server.part(&upload_id, 1, &body, None).await.unwrap();
    let parts = vec![with_crc(1, &stored, None)];
    let answer = server.complete_with(&upload_id, parts, None).await;
    assert_eq!(answer.unwrap(), (None, None));
    assert_eq!(described(server.head(KEY).await.unwrap()), (None, None));
}

#[tokio::test]
async fn copies_have_the_crc_of_the_bytes_that_they_copy() {
    let server = TestServer::start().await;
    let put = server.client.put_object().bucket(BUCKET).key("source");
    put.body(HELLO.to_vec().into()).send().await.unwrap();
    let source = format!("{BUCKET}/source");

    let copy = server.client.copy_object().bucket(BUCKET).key("copy");
    let copy = copy
        .copy_source(&source)
        .metadata_directive(aws_sdk_s3::types::MetadataDirective::Replace);
    let copied = copy.send().await.unwrap().copy_object_result.unwrap();
    let named = (copied.checksum_crc64_nvme, copied.checksum_type);
    assert_eq!(named, full(RIGHT));
    assert_eq!(described(server.head("copy").await.unwrap()), full(RIGHT));

    for (upload_id, expected) in [
        (server.begin().await, Some(crc(&HELLO[..5]))),
        (server.create().await, None),
    ] {
        let copy = server.client.upload_part_copy().bucket(BUCKET).key(KEY);
        let copy = copy.upload_id(&upload_id).part_number(1);
        let copy = copy.copy_source(&source).copy_source_range("bytes=0-4");
        let copied = copy.send().await.unwrap().copy_part_result.unwrap();
        assert_eq!(copied.checksum_crc64_nvme, expected);
    }
}

#[tokio::test]
async fn files_of_the_build_before_are_read_and_its_uploads_continue() {
    let server = TestServer::start().await;
    let put = server.client.put_object().bucket(BUCKET).key("old");
    put.body(HELLO.to_vec().into()).send().await.unwrap();
    let upload_id = server.create().await;
    let stored = server.part(&upload_id, 1, &content(1, 5), None).await;

    // Neither sessions nor objects had the field.
    let server = server
        .restart(|directory| {
            for path in ["objects", "sessions"].map(|name| directory.join(name)) {
                for file in fs::read_dir(path).unwrap() {
                    let file = file.unwrap().path();
                    let mut json: serde_json::Value =
                        serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                    let removed = json.as_object_mut().unwrap().remove("crc64nvme");
                    assert!(removed.is_some(), "{}", file.display());
                    fs::write(&file, json.to_string()).unwrap();
                }
            }
        })
        .await;

    assert_eq!(server.read_key("old").await.unwrap(), HELLO);
    assert_eq!(described(server.head("old").await.unwrap()), (None, None));
    let second = server
        .part(&upload_id, 2, &content(2, 5), None)
        .await
        .unwrap();
    assert_eq!(server.list(&upload_id).await.parts().len(), 2);
    let parts = vec![with_crc(1, &stored.unwrap(), None)];
    assert_eq!(second.checksum_crc64_nvme, None);
    let answer = server.complete_with(&upload_id, parts, None).await;
    assert_eq!(answer.unwrap(), (None, None));
    assert_eq!(server.read(None).await.unwrap(), content(1, 5));
}
