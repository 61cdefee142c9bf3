//! What to do about an answer of a store, and about a server that cannot be reached.

use upload_gateway_core::error::Kind;

use super::{
    report::Fix,
    step::{Failed, Step},
};
use crate::{
    blobs::{Refusal, in_words},
    unreachable::Unreachable,
};

/// How many characters of a message of a store are printed.
const MAX_MESSAGE: usize = 300;

/// The key of a storage in the configuration.
pub(super) fn key(storage: &str, name: &str) -> String {
    format!("storage.{storage}.{name}")
}

/// What to do if `url`, the value of `url_key`, cannot be reached. `ca_key` names the authorities that are trusted.
pub(super) fn of_unreachable(problem: &Unreachable, url_key: &str, url: &str, ca_key: &str) -> Fix {
    let other_scheme = || match url.split_once("://") {
        Some(("http", rest)) => format!("https://{rest}"),
        Some(("https", rest)) => format!("http://{rest}"),
        Some(("redis", rest)) => format!("rediss://{rest}"),
        Some(("rediss", rest)) => format!("redis://{rest}"),
        _ => url.to_owned(),
    };
    let check = |advice: &str| Fix::key(url_key, advice);
    match problem {
        Unreachable::NeedsTls | Unreachable::NeedsPlain => Fix::set(url_key, &other_scheme()),
        Unreachable::Untrusted => Fix::key(
            ca_key,
            "name a PEM file with the authority that issued the certificate",
        ),
        Unreachable::OtherName => check("use a host name of the certificate"),
        Unreachable::Expired => {
            check("renew the certificate of the server, or correct the clock of this machine")
        }
        Unreachable::Refused => check("correct the host and the port, or start the server"),
        Unreachable::UnknownHost => {
            check("correct the host name, or the name resolution of this machine")
        }
        Unreachable::Silent => {
            check("check the address, the firewall and the proxies between this machine and it")
        }
        Unreachable::Other(_) => check("check the address, and what listens there"),
    }
}

/// What failed, and what to do.
pub(super) fn of_failed(failed: &Failed, storage: &str) -> (String, Fix) {
    let error = &failed.error;
    let fix = match (error.operator_code(), error.kind()) {
        (Some(code), _) => of_code(code, failed.step, storage, &Refusal::default()),
        (None, Kind::Unavailable | Kind::ResourceExhausted) => Fix::key(
            key(storage, "endpoint"),
            "the store is unreachable or overloaded: check name resolution, firewall and proxies",
        ),
        (None, Kind::DataLoss) => Fix::key(
            key(storage, "endpoint"),
            "bytes are changed between this machine and the store: check the proxies and the network between them",
        ),
        _ => Fix::key(
            key(storage, "endpoint"),
            format!("check what the store answers; {}", permission(failed.step)),
        ),
    };
    (in_words(error), fix)
}

/// How a store refuses a bucket, and what to do.
pub(super) fn of_refusal(refusal: &Refusal, storage: &str) -> (String, Fix) {
    let code = &refusal.code;
    let problem = match &refusal.message {
        Some(message) => {
            let message: String = message.chars().take(MAX_MESSAGE).collect();
            format!("the store answers {code}: {message}")
        }
        None => format!("the store answers {code}"),
    };
    (problem, of_code(code, Step::FindBucket, storage, refusal))
}

