//! Set-ups with an S3 storage.

use std::time::Duration;

use aws_sdk_s3::config::Credentials;
use axum::http::request::Parts;
use tempfile::TempDir;

use super::{
    super::stand_in::{Answer, Behaviour, StandIn, answer, refusal},
    Setups,
};
use crate::common::{
    self, OpaqueEtags, S3Backend, free_port,
    layer::Protocol,
    odd_store::{Habit, OddStore},
};

pub(super) async fn setups() -> Option<Setups> {
    let s3 = common::s3().await?;
    let (toml, mut setups) = (s3.toml(), Setups::default());
    let with = |from: &str, to: &str| {
        assert!(toml.contains(from), "{from}: {toml}");
        toml.replace(from, to)
    };
    let bucket = with(&s3.bucket, "no-such-bucket");
    setups.add("the bucket does not exist", bucket);
    setups.add("the region is wrong", with("us-east-1", "eu-west-1"));
    setups.add(
        "the access key id is wrong",
        with(s3.access_key, "other-access-key"),
    );
    setups.add(
        "the secret access key is wrong",
        with(s3.secret_key, "hunter2"),
    );
    let closed = format!("http://127.0.0.1:{}", free_port());
    setups.add(
        "the port in `endpoint` is wrong",
        with(&s3.endpoint, &closed),
    );
    let https = s3.endpoint.replace("http://", "https://");
    setups.add(
        "`endpoint` requires TLS and the store has none",
        with(&s3.endpoint, &https),
    );
    setups.add(
        "`etags` is `opaque` although they are MD5s",
        format!("{toml}etags = \"opaque\"\n"),
    );
    setups.add(
        "the bucket has no CORS rule",
        format!("[rest]\ncors_origins = [\"https://app.example\"]\n{toml}"),
    );
    setups.add(
        "`public_endpoint` cannot be reached",
        format!("{toml}public_endpoint = \"{closed}\"\n"),
    );
    let opaque = OpaqueEtags::start(&s3).await;
    setups.add(
        "`etags` is `md5` although they are not",
        with(&s3.endpoint, &opaque.endpoint),
    );
    setups.keep(opaque);
    let keys = Credentials::from_keys(s3.access_key, s3.secret_key, None);
    let dropping = Habit::DropsChecksums(Some(keys));
    let dropping = OddStore::start(&s3.endpoint, Protocol::S3, dropping).await;
    setups.add(
        "`integrity` is `crc64nvme` although the store ignores it",
        with(&s3.endpoint, &dropping.endpoint) + "integrity = \"crc64nvme\"\n",
    );
    setups.keep(dropping);

    let renaming = Behaviour {
        renames_host: true,
        ..Behaviour::default()
    };
    let renaming = StandIn::start(&s3.endpoint, renaming).await;
    setups.add(
        "a proxy at `public_endpoint` changes the host",
        format!("{toml}public_endpoint = \"{}\"\n", renaming.endpoint),
    );
    let ahead = Behaviour {
        ahead: Duration::from_secs(600),
        ..Behaviour::default()
    };
    let ahead = StandIn::start(&s3.endpoint, ahead).await;
    setups.add(
        "the clock of this machine is late",
        with(&s3.endpoint, &ahead.endpoint),
    );
    setups.keep((renaming, ahead));
    setups.extend(tls(&s3).await);
    setups.extend(answers(&s3).await);
    setups.keep(s3);
    Some(setups)
}

/// A store with TLS.
async fn tls(s3: &S3Backend) -> Setups {
    let mut setups = Setups::default();
    let directory = TempDir::new().unwrap();
    let server = StandIn::with_tls(directory.path()).await;
    let ca_file = directory.path().join("authority.pem");
    let trusting = |endpoint: &str| {
        format!(
            "{}ca_file = \"{}\"\n",
            s3.toml().replace(&s3.endpoint, endpoint),
            ca_file.display()
        )
    };
    let plain = server.endpoint.replace("https://", "http://");
    setups.add(
        "`endpoint` lacks TLS that the store requires",
        trusting(&plain),
    );
    let untrusting = s3.toml().replace(&s3.endpoint, &server.endpoint);
    setups.add("the authority of the store is not trusted", untrusting);
    let other = server.endpoint.replace("localhost", "127.0.0.2");
    setups.add(
        "the certificate of the store is for another name",
        trusting(&other),
    );
    setups.keep((server, directory));
    setups
}

/// Answers that the real store does not give.
async fn answers(s3: &S3Backend) -> Setups {
    let mut setups = Setups::default();
    let all: [(&str, Answer); 12] = [
        ("the bucket is in another region of AWS", |_| {
            let mut redirect = refusal(301, "PermanentRedirect");
            let region = "eu-central-1".parse().unwrap();
            redirect.headers_mut().insert("x-amz-bucket-region", region);
            Some(redirect)
        }),
        ("the bucket is at another host", |_| {
            let body = "<Error><Code>PermanentRedirect</Code><Endpoint>media.s3.store.example</Endpoint></Error>";
            Some(answer(301, body))
        }),
        ("the store refuses the time of requests", |_| {
            Some(refusal(403, "RequestTimeTooSkewed"))
        }),
        ("a web server is at `endpoint`", |_| {
            Some(answer(404, "<html>no such page</html>"))
        }),
        ("the credentials may not see the bucket", |head| {
            let is_bucket = head.uri.path().trim_matches('/').split('/').count() == 1;
            is_bucket.then(|| refusal(403, "AccessDenied"))
        }),
        ("the credentials may not delete", |head| {
            (head.method == "DELETE" && !has(head, "uploadId"))
                .then(|| refusal(403, "AccessDenied"))
        }),
        ("the credentials may not list multipart uploads", |head| {
            (head.method == "GET" && has(head, "uploads")).then(|| refusal(403, "AccessDenied"))
        }),
        ("the store has no conditional put", |head| {
            head.headers
                .contains_key("if-none-match")
                .then(|| refusal(501, "NotImplemented"))
        }),
        ("a lifecycle rule removes parts too early", |head| {
            let rule = "<LifecycleConfiguration><Rule><ID>a</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
                <AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>\
                </Rule></LifecycleConfiguration>";
            has(head, "lifecycle").then(|| answer(200, rule))
        }),
        ("versioning is on", |head| {
            let versioning =
                "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
            has(head, "versioning").then(|| answer(200, versioning))
        }),
        ("object lock is on", |head| {
            let lock = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
                <Mode>COMPLIANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
            has(head, "object-lock").then(|| answer(200, lock))
        }),
        (
            "the credentials may not see the rules of the bucket",
            |head| {
                let is_rule = ["lifecycle", "versioning", "object-lock"]
                    .iter()
                    .any(|name| has(head, name));
                is_rule.then(|| refusal(403, "AccessDenied"))
            },
        ),
    ];
    for (name, answer) in all {
        let behaviour = Behaviour {
            answer,
            ..Behaviour::default()
        };
        let server = StandIn::start(&s3.endpoint, behaviour).await;
        setups.add(name, s3.toml().replace(&s3.endpoint, &server.endpoint));
        setups.keep(server);
    }
    setups
}

/// Whether the query has this parameter.
fn has(head: &Parts, name: &str) -> bool {
    let query = head.uri.query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(name))
}
