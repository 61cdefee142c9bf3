//! Whether pages of the configured origins may send signed requests to a storage, and the CORS rule that it needs.

use std::path::Path;

use upload_gateway_core::{
    blobs::{
        BlobStore, NewObject,
        sign::{SignedRequest, ToSign},
    },
    error::Error,
    upload::{Md5, UploadId, keys},
};

use super::Report;
use crate::{
    blobs::{CorsRule, NotAllowed, preflight},
    cli::error::{CliError, chain},
    config::{CorsOrigin, StorageConfig},
    serve::SystemClock,
};

/// Stands for all origins in a preflight request.
const ANY_PAGE: &str = "https://any.example";

/// Sends the preflight requests of pages of these origins to the store, and reports which origins it allows. Nothing is
/// stored.
pub(super) async fn check(
    storage: &StorageConfig,
    store: &dyn BlobStore,
    origins: &[CorsOrigin],
    report: &Report,
) -> Result<(), CliError> {
    if origins.is_empty() {
        return Ok(());
    }
    let name = &format!("storage {}", storage.options.id);
    let requests = match signed(store, &storage.options.prefix).await {
        Ok(requests) => requests,
        Err(error) => {
            return report.failed(
                name,
                "sign requests",
                &chain(&error),
                storage.store.settings().advice(),
            );
        }
    };
    let ca_file = storage.store.settings().ca_file();
    let mut problems = Vec::new();
    for origin in origins {
        match ask(&requests, origin, ca_file).await {
            Ok(()) => report.good(
                name,
                &format!("pages of {} may send files", origin.as_str()),
            )?,
            Err(refused) => problems.push(format!("{}: {}", origin.as_str(), chain(&refused))),
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    let origins: Vec<_> = origins.iter().map(CorsOrigin::as_str).collect();
    let rule = storage.store.settings().cors_rule(&origins);
    report.failed(
        name,
        "allow pages to send files",
        &problems.join("; "),
        &advice(&rule),
    )
}

/// The first requests of uploads, which have all kinds of headers.
async fn signed(store: &dyn BlobStore, prefix: &str) -> Result<Vec<SignedRequest>, Error> {
    let upload_id = UploadId::generate(None);
    let object = &NewObject {
        size: Some(0),
        key: keys::object_key(prefix, &upload_id, "doctor-probe.txt"),
        mime: "text/plain".into(),
        md5: Some(Md5::of(b"")),
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

fn advice(rule: &CorsRule) -> String {
    format!(
        "set this CORS rule, in place of all others, as JSON ({}):\n      {}\n      or as XML ({}):\n      {}",
        rule.json_for, rule.json, rule.xml_for, rule.xml
    )
}
