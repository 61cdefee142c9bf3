//! Chunks that arrive in pieces, over the end of a part: they count only once their end has arrived and was checked.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use upload_gateway_core::{
    error::{Kind, Reason},
    gateway::{ChunkEnd, Finish, Gateway, Message},
    upload::Upload,
};

use crate::{
    common,
    world::{self, PART, Stream, World},
};

/// Where the chunk in pieces begins: shortly before the end of the first part.
const BEGIN: usize = PART - 1_000;

/// A stream with the first bytes of a file.
async fn begun(world: &World, gateway: &Arc<Gateway>) -> Stream {
    world.stream(gateway, BEGIN).await
}

fn piece(begin: usize, end: usize) -> Message {
    Message::Piece(Bytes::from(common::bytes(end)).slice(begin..))
}

fn end(offset: usize, crc32c: Option<u32>) -> Message {
    let offset = offset as u64;
    Message::ChunkEnd(ChunkEnd { offset, crc32c })
}

fn crc32c(bytes: &[u8]) -> u32 {
    let crc32c = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes);
    u32::try_from(crc32c).unwrap()
}

fn send(stream: &Stream, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        stream.messages.send(Ok(message)).unwrap();
    }
}

/// Ends a stream, which must fail, and checks that the store has seen no byte of it.
async fn assert_unseen(world: &World, stream: Stream) -> (Kind, Reason) {
    let id = stream.id.clone();
    let error = stream.end().await.unwrap_err();
    let upload = world.get(&id).await;
    assert!(upload.parts.is_empty());
    // Without a session, nothing was sent to the store.
    assert_eq!(upload.session, None);
    (error.kind(), error.reason())
}

async fn is_stored(world: &World, upload: &Upload, file: &[u8]) -> bool {
    let object = upload.object.as_ref().unwrap();
    let read = world.store().read(&object.key, None, None).await.unwrap();
    let read: Vec<Bytes> = read.try_collect().await.unwrap();
    read.concat() == file
}

#[tokio::test]
async fn pieces_of_a_chunk_that_ends_well_are_the_next_bytes() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let file = common::bytes(2 * PART + 1);
    let stream = begun(&world, &gateway).await;
    let cuts = [BEGIN, PART - 1, PART, PART + 1, PART + 7];
    send(&stream, cuts.windows(2).map(|cut| piece(cut[0], cut[1])));
    send(&stream, [end(BEGIN, Some(crc32c(&file[BEGIN..PART + 7])))]);
    // The next one fills its part exactly.
    send(&stream, [piece(PART + 7, 2 * PART), end(PART + 7, None)]);
    send(
        &stream,
        [piece(2 * PART, 2 * PART + 1), end(2 * PART, None)],
    );
    send(&stream, [Message::Finish(Finish::default())]);
    let upload = stream.end().await.unwrap();
    assert!(is_stored(&world, &upload, &file).await, "other bytes");
    world.close().await;
}

#[tokio::test]
async fn the_store_sees_no_byte_of_a_chunk_that_does_not_end_well() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let refused = |last: Option<Message>| {
        let (world, gateway) = (&world, &gateway);
        async move {
            let stream = begun(world, gateway).await;
            send(&stream, [piece(BEGIN, PART), piece(PART, PART + 7)]);
            send(&stream, last);
            assert_unseen(world, stream).await
        }
    };
    let incomplete = (Kind::FailedPrecondition, Reason::Incomplete);
    assert_eq!(refused(None).await, incomplete);
    assert_eq!(
        refused(Some(end(BEGIN, Some(1)))).await,
        (Kind::DataLoss, Reason::ChecksumMismatch)
    );
    assert_eq!(
        refused(Some(end(BEGIN + 1, None))).await,
        (Kind::OutOfRange, Reason::WrongOffset)
    );
    let finish = Message::Finish(Finish::default());
    assert_eq!(refused(Some(finish)).await.0, Kind::Internal);
    world.close().await;
}

#[tokio::test]
async fn a_chunk_that_ends_after_the_file_is_refused_at_its_end() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let beyond = 2 * PART + 100;
    for (offset, reason) in [
        (BEGIN, Reason::SizeExceeded),
        (BEGIN + 1, Reason::WrongOffset),
    ] {
        let stream = begun(&world, &gateway).await;
        send(&stream, [piece(BEGIN, 2 * PART), piece(2 * PART, beyond)]);
        send(&stream, [end(offset, None)]);
        assert_eq!(
            assert_unseen(&world, stream).await,
            (Kind::OutOfRange, reason)
        );
    }
    world.close().await;
}

#[tokio::test]
async fn void_pieces_are_cut_off() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let file = common::bytes(2 * PART + 1);
    let stream = begun(&world, &gateway).await;
    let other = || Message::Piece(Bytes::from(vec![0; 700]));
    // Within a part, over its end, and where a part begins.
    send(&stream, [other(), Message::Void]);
    send(&stream, [other(), other(), Message::Void]);
    send(&stream, [piece(BEGIN, PART), end(BEGIN, None)]);
    send(&stream, [other(), Message::Void]);
    send(&stream, [piece(PART, file.len()), end(PART, None)]);
    send(&stream, [Message::Finish(Finish::default())]);
    let upload = stream.end().await.unwrap();
    assert!(is_stored(&world, &upload, &file).await, "other bytes");
    world.close().await;
}

#[tokio::test]
async fn all_pieces_of_a_chunk_arrive_within_the_time_for_one_message() {
    let world = world::embedded().await;
    let gateway = world.gateway().await;
    let stream = begun(&world, &gateway).await;
    tokio::time::pause();
    for at in 0..2 {
        send(&stream, [piece(BEGIN + at, BEGIN + at + 1)]);
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    tokio::time::resume();
    assert_eq!(
        assert_unseen(&world, stream).await,
        (Kind::Unavailable, Reason::IdleTimeout)
    );
    // Each message has its own time.
    let stream = begun(&world, &gateway).await;
    tokio::time::pause();
    for at in 0..2 {
        send(
            &stream,
            [piece(BEGIN + at, BEGIN + at + 1), end(BEGIN + at, None)],
        );
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    tokio::time::resume();
    let incomplete = (Kind::FailedPrecondition, Reason::Incomplete);
    assert_eq!(assert_unseen(&world, stream).await, incomplete);
    world.close().await;
}
