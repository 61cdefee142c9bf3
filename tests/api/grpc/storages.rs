//! What a gateway offers: its storages and its version.

use upload_gateway::config::{ByteSize, Keep, S3Profile};
use upload_gateway_client::proto::v1::{
    FileMetadata, GetServerInfoRequest, ListStoragesRequest, Residence, Storage,
};

use crate::common::{self, TestGateway, chunk, finish, open, open_file, reason};

#[tokio::test]
async fn the_embedded_gateway_has_one_storage() {
    let gateway = TestGateway::start().await;
    let mut client = gateway.client().await;
    let listed = client.list_storages(ListStoragesRequest {}).await.unwrap();
    let [storage] = listed.into_inner().storages.try_into().unwrap();
    assert_eq!(
        (&*storage.storage_id, storage.is_default),
        ("embedded", true)
    );
    let info = client.get_server_info(GetServerInfoRequest {}).await;
    let info = info.unwrap().into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.api_versions, ["uploadgateway.v1"]);
    assert_eq!(info.features, ["embedded-stores"]);
}

#[tokio::test]
async fn storages_say_which_files_they_take_and_for_how_long() {
    let Some(s3) = common::s3().await else { return };
    let mut plain = s3.storage(S3Profile::Compatible);
    plain.options.id = "plain".into();
    plain.options.default = false;
    let mut strict = s3.storage(S3Profile::Compatible);
    strict.options.id = "strict".into();
    strict.options.default = true;
    strict.options.ext_filter = vec!["pdf".into()];
    strict.options.mime_filter = vec!["application/pdf".into()];
    strict.options.max_file_size = Some(ByteSize(1 << 20));
    strict.options.expire_after = Some(Keep::Seconds(60));
    strict.options.max_expire_after = Some(Keep::Seconds(3600));
    let gateway = TestGateway::with(|config| config.storage = vec![plain, strict]).await;
    let mut client = gateway.client().await;
    let listed = client.list_storages(ListStoragesRequest {}).await.unwrap();
    let [strict, plain] = listed.into_inner().storages.try_into().unwrap();
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let expected = Storage {
        storage_id: "strict".into(),
        residence: Residence::AmazonS3.into(),
        is_default: true,
        extensions: vec!["pdf".into()],
        mimes: vec!["application/pdf".into()],
        max_file_size: 1 << 20,
        expire_after: seconds(60),
        max_expire_after: seconds(3600),
    };
    assert_eq!(strict, expected);
    assert_eq!((&*plain.storage_id, plain.is_default), ("plain", false));
    assert_eq!((plain.expire_after, plain.max_expire_after), (None, None));

    let upload = async |expire_after| {
        let file = FileMetadata {
            file_name: "a.pdf".into(),
            expire_after,
            ..FileMetadata::default()
        };
        let messages = vec![open_file(file), chunk(0, b"abc"), finish()];
        gateway.upload(messages).await
    };
    for (asked, kept) in [(None, 60), (seconds(3600), 3600)] {
        let upload = upload(asked).await.unwrap();
        let (updated, expires) = (upload.updated_at.unwrap(), upload.expires_at.unwrap());
        assert_eq!(expires.seconds - updated.seconds, kept);
        assert_eq!(upload.file.unwrap().expire_after, seconds(kept));
    }
    let nanos = Some(prost_types::Duration {
        seconds: 1,
        nanos: 1,
    });
    for wrong in [seconds(3601), seconds(0), seconds(-1), nanos] {
        let refused = upload(wrong).await.unwrap_err();
        assert_eq!(reason(&refused).1, "INVALID_FIELD", "{wrong:?}");
        assert!(refused.message().contains("expire_after"), "{refused:?}");
    }
}

#[tokio::test]
async fn keys_follow_the_template_of_the_storage() {
    let Some(s3) = common::s3().await else { return };
    let mut storage = s3.storage(S3Profile::Compatible);
    storage.options.prefix = "in".into();
    storage.options.key = "{tenant}/{yyyy}/{mm}/{upload_id}/{name}".into();
    let gateway = TestGateway::with(|config| config.storage = vec![storage]).await;
    let messages = vec![open("später.bin", None), chunk(0, b"abc"), finish()];
    let upload = gateway.upload(messages).await.unwrap();
    let key = upload.object.unwrap().key;
    let names: Vec<&str> = key.split('/').collect();
    let [prefix, tenant, year, month, id, name] = names.try_into().unwrap();
    // Without authentication there is no tenant.
    assert_eq!((prefix, tenant), ("in", "_"));
    assert_eq!((id, name), (&*upload.upload_id, "sp_ter.bin"));
    assert!(year.len() == 4 && month.len() == 2, "{key}");
}
