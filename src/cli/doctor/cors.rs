//! Whether pages of the configured origins may send signed requests to a storage, and the CORS rule that it needs.

use std::path::Path;

use upload_gateway_core::{
    blobs::{
        BlobStore, NewObject,
        sign::{SignedRequest, ToSign},
    },
    error::Error,
    upload::{Integrity, Md5, UploadId, keys},
};

use super::report::{Check, Fix};
use crate::{
    blobs::{CorsRule, NotAllowed, in_words, preflight},
    config::{CorsOrigin, StorageConfig},
    serve::SystemClock,
    unreachable::Unreachable,
};

/// Stands for all origins in a preflight request.
const ANY_PAGE: &str = "https://any.example";

const NAME: &str = "allow pages to send files";

/// Sends the preflight requests of pages of these origins to the store, and reports which origins it allows. Nothing is
/// stored.
pub(super) async fn check(
    subject: &str,
    storage: &StorageConfig,
    store: &dyn BlobStore,
    origins: &[CorsOrigin],
) -> Vec<Check> {
    if origins.is_empty() {
        return Vec::new();
    }
    let settings = storage.store.settings();
    let requests = match signed(store, &storage.options.prefix).await {
        Ok(requests) => requests,
        // The check of signed URLs says what to do.
        Err(error) => return vec![Check::failed(subject, NAME, in_words(&error))],
    };
    let (mut checks, mut problems) = (Vec::new(), Vec::new());
    for origin in origins {
        match ask(&requests, origin, settings.ca_file()).await {
            Ok(()) => checks.push(Check::ok(
                subject,
                NAME,
                format!("pages of {} may send files", origin.as_str()),
            )),
            Err(refused) => problems.push(format!("{}: {}", origin.as_str(), in_short(&refused))),
        }
    }
    if !problems.is_empty() {
        let origins: Vec<_> = origins.iter().map(CorsOrigin::as_str).collect();
        let CorsRule { json_for, json } = settings.cors_rule(&origins);
        let advice = format!(
            "the bucket or account lacks these origins: set this CORS rule, in place of all others ({json_for}):"
        );
        let fix = Fix {
            key: Some("rest.cors_origins".into()),
            advice: Some(advice),
            rule: Some(json),
            ..Fix::default()
        };
        checks.push(Check::failed(subject, NAME, problems.join("; ")).with(fix));
    }
    checks
}

fn in_short(refused: &NotAllowed) -> String {
    match refused {
        NotAllowed::NoAnswer(source) => format!("{refused}: {}", Unreachable::of(&**source)),
        _ => refused.to_string(),
    }
}

/// The first requests of uploads, which have all kinds of headers.
async fn signed(store: &dyn BlobStore, prefix: &str) -> Result<Vec<SignedRequest>, Error> {
    let upload_id = UploadId::generate(None);
    let object = &NewObject {
        size: Some(0),
        key: keys::object_key(prefix, &upload_id, "doctor-probe.txt"),
        mime: "text/plain".into(),
        md5: Some(Md5::of(b"")),
        crc64nvme: None,
        integrity: Integrity::Md5,
        record: Some("x".into()),
        upload_id,
        placement: Box::default(),
    };
    let mut requests = Vec::new();
    for request in [
        ToSign::PutObject { object, size: 0 },
        ToSign::Begin { object },
    ] {
        let signed = store.sign(&request, &SystemClock).await?;
        if !signed.url.is_empty() {
            requests.push(signed);
        }
    }
    Ok(requests)
}

async fn ask(
    requests: &[SignedRequest],
    origin: &CorsOrigin,
    ca_file: Option<&Path>,
) -> Result<(), NotAllowed> {
    let page = if origin.is_any() {
        ANY_PAGE
    } else {
        origin.as_str()
    };
    for request in requests {
        preflight(request, page, ca_file).await?;
    }
    Ok(())
}
