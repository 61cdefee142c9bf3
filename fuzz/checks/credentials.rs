//! Random headers, queries and cookies with credentials.

use axum::http::{HeaderName, HeaderValue, Method, Request, header};

use super::{
    credential::{Credential, CredentialSource, Presented},
    rejection::Rejection,
};
use crate::fuzzing::Input;

/// A request presents one credential at most, which is not too long; and only one of GET or HEAD from this site presents one
/// that its user did not choose.
pub fn credential_headers(bytes: &[u8]) {
    let mut input = Input(bytes);
    let choice = input.byte();
    let method =
        [Method::GET, Method::HEAD, Method::POST, Method::DELETE][usize::from(choice % 4)].clone();
    let names = [
        header::AUTHORIZATION,
        HeaderName::from_static("x-api-key"),
        header::COOKIE,
        HeaderName::from_static("sec-fetch-site"),
    ];
    let query = input.text();
    let Ok(mut request) = Request::builder()
        .method(&method)
        .uri(format!("/uploads?{query}"))
        .body(())
        .map(|request| request.into_parts().0)
    else {
        return;
    };
    while !input.0.is_empty() {
        let name = names[usize::from(input.byte() % 4)].clone();
        if let Ok(value) = HeaderValue::from_bytes(input.text().as_bytes()) {
            request.headers.append(name, value);
        }
    }
    let sources: &[_] = match choice >> 6 {
        0 => &[],
        1 => &[CredentialSource::Query],
        2 => &[CredentialSource::Cookie],
        _ => &[CredentialSource::Query, CredentialSource::Cookie],
    };
    match Presented::of(&request, sources) {
        Ok(presented) => check(&presented, &method, sources),
        Err(rejection) => assert!(matches!(rejection, Rejection::Invalid(_)), "{rejection:?}"),
    }
}

fn check(presented: &Presented, method: &Method, sources: &[CredentialSource]) {
    if let Some(Credential::Token(text) | Credential::ApiKey(text)) = &presented.credential {
        assert!(text.len() <= 8 * 1024);
        assert!(
            text.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{text:?}"
        );
        // Whatever the text is, it is not shown.
        let kind = match presented.credential {
            Some(Credential::Token(_)) => "Token",
            _ => "ApiKey",
        };
        let is_ambient = presented.is_ambient;
        let shown = format!("Presented {{ credential: Some({kind}), is_ambient: {is_ambient} }}");
        assert_eq!(format!("{presented:?}"), shown);
    }
    if presented.is_ambient {
        assert!(presented.credential.is_some() && !sources.is_empty());
        assert!(matches!(*method, Method::GET | Method::HEAD));
    }
}
