//! Whether clients can use signed URLs: a signed PUT and a signed GET, in plain HTTP and without the credentials.

use std::time::Duration;

use bytes::Bytes;
use upload_gateway_core::{
    blobs::{
        BlobStore, NewObject,
        sign::{ReadVerb, SignedRequest, ToSign},
    },
    error::Error,
};

use super::{
    advice::{key, of_code, of_unreachable},
    report::{Check, Fix},
    step::Step,
};
use crate::{
    blobs::{Refusal, SignedAnswer, StoreSettings, in_words, send_signed},
    serve::SystemClock,
};

const NAME: &str = "use signed URLs";

/// How long a signed download is valid.
const LIFETIME: Duration = Duration::from_secs(300);

/// Puts `object` with a signed request, reads it with another one, and deletes it.
pub(super) async fn check(
    subject: &str,
    storage: &str,
    settings: &dyn StoreSettings,
    store: &dyn BlobStore,
    object: &NewObject,
    content: &'static [u8],
) -> Check {
    let transfer = Transfer {
        subject,
        storage,
        settings,
    };
    let result = transfer
        .run(store, object, Bytes::from_static(content))
        .await;
    // It may exist although an answer says otherwise. A failure to delete is reported by the check of objects.
    let _ = store.delete(&object.key).await;
    result.unwrap_or_else(|problem| problem)
}

/// The signed requests of a storage.
struct Transfer<'a> {
    subject: &'a str,
    storage: &'a str,
    settings: &'a dyn StoreSettings,
}

// === impl Transfer ===

impl Transfer<'_> {
    async fn run(
        &self,
        store: &dyn BlobStore,
        object: &NewObject,
        content: Bytes,
    ) -> Result<Check, Check> {
        let size = content.len() as u64;
        let put = ToSign::PutObject { object, size };
        let get = ToSign::Read {
            verb: ReadVerb::Get,
            key: &object.key,
            file_name: "doctor-probe.txt",
            mime: &object.mime,
            lifetime: LIFETIME,
        };
        let put = store.sign(&put, &SystemClock).await;
        let put = put.map_err(|error| self.unsigned(&error))?;
        let get = store.sign(&get, &SystemClock).await;
        let get = get.map_err(|error| self.unsigned(&error))?;
        self.send("PUT", &put, content.clone()).await?;
        let read = self.send("GET", &get, Bytes::new()).await?;
        if read.body != content {
            let found = "the signed GET returned bytes that differ from those of the signed PUT";
            return Err(Check::failed(self.subject, NAME, found).with(self.at_endpoint()));
        }
        let (_, url) = self.address(&get);
        Ok(Check::ok(
            self.subject,
            NAME,
            format!("a signed PUT and a signed GET work at {url}"),
        ))
    }

    async fn send(
        &self,
        verb: &str,
        request: &SignedRequest,
        body: Bytes,
    ) -> Result<SignedAnswer, Check> {
        let (url_key, url) = self.address(request);
        let answer = send_signed(request, body, self.settings.ca_file()).await;
        let answer = answer.map_err(|problem| {
            // Callers may reach what this machine does not.
            let found = format!("this machine cannot send a signed {verb} to {url}: {problem}");
            let fix = of_unreachable(&problem, &url_key, &url, &key(self.storage, "ca_file"));
            Check::warning(self.subject, NAME, found).with(fix)
        })?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let status = answer.status.as_u16();
        let code = answer.code.as_deref();
        let says = code.map_or_else(
            || format!("status {status}"),
            |code| format!("{code} (status {status})"),
        );
        if code == Some("NotImplemented") {
            let why = format!("the store has no conditional put: {says}");
            return Err(Check::not_checked(self.subject, NAME, why));
        }
        let fix = match code {
            // The credentials work without a signature in the URL.
            Some("SignatureDoesNotMatch" | "AuthenticationFailed") => self.at_endpoint(),
            Some(code) => of_code(code, Step::PutObject, self.storage, &Refusal::default()),
            None => self.at_endpoint(),
        };
        let found = format!("{url} answers {says} to a signed {verb}");
        Err(Check::failed(self.subject, NAME, found).with(fix))
    }

    /// The gateway has no credential that can sign.
    fn unsigned(&self, error: &Error) -> Check {
        Check::warning(
            self.subject,
            NAME,
            format!(
                "nothing can be signed, so files can only be sent through the gateway: {}",
                in_words(error)
            ),
        )
        .with(Fix::key(
            key(self.storage, "account_key"),
            "set it, or give the identity the role Storage Blob Delegator on the account",
        ))
    }

    fn at_endpoint(&self) -> Fix {
        Fix::key(
            self.url_key(),
            "it must lead to the store without a change of host, path, query and headers: all of them are signed",
        )
    }

    /// The key with the address that clients use.
    fn url_key(&self) -> String {
        let endpoints = self.settings.endpoints();
        let is_public = endpoints.iter().any(|(name, _)| *name == "public_endpoint");
        key(
            self.storage,
            if is_public {
                "public_endpoint"
            } else {
                "endpoint"
            },
        )
    }

    /// That key and the address.
    fn address(&self, request: &SignedRequest) -> (String, String) {
        let url = url::Url::parse(&request.url);
        let origin = url.map(|url| url.origin().ascii_serialization());
        (self.url_key(), origin.unwrap_or_default())
    }
}
