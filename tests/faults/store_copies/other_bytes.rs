//! Another sender continues a copy whose parts the store has made.

use futures::stream;
use upload_gateway_core::{
    error::Reason,
    gateway::{Caller, Chunk, Finish, Message, Open, Takeover, Target},
    upload::Phase,
};

use super::{Guarded, LARGE, begun, s3};
use crate::{
    copies::{Copying, copying},
    object_records::upload,
    world::{file, in_time},
};

#[tokio::test]
async fn a_copy_cannot_be_finished_with_other_bytes() {
    in_time(async {
        let Guarded { world, guard } = s3().await;
        let source = upload(&*world.gateway().await, file(LARGE)).await;
        let copy = begun(&world, &guard, &source).await;
        guard.allow(1000);
        let gateway = world.gateway().await;
        let (caller, begun) = (Caller::default(), world.get(&copy.id).await);
        let offset = begun.committed_size();
        let left = usize::try_from(LARGE as u64 - offset).unwrap();
        let mut messages = stream::iter([
            Ok(Message::Open(Open {
                target: Target::Upload(copy.id.clone()),
                restart: false,
                takeover: Takeover::Force,
                resume_token: String::new(),
            })),
            Ok(Message::Chunk(Chunk {
                offset,
                data: vec![7; left].into(),
                crc32c: None,
            })),
            Ok(Message::Finish(Finish {
                file_size: None,
                file_id: None,
                crc64nvme: None,
            })),
        ]);
        let Copying {
            to,
            opened: _opened,
            counts: _counts,
            ..
        } = copying("");
        let memory = gateway.streams.memory(&caller);
        let received = gateway
            .streams
            .receive(&caller, memory, &mut messages, to.observer);
        let error = Box::pin(received).await.unwrap_err();
        assert_eq!(error.reason(), Reason::DigestUnknown, "{error:?}");
        assert_eq!(world.get(&copy.id).await.phase, Phase::Open);
    })
    .await;
}
