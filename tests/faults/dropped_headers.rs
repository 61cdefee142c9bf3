//! A proxy in front of the store drops headers whose names contain `_` or `.`, as nginx does. In each flow the answer to the
//! request that makes the object is lost, and the gateway recognises the object by the metadata that it wrote.

use std::sync::Arc;

use upload_gateway::{
    config::{Config, S3Profile, StorageConfig, StoreConfig},
    serve::connect_storage,
};
use upload_gateway_client::proto::v1::{Phase, StepType, Upload};
use upload_gateway_core::{blobs::BlobStore, upload::UploadId};

use crate::common::{
    self, TestGateway, bytes, chunk, finish, open_file,
    proxy::{Fault, Proxy},
    signing_client::{Client, PART, file},
};

/// Makes one test of each flow for each store.
macro_rules! for_each_store {
    ($($flow:ident),* $(,)?) => {
        mod s3 { $(
            #[tokio::test]
            async fn $flow() {
                let Some(store) = super::s3().await else { return };
                super::$flow(store).await;
            }
        )* }
        mod azure { $(
            #[tokio::test]
            async fn $flow() {
                let Some(store) = super::azure().await else { return };
                super::$flow(store).await;
            }
        )* }
    };
}

for_each_store!(
    a_streamed_put_is_recognised,
    a_streamed_commit_is_recognised,
    a_signed_put_is_recognised,
    a_signed_commit_is_recognised,
);

/// The smallest file that takes two parts.
const TWO_PARTS: usize = PART + 1000;

/// A store without a proxy.
struct Store {
    storage: StorageConfig,
    /// `http://127.0.0.1:PORT`.
    server: String,
    /// What follows the server in the address of the store.
    path: String,
    /// The method and the query of the request that makes an object of parts.
    commit: (&'static str, &'static str),
    _backend: Box<dyn Send + Sync>,
}

/// A gateway that reaches its store through the proxy only, and so do its clients.
struct Proxied {
    gateway: TestGateway,
    proxy: Proxy,
    /// The store without the proxy.
    truth: Arc<dyn BlobStore>,
    _store: Store,
}

async fn s3() -> Option<Store> {
    let s3 = common::s3().await?;
    Some(Store {
        storage: s3.storage(S3Profile::Compatible),
        server: s3.endpoint.clone(),
        path: String::new(),
        commit: ("POST", "uploadId="),
        _backend: Box::new(s3),
    })
}

async fn azure() -> Option<Store> {
    let azure = common::azure().await?;
    let (server, account) = azure.endpoint.rsplit_once('/').unwrap();
    Some(Store {
        storage: azure.storage(),
        server: server.into(),
        path: format!("/{account}"),
        commit: ("PUT", "comp=blocklist"),
        _backend: Box::new(azure),
    })
}

/// The answer to this request is lost.
fn lost((method, query): (&'static str, &'static str)) -> Vec<Fault> {
    vec![Fault {
        method,
        query,
        status: 500,
        body: "",
        times: 1,
        reaches_store: true,
        then: Vec::new(),
    }]
}

// === impl Proxied ===

impl Proxied {
    async fn by(store: Store, faults: Vec<Fault>) -> Self {
        let proxy = Proxy::dropping_names(&store.server, faults).await;
        let mut storage = store.storage.clone();
        let address = Some(format!("{}{}", proxy.endpoint, store.path).parse().unwrap());
        let endpoint = match &mut storage.store {
            StoreConfig::S3(s3) => &mut s3.endpoint,
            StoreConfig::Azure(azure) => &mut azure.endpoint,
        };
        *endpoint = address;
        Self {
            gateway: TestGateway::with(|config: &mut Config| config.storage = vec![storage]).await,
            proxy,
            truth: connect_storage(&store.storage).await.unwrap(),
            _store: store,
        }
    }

    async fn send(&self, data: &[u8]) -> Upload {
        let mut messages = vec![open_file(file("film.mp4", data))];
        let pieces = data.chunks(1 << 20).enumerate();
        messages.extend(pieces.map(|(index, piece)| chunk(index << 20, piece)));
        messages.push(finish());
        self.gateway.upload(messages).await.unwrap()
    }

    /// Checks that the answer was lost and that the object, in spite of that, is the upload's and has its metadata.
    async fn assert_recognised(&self, upload: &Upload, data: &[u8]) {
        assert!(self.proxy.left().is_empty(), "the answer was not lost");
        assert_eq!(upload.phase(), Phase::Complete);
        let key = &upload.object.as_ref().unwrap().key;
        let found = self.truth.head(key).await.unwrap().unwrap();
        let id: UploadId = upload.upload_id.parse().unwrap();
        assert!(found.is_of(&id), "{:?}", found.metadata);
        assert_eq!(found.written_size(), Some(data.len() as u64));
        assert_eq!(found.size, data.len() as u64);
    }
}

async fn a_streamed_put_is_recognised(store: Store) {
    let proxied = Proxied::by(store, lost(("PUT", ""))).await;
    let data = bytes(1000);
    let upload = proxied.send(&data).await;
    proxied.assert_recognised(&upload, &data).await;
}

async fn a_streamed_commit_is_recognised(store: Store) {
    let commit = store.commit;
    let proxied = Proxied::by(store, lost(commit)).await;
    let data = bytes(TWO_PARTS);
    let upload = proxied.send(&data).await;
    proxied.assert_recognised(&upload, &data).await;
}

async fn a_signed_put_is_recognised(store: Store) {
    let proxied = Proxied::by(store, lost(("PUT", ""))).await;
    let data = bytes(1000);
    let mut client = Client::of(&proxied.gateway).await;
    let step = client.create(file("film.mp4", &data)).await.unwrap();
    assert_eq!(step.r#type(), StepType::DirectUpload);
    let signature = step.signature.as_ref().unwrap();
    assert_eq!(client.send(signature, data.clone()).await.0, 500);
    let upload = client.complete(&step.upload_id).await.unwrap();
    proxied.assert_recognised(&upload, &data).await;
}

async fn a_signed_commit_is_recognised(store: Store) {
    let commit = store.commit;
    let proxied = Proxied::by(store, lost(commit)).await;
    let data = bytes(TWO_PARTS);
    let mut client = Client::of(&proxied.gateway).await;
    let id = client.put_parts("film.mp4", &data).await;
    let step = client.sign_finish(&id).await.unwrap();
    let (signature, body) = (step.signature.as_ref().unwrap(), step.body.clone().unwrap());
    assert_eq!(client.send(signature, body.into_bytes()).await.0, 500);
    let upload = client.complete(&id).await.unwrap();
    proxied.assert_recognised(&upload, &data).await;
}