/// What to do about an error code of a store.
pub(super) fn of_code(code: &str, step: Step, storage: &str, refusal: &Refusal) -> Fix {
    let fix = |name: &str, advice: &str| Fix::key(key(storage, name), advice);
    if let Some(region) = expected_region(code, refusal) {
        return Fix::set(key(storage, "region"), region);
    }
    match code {
        "NoSuchBucket" | "InvalidBucketName" => {
            fix("bucket", "create the bucket, or correct its name")
        }
        "ContainerNotFound" | "ContainerDisabled" | "InvalidResourceName" => {
            fix("container", "create the container, or correct its name")
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "status 301"
        | "IllegalLocationConstraintException" => match &refusal.endpoint {
            Some(host) => Fix::set(key(storage, "endpoint"), &format!("https://{host}")),
            None => fix("region", "set region and endpoint to those of the bucket"),
        },
        "InvalidAccessKeyId" | "InvalidClientTokenId" | "XAdminUserNotFound" => fix(
            "access_key_id",
            "the store does not know this id: correct it, or the endpoint",
        ),
        "SignatureDoesNotMatch" => fix(
            "secret_access_key",
            "it does not belong to access_key_id; a wrong region, or a proxy that changes requests, can have this effect, too",
        ),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "account_key is not base64" => fix(
            "account_key",
            "it is not a key of account; a wrong clock of this machine can have this effect, too",
        ),
        "RequestTimeTooSkewed" => Fix::advice(
            "set the clock of this machine with NTP: no key is wrong, the signatures have a time that the store refuses",
        ),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
            fix("access_key_id", "replace the session token with a new one")
        }
        "no credentials" => fix(
            "access_key_id",
            "set it and secret_access_key, or give the SDK's default chain credentials that it finds",
        ),
        "no token" => fix(
            "account_key",
            "set it, or check the workload identity or the managed identity of this machine",
        ),
        "ResourceNotFound" | "AccountIsDisabled" => fix(
            "account",
            "correct the name of the account, and the endpoint if it is set",
        ),
        "AuthorizationFailure" | "AuthorizationSourceIPMismatch" => fix(
            "account_key",
            "it is not a key of account, or the firewall of the account refuses this machine",
        ),
        code if code.starts_with("status ") => fix(
            "endpoint",
            "an answer without an error code is not one of the store: check the address, and the proxies before it",
        ),
        code if code.starts_with("KMS.") => fix(
            "kms_key_id",
            "check the KMS key of the bucket, and allow kms:GenerateDataKey and kms:Decrypt",
        ),
        code if code.starts_with("KeyVault") => fix(
            "encryption_scope",
            "check the key vault of the account, and that the account may use its key",
        ),
        code if code.starts_with("Authorization") || code.starts_with("Insufficient") => {
            fix("account_key", &permission(step))
        }
        _ => fix("access_key_id", &permission(step)),
    }
}

/// The region that the store says is right, if its refusal is about the region.
fn expected_region<'a>(code: &str, refusal: &'a Refusal) -> Option<&'a str> {
    let is_of_region = matches!(
        code,
        "AuthorizationHeaderMalformed"
            | "AuthorizationQueryParametersError"
            | "IllegalLocationConstraintException"
            | "PermanentRedirect"
            | "TemporaryRedirect"
            | "status 301"
    );
    refusal.region.as_deref().filter(|_| is_of_region)
}

fn permission(step: Step) -> String {
    format!(
        "{} (Azure: role Storage Blob Data Contributor)",
        step.permission()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: &str, refusal: &Refusal) -> (String, Option<String>) {
        let fix = of_code(code, Step::DeleteObject, "media", refusal);
        (fix.key.unwrap_or_default(), fix.value)
    }

    #[test]
    fn each_code_names_the_key_to_change() {
        let refusal = Refusal::default();
        for (code, key) in [
            ("NoSuchBucket", "storage.media.bucket"),
            ("ContainerNotFound", "storage.media.container"),
            ("PermanentRedirect", "storage.media.region"),
            ("InvalidAccessKeyId", "storage.media.access_key_id"),
            ("SignatureDoesNotMatch", "storage.media.secret_access_key"),
            ("AuthenticationFailed", "storage.media.account_key"),
            ("RequestTimeTooSkewed", ""),
            ("KMS.DisabledException", "storage.media.kms_key_id"),
            ("AccessDenied", "storage.media.access_key_id"),
            (
                "AuthorizationPermissionMismatch",
                "storage.media.account_key",
            ),
        ] {
            assert_eq!(text(code, &refusal), (key.into(), None), "{code}");
        }
    }

    #[test]
    fn a_refusal_that_names_the_region_or_the_host_gives_the_value() {
        let refusal = Refusal {
            region: Some("eu-west-1".into()),
            endpoint: Some("b.s3.eu-west-1.amazonaws.com".into()),
            ..Refusal::default()
        };
        let (key, value) = text("PermanentRedirect", &refusal);
        assert_eq!(
            (&*key, value.as_deref()),
            ("storage.media.region", Some("\"eu-west-1\""))
        );
        assert_eq!(text("AccessDenied", &refusal).1, None);
        let refusal = Refusal {
            region: None,
            ..refusal
        };
        let (key, value) = text("PermanentRedirect", &refusal);
        let expected = Some("\"https://b.s3.eu-west-1.amazonaws.com\"");
        assert_eq!(
            (&*key, value.as_deref()),
            ("storage.media.endpoint", expected)
        );
    }

    #[test]
    fn the_other_scheme_is_a_value_that_works() {
        let fix = |problem, url| of_unreachable(&problem, "url", url, "ca").value.unwrap();
        assert_eq!(
            fix(Unreachable::NeedsTls, "http://a:1/x"),
            "\"https://a:1/x\""
        );
        assert_eq!(
            fix(Unreachable::NeedsPlain, "rediss://a:1"),
            "\"redis://a:1\""
        );
        let untrusted = of_unreachable(&Unreachable::Untrusted, "url", "https://a", "ca");
        assert_eq!(untrusted.key.as_deref(), Some("ca"));
    }
}
