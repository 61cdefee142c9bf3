//! Which addresses requests go to, and signed URLs name.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use upload_gateway_core::{
    blobs::sign::{ReadVerb, ToSign},
    upload::Timestamp,
};

use super::{Behaviour, SESSION, Sdk, answer, object, put_part};

for_both_sdks! {
    requests_go_below_the_path_of_the_endpoint
    signed_urls_are_below_the_path_of_the_public_endpoint
}

async fn requests_go_below_the_path_of_the_endpoint(kind: Sdk) {
    for (path, below) in [
        ("", ""),
        ("/", ""),
        ("/storage/v1/s3", "/storage/v1/s3"),
        ("/storage/v1/s3/", "/storage/v1/s3"),
    ] {
        // Kept connections would end within the next request.
        let behaviour = Behaviour::quick(answer("200 OK", &[("connection", "close")], b""));
        let (store, mut received) = kind.store_at(path, behaviour).await;
        let (store, object) = (&*store, object());
        let whole = async {
            store
                .put_object(&object, b"whole".as_slice().into())
                .await
                .is_ok()
        };
        let calls: [(&str, BoxFuture<'_, bool>); 9] = [
            ("", async { store.check().await.is_ok() }.boxed()),
            ("/key", whole.boxed()),
            ("/key", async { put_part(store, 8).await.is_ok() }.boxed()),
            (
                "/key",
                async { store.list_parts(&SESSION).await.is_ok() }.boxed(),
            ),
            (
                "/key",
                async { store.commit(&SESSION, &object, &[]).await.is_ok() }.boxed(),
            ),
            ("/key", async { store.head("key").await.is_ok() }.boxed()),
            (
                "/key",
                async { store.read("key", None, None).await.is_ok() }.boxed(),
            ),
            ("/key", async { store.delete("key").await.is_ok() }.boxed()),
            (
                "/a%20b",
                async { store.delete("a b").await.is_ok() }.boxed(),
            ),
        ];
        for (number, (key, call)) in calls.into_iter().enumerate() {
            call.await;
            let head = received.recv().await.unwrap().head;
            let target = head.split(' ').nth(1).unwrap_or_default();
            let requested = target.split('?').next().unwrap_or_default();
            let wanted = format!("{below}/{}{key}", kind.bucket());
            assert_eq!(
                requested.trim_end_matches('/'),
                wanted,
                "call {number} at {path:?}"
            );
            while received.try_recv().is_ok() {}
        }
    }
}

async fn signed_urls_are_below_the_path_of_the_public_endpoint(kind: Sdk) {
    let request = ToSign::Read {
        verb: ReadVerb::Get,
        key: "a b.txt",
        file_name: "b.txt",
        mime: "text/plain",
        lifetime: Duration::from_secs(60),
    };
    for public in [
        "https://files.example/storage/v1/s3",
        "https://files.example/storage/v1/s3/",
        "https://files.example",
    ] {
        let store = kind
            .connect("http://127.0.0.1:1/inside", Some(public))
            .await;
        let signed = store.sign(&request, &Timestamp::default()).await.unwrap();
        let bucket = kind.bucket();
        let wanted = format!("{}/{bucket}/a%20b.txt?", public.trim_end_matches('/'));
        assert!(
            signed.url.starts_with(&wanted),
            "{} at {public}",
            signed.url
        );
    }
}
