//! Random queries, JSON bodies and headers.

use axum::http::{
    HeaderMap, HeaderValue,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE},
};
use serde_json::{Map, Value, json};
use upload_gateway_core::{
    error::{Error, Kind, Result},
    gateway::{Next, Report},
    upload::{DigestChoice, FileMetadata, Object, Timestamp, policy},
};

use super::{
    conditions::Validators,
    download::{Chosen, choose},
    parameters::{EditParameters, FileParameters, ListParameters, UpdateParameters, UrlParameters},
    request::{Parse, json, query, values},
};
use crate::{fuzzing::Input, status::http_answer};

/// Accepted parameters respect the limits, and convert back to the same parameters. All others are refused as an error of
/// the client.
pub fn http_parameters(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (text, body) = (input.text(), input.0);
    let mut all = match json(body) {
        Ok(all) => all,
        Err(error) => return check_error(&error),
    };
    match query(&text) {
        Ok(pairs) => all.extend(pairs),
        Err(error) => return check_error(&error),
    }
    let read = parse::<FileParameters>;
    match read(&all) {
        Ok(accepted) => {
            respects_limits(&accepted.0);
            let again = parameters(&accepted.0, &accepted.1);
            assert_eq!(read(&again).ok(), Some(accepted));
        }
        Err(error) => check_error(&error),
    }
    match parse::<UpdateParameters>(&all) {
        Ok((report, next)) => is_sorted(&report, next),
        Err(error) => check_error(&error),
    }
    match parse::<EditParameters>(&all) {
        Ok(next) => assert_ne!(next, Next::Nothing),
        Err(error) => check_error(&error),
    }
    let _ = parse::<UrlParameters>(&all).map_err(|error| check_error(&error));
    let _ = parse::<ListParameters>(&all).map_err(|error| check_error(&error));
}

/// An accepted range is inside the file and is not empty. The same value is no failure in a condition either.
pub fn http_range(bytes: &[u8]) {
    let mut input = Input(bytes);
    let size = input.number();
    let Ok(value) = HeaderValue::from_bytes(input.0) else {
        return;
    };
    if let Chosen::Part(range) = choose(&value, size) {
        assert!(range.start < range.end && range.end <= size);
    }
    conditions(&value, size);
}

/// Conditions with any value hold, or end in one of their two statuses.
fn conditions(value: &HeaderValue, size: u64) {
    let object = Object {
        bucket: String::new(),
        key: String::new(),
        etag: "tag".into(),
        size,
        md5: None,
        crc64nvme: None,
    };
    let validators = Validators::new(&object, Timestamp(size));
    for name in [
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ] {
        let refused = validators.refusal(&HeaderMap::from_iter([(name, value.clone())]));
        assert!(refused.is_none_or(|status| [304, 412].contains(&status.as_u16())));
    }
    validators.are_in_range(&HeaderMap::from_iter([(IF_RANGE, value.clone())]));
}

fn parse<T: Parse>(all: &Map<String, Value>) -> Result<T::Value> {
    values::<T>(all.clone())
}

fn check_error(error: &Error) {
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(!error.violations().is_empty(), "{error}");
    let _ = http_answer(error);
}

fn respects_limits(file: &FileMetadata) {
    assert!(policy::check_placeos_name(&file.file_name).is_ok());
    assert!(file.file_digest == DigestChoice::Md5 && file.file_id.as_deref() != Some(""));
}

/// The parameters of a file.
fn parameters(file: &FileMetadata, storage_id: &str) -> Map<String, Value> {
    let all = json!({
        "file_name": file.file_name,
        "file_size": file.file_size,
        "file_id": file.file_id,
        "file_mime": file.file_mime,
        "file_path": file.file_path,
        "permissions": file.permissions,
        "public": file.public,
        "tags": file.tags,
        "storage_id": storage_id,
    });
    json(all.to_string().as_bytes()).expect("an object")
}

fn is_sorted(report: &Report, next: Next) {
    let numbers = || report.claims.iter().map(|claim| claim.number);
    assert!(numbers().all(|number| number > 0));
    assert!(
        numbers()
            .zip(numbers().skip(1))
            .all(|(one, next)| one < next)
    );
    assert_ne!(report.resumable_id.as_deref(), Some(""));
    if let Next::Part(part) = next {
        assert!(part.number > 0);
    }
}
