//! Streams and signed requests for the same upload.

use std::io::Cursor;

use upload_gateway_client as client;
use upload_gateway_client::proto::v1::{Phase, StepType};
use upload_gateway_core::{
    blobs::{NewPart, Session},
    upload::{Crc64Nvme, Md5, WriterTag},
};

use super::{
    client::{Client, PART, file, part_of},
    common::{bytes, chunk, finish, open_file, open_known, reason, refused_for_good},
    for_each_digest,
    stores::{Stores, abort, key, put_unrecorded, read},
};

for_each_digest!(
    a_stream_continues_after_signed_parts,
    a_stream_with_a_digest_continues_after_signed_parts,
    signed_parts_continue_after_a_stream,
    a_stream_puts_signed_parts_again_that_it_overlaps,
    a_stream_finds_what_a_client_committed,
    a_stream_without_bytes_commits_signed_parts,
    a_session_that_was_aborted_is_replaced,
    other_bytes_of_a_streamed_part_are_not_signed,
    refusing_another_session_does_not_stop_the_stream,
    an_unrecorded_part_of_a_stream_is_not_taken_for_a_clients_part,
    a_session_with_only_unrecorded_parts_of_a_stream_is_shared,
);

async fn a_stream_continues_after_signed_parts(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(4 * PART + 9);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    for part in 1..=3 {
        client.put_part(&id, part, &sent).await;
    }

    // A stream continues, is cut, and another one takes over on another gateway.
    let mut first = gateway.converse().await;
    first.send(open_known(&id)).await;
    let opened = first.next().await.unwrap().upload.unwrap();
    assert_eq!(opened.committed_size, i64::try_from(3 * PART).unwrap());
    first
        .send(chunk(3 * PART, &sent[3 * PART..3 * PART + 100]))
        .await;
    let other = stores.beside(&gateway).await;
    let mut second = other.converse().await;
    second.send(open_known(&id)).await;
    second.next().await.unwrap();
    second
        .send_in_chunks(3 * PART, &sent[3 * PART..], 1 << 20)
        .await;
    second.send(finish()).await;
    let upload = second.end().await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert!(read(&gateway, &upload).await == sent);
    // The gateway has not seen all bytes, so the digest of the whole file is not proven.
    assert_eq!(upload.object.unwrap().md5, "");
}

async fn a_stream_with_a_digest_continues_after_signed_parts(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART + 9);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    client.begin(&step).await;
    client.put_part(&step.upload_id, 1, &sent).await;
    let sender = client::Client::connect(&gateway.grpc).unwrap();
    let source = client::Source::seekable(Cursor::new(sent.clone()));
    let uploaded = sender.resume(step.upload_id, source).await;
    assert!(read(&gateway, &uploaded.unwrap().upload).await == sent);
}

async fn signed_parts_continue_after_a_stream(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(3 * PART + 9);
    let described = file("film.mp4", &sent);
    let mut stream = gateway.converse().await;
    stream.send(open_file(described.clone())).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART + 5], 1 << 20).await;
    stream.committed(PART).await;
    let other = stores.beside(&gateway).await;
    let mut newer = other.converse().await;
    newer.send(open_known(&id)).await;
    newer.next().await.unwrap();
    let middle = &sent[PART..2 * PART + 5];
    newer.send_in_chunks(PART, middle, 1 << 20).await;
    newer.committed(2 * PART).await;
    drop((stream, newer));

    let step = client.create(described).await.unwrap();
    assert_eq!(step.r#type(), StepType::Parts);
    assert_eq!(
        (step.upload_id.as_str(), step.part_list.as_slice()),
        (id.as_str(), &[1, 2][..])
    );
    for part in [4, 3] {
        client.put_part(&id, part, &sent).await;
    }
    let upload = client.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_stream_puts_signed_parts_again_that_it_overlaps(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART + 9);
    let step = client.create(file("film.mp4", &sent)).await.unwrap();
    let id = step.upload_id.clone();
    client.begin(&step).await;
    client.put_part(&id, 1, &sent).await;
    let mut stream = gateway.converse().await;
    stream.send(open_known(&id)).await;
    stream.next().await.unwrap();
    stream.send_in_chunks(0, &sent, 1 << 20).await;
    stream.send(finish()).await;
    let upload = stream.end().await.unwrap();
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_stream_finds_what_a_client_committed(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 9);
    let id = client.put_parts("film.mp4", &sent).await;
    client.commit(&id).await;
    let upload = gateway.upload(vec![open_known(&id)]).await.unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_stream_without_bytes_commits_signed_parts(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 9);
    let id = client.put_parts("film.mp4", &sent).await;
    let upload = gateway
        .upload(vec![open_known(&id), finish()])
        .await
        .unwrap();
    assert_eq!(upload.phase(), Phase::Complete);
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_session_that_was_aborted_is_replaced(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(PART + 9);
    let described = file("film.mp4", &sent);
    let step = client.create(described.clone()).await.unwrap();
    let id = step.upload_id.clone();
    let session = client.begin(&step).await;
    client.put_part(&id, 1, &sent).await;
    let record = gateway.get(&id).await.unwrap();
    assert_eq!(record.resumable_id, session);
    let key = key(&gateway, &id, "film.mp4");
    abort(&gateway, &record, &key).await;
    let refused = client.sign_finish(&id).await.unwrap_err();
    assert_eq!(reason(&refused).1, "STORE_UNAVAILABLE", "one observation");

    // An identical create needs no second observation, because nothing is lost by a new upload.
    let again = client.create(described).await.unwrap();
    assert_ne!(again.upload_id, id);
    let refused = refused_for_good(async || client.sign_finish(&id).await).await;
    assert!(
        matches!(&*reason(&refused).1, "SESSION_LOST" | "SESSION_NOT_STARTED"),
        "{refused:?}"
    );
    let id = again.upload_id.clone();
    let other = client.begin(&again).await;
    assert_ne!(other, session);
    client.put_part(&id, 1, &sent).await;
    client.put_part(&id, 2, &sent).await;
    // The store has parts of it by now: another one is refused.
    let refused = client.report(&id, &session, &[], None).await.unwrap_err();
    assert_eq!(reason(&refused).1, "SESSION_IN_USE");
    let upload = client.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn other_bytes_of_a_streamed_part_are_not_signed(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART);
    let mut stream = gateway.converse().await;
    stream.send(open_file(file("film.mp4", &sent))).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART], 1 << 20).await;
    stream.committed(PART).await;
    let refused = client.sign_part(&id, 1, b"other bytes").await.unwrap_err();
    assert_eq!(reason(&refused).1, "PREFIX_MISMATCH");
    // The MD5 of a part that the store has compared by its CRC-64 is only known from its ETag.
    let same = client.sign_part(&id, 1, part_of(&sent, 1)).await;
    let found = client.create(file("film.mp4", &sent)).await.unwrap();
    let [part] = &found.part_data[..] else {
        panic!("the stored part is listed: {found:?}");
    };
    match same {
        Ok(_) => assert_eq!(part.md5, Md5::of(part_of(&sent, 1)).to_string()),
        Err(refused) => {
            assert_eq!(reason(&refused).1, "PREFIX_MISMATCH");
            let crc64 = Crc64Nvme::of(part_of(&sent, 1));
            assert_eq!(part.crc64nvme, Some(crc64.0));
        }
    }
}

