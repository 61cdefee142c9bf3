//! Messages whose bytes arrive bit by bit, over the end of a part. What a message is, is what prost decodes; nothing of it counts
//! before it is whole.

use axum::body::to_bytes;
use bytes::Bytes;
use futures::stream;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service as _, http},
    transport::Endpoint,
};
use upload_gateway_client::proto::v1::{Phase, UploadRequest, UploadResponse};

use crate::common::{TestGateway, bytes, chunk, open, reason};

const PART: usize = 5 * 1024 * 1024;

/// Where the message begins that is tested: shortly before the end of the first part.
const BEGIN: usize = PART - 1_000;

/// How many bytes of the file it has.
const SIZE: usize = 3_000;

/// A field with its key.
fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(number, WireType::LengthDelimited, &mut field);
    encode_varint(value.len() as u64, &mut field);
    field.extend_from_slice(value);
    field
}

fn offset(offset: usize) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(1, WireType::Varint, &mut field);
    encode_varint(offset as u64, &mut field);
    field
}

fn crc32c(crc32c: u32) -> Vec<u8> {
    let mut field = Vec::new();
    encode_key(3, WireType::ThirtyTwoBit, &mut field);
    field.extend_from_slice(&crc32c.to_le_bytes());
    field
}

fn checksum(bytes: &[u8]) -> u32 {
    let crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc32c).unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// The messages before the tested one.
fn first() -> Vec<u8> {
    let data = bytes(BEGIN);
    let chunks = data.chunks(2 << 20).enumerate();
    let chunks = chunks.map(|(index, piece)| chunk(index * (2 << 20), piece));
    let messages = [open("a.bin", None)].into_iter().chain(chunks);
    let messages: Vec<_> = messages
        .map(|message: UploadRequest| framed(&message.encode_to_vec()))
        .collect();
    messages.concat()
}

/// The bytes of the tested message.
fn data() -> Vec<u8> {
    bytes(BEGIN + SIZE).split_off(BEGIN)
}

/// Sends these bytes, and `last` in small pieces.
async fn send(gateway: &TestGateway, last: &[u8]) -> Result<UploadResponse, Status> {
    let (begin, last) = (Bytes::from(first()), Bytes::copy_from_slice(last));
    let pieces = (0..last.len())
        .step_by(700)
        .map(|begin| last.slice(begin..last.len().min(begin + 700)));
    let pieces: Vec<_> = [begin]
        .into_iter()
        .chain(pieces)
        .map(Ok::<_, Status>)
        .collect();
    let body = axum::body::Body::from_stream(stream::iter(pieces));
    let url = format!("{}/uploadgateway.v1.UploadService/Upload", gateway.grpc);
    let request = http::Request::post(url)
        .header("content-type", "application/grpc")
        .body(Body::new(body))
        .unwrap();
    let endpoint = Endpoint::new(gateway.grpc.clone()).unwrap();
    let mut channel = endpoint.connect().await.unwrap();
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .unwrap();
    let response = channel.call(request).await.unwrap();
    if let Some(status) = Status::from_header_map(response.headers()) {
        return Err(status);
    }
    let body = axum::body::Body::new(response.into_body());
    let message = to_bytes(body, 1 << 20).await.unwrap();
    Ok(UploadResponse::decode(&message[5..]).unwrap())
}

/// The error of a stream with this message. The store has seen no byte of it, nor of the part that it completes.
async fn refused(gateway: &TestGateway, last: &[u8]) -> (Code, String) {
    let status = send(gateway, last).await.unwrap_err();
    let mut info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    let upload_id = info.metadata.remove("upload_id").unwrap();
    let upload = gateway.get(&upload_id).await.unwrap();
    assert_eq!(
        (upload.phase(), upload.committed_size, upload.part_count),
        (Phase::Open, 0, 0)
    );
    // Without a session, nothing was sent to the store.
    assert_eq!(upload.resumable_id, "");
    reason(&status)
}