/// A stream that was killed after it put a part and before it recorded it may have sent another file.
async fn an_unrecorded_part_of_a_stream_is_not_taken_for_a_clients_part(stores: Stores) {
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART + 9);
    let described = file("film.mp4", &sent);
    let step = client.create(described.clone()).await.unwrap();
    let id = step.upload_id.clone();
    let session = client.begin(&step).await;
    client.put_part(&id, 1, &sent).await;
    let other = vec![7; PART];
    let left = NewPart {
        number: 2,
        writer: WriterTag::random(),
        checksum: Md5::of(&other).into(),
        body: other.into(),
    };
    let session = Session {
        key: &key(&gateway, &id, "film.mp4"),
        id: &session,
        scope: None,
    };
    put_unrecorded(&gateway, &session, left).await;

    let found = client.create(described).await.unwrap();
    assert_eq!(found.part_list, [1]);
    let mut stream = gateway.converse().await;
    stream.send(open_known(&id)).await;
    let opened = stream.next().await.unwrap().upload.unwrap();
    assert_eq!(opened.committed_size, i64::try_from(PART).unwrap());
    stream.send_in_chunks(PART, &sent[PART..], 1 << 20).await;
    stream.send(finish()).await;
    let upload = stream.end().await.unwrap();
    assert!(read(&gateway, &upload).await == sent);
}

async fn a_session_with_only_unrecorded_parts_of_a_stream_is_shared(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART + 9);
    let described = file("film.mp4", &sent);
    let step = client.create(described.clone()).await.unwrap();
    let id = step.upload_id.clone();
    let session = client.begin(&step).await;
    let left = NewPart {
        number: 1,
        writer: WriterTag::random(),
        checksum: Md5::of(part_of(&sent, 1)).into(),
        body: part_of(&sent, 1).to_vec().into(),
    };
    let session = Session {
        key: &key(&gateway, &id, "film.mp4"),
        id: &session,
        scope: None,
    };
    put_unrecorded(&gateway, &session, left).await;

    let step = client.create(described).await.unwrap();
    assert_eq!((step.r#type(), step.part_list.len()), (StepType::Parts, 0));
    for part in 1..=3 {
        client.put_part(&id, part, &sent).await;
    }
    let upload = client.finish(&id).await;
    assert!(read(&gateway, &upload).await == sent);
}

async fn refusing_another_session_does_not_stop_the_stream(stores: Stores) {
    if !stores.has_sessions {
        return;
    }
    let gateway = stores.gateway().await;
    let mut client = Client::of(&gateway).await;
    let sent = bytes(2 * PART);
    let mut stream = gateway.converse().await;
    stream.send(open_file(file("film.mp4", &sent))).await;
    let id = stream.next().await.unwrap().upload_id;
    stream.send_in_chunks(0, &sent[..PART], 1 << 20).await;
    stream.committed(PART).await;
    let refused = client.report(&id, "another", &[], None).await.unwrap_err();
    assert_eq!(reason(&refused).1, "SESSION_IN_USE");
    stream.send_in_chunks(PART, &sent[PART..], 1 << 20).await;
    stream.send(finish()).await;
    assert_eq!(stream.end().await.unwrap().phase(), Phase::Complete);
}