#[tokio::test]
async fn nothing_of_a_message_that_is_not_valid_reaches_the_store() {
    let gateway = TestGateway::start().await;
    let (data, crc) = (field(2, &data()), crc32c(checksum(&data())));
    let invalid = (Code::InvalidArgument, "INVALID_SEQUENCE".to_owned());
    let chunk = |fields: &[&[u8]]| field(2, &fields.concat());
    let wrong_checksum = chunk(&[&offset(BEGIN), &data, &crc32c(1)]);
    assert_eq!(
        refused(&gateway, &framed(&wrong_checksum)).await,
        (Code::DataLoss, "CHECKSUM_MISMATCH".into())
    );
    // The second data has the checksum of the first.
    let data_twice = chunk(&[&offset(BEGIN), &crc, &data, &field(2, b"abc")]);
    assert_eq!(
        refused(&gateway, &framed(&data_twice)).await,
        (Code::DataLoss, "CHECKSUM_MISMATCH".into())
    );
    let wrong_offset = chunk(&[&data, &offset(BEGIN + 1)]);
    assert_eq!(
        refused(&gateway, &framed(&wrong_offset)).await,
        (Code::OutOfRange, "WRONG_OFFSET".into())
    );
    let finished_early = [chunk(&[&offset(BEGIN), &data]), field(3, &[8, 1])].concat();
    let error = refused(&gateway, &framed(&finished_early)).await;
    assert_eq!(error.1, "SIZE_EXCEEDED");
    let unknown_wire_type = chunk(&[&offset(BEGIN), &data, &[0x1f, 0, 0, 0, 0]]);
    assert_eq!(
        refused(&gateway, &framed(&unknown_wire_type)).await,
        invalid
    );
}

#[tokio::test]
async fn nothing_of_a_message_that_is_cut_reaches_the_store() {
    let gateway = TestGateway::start().await;
    let (data, crc) = (field(2, &data()), crc32c(checksum(&data())));
    let message = framed(&field(2, &[offset(BEGIN), data, crc].concat()));
    let ends = message.len();
    let begins = ends - 5 - SIZE;
    for cut in [
        1,
        4,
        begins - 3,
        begins,
        begins + 1,
        begins + 999,
        begins + 1_000,
        begins + 1_001,
        ends - 6,
        ends - 5,
        ends - 1,
    ] {
        assert_eq!(
            refused(&gateway, &message[..cut]).await,
            (Code::InvalidArgument, "INVALID_SEQUENCE".into()),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn the_fields_of_a_message_have_any_order() {
    let gateway = TestGateway::start().await;
    let (data, crc) = (field(2, &data()), crc32c(checksum(&data())));
    let (offset, wrong) = (offset(BEGIN), offset(7));
    let unknown = [0x4b, 0x08, 0x01, 0x4c];
    let chunk = |fields: &[&[u8]]| field(2, &fields.concat());
    let finish = framed(&field(3, &[]));
    for message in [
        chunk(&[&offset, &data, &crc]),
        chunk(&[&offset, &data]),
        chunk(&[&crc, &offset, &data]),
        chunk(&[&data, &crc, &offset]),
        // The offset has four bytes here.
        chunk(&[&data, &offset]),
        chunk(&[&wrong, &data, &offset]),
        chunk(&[&unknown, &offset, &data, &crc]),
        [&unknown[..], &chunk(&[&offset, &data]), &chunk(&[&crc])].concat(),
        // The data and its checksum replace those before.
        chunk(&[&offset, &field(2, &[7; SIZE]), &crc32c(1), &data, &crc]),
        [field(3, &[8, 1]), chunk(&[&offset, &data, &crc])].concat(),
    ] {
        let sent = [framed(&message), finish.clone()].concat();
        let upload = send(&gateway, &sent).await.unwrap().upload.unwrap();
        assert!(
            gateway.read(&upload).await == bytes(BEGIN + SIZE),
            "other bytes"
        );
    }
    // Other data, which fits behind the first without room for more.
    let replaced = chunk(&[&offset, &data, &field(2, b"abc")]);
    let sent = [framed(&replaced), finish].concat();
    let upload = send(&gateway, &sent).await.unwrap().upload.unwrap();
    assert!(gateway.read(&upload).await == [bytes(BEGIN), b"abc".to_vec()].concat());
}
