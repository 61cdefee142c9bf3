//! What a bucket or container is set to do by itself: removing parts, and keeping what is deleted.

use std::time::Duration;

use super::report::{Check, Fix};
use crate::{
    blobs::Inspect,
    seen::{Seen, Unseen},
};

/// The age at which a gateway ends an open upload.
const MAX_AGE: &str = "limits.upload_max_age_seconds";

const HOUR: u64 = 60 * 60;

/// Looks at the identity of the credentials and at the rules of the bucket. A gateway ends uploads that are older than `max_age`.
pub(super) async fn check(
    subject: &str,
    inspect: &dyn Inspect,
    prefix: &str,
    max_age: Duration,
) -> Vec<Check> {
    let (identity, lifetime, versions, lock) = tokio::join!(
        inspect.identity(),
        inspect.incomplete_lifetime(prefix),
        inspect.keeps_versions(),
        inspect.lock(),
    );
    vec![
        seen(
            subject,
            "identity of the credentials",
            identity,
            |name, identity| {
                Check::ok(
                    subject,
                    name,
                    format!("the credentials are those of {identity}"),
                )
            },
        ),
        seen(
            subject,
            "rule for incomplete uploads",
            lifetime,
            |name, lifetime| of_lifetime(subject, name, lifetime, max_age),
        ),
        seen(subject, "versioning", versions, |name, keeps| {
            match keeps {
            false => Check::ok(subject, name, "deleted files leave no versions"),
            true => Check::warning(
                subject,
                name,
                "versioning is on: the bytes of deleted and expired files stay, as noncurrent versions",
            )
            .with(Fix::advice("add a lifecycle rule with NoncurrentVersionExpiration to the bucket, or suspend versioning")),
        }
        }),
        seen(subject, "object lock", lock, |name, lock| {
            match lock {
            None => Check::ok(subject, name, "no lock keeps files from being deleted"),
            Some(lock) => Check::warning(
                subject,
                name,
                format!("objects are locked ({lock}): the bytes of deleted and expired files stay at least as long"),
            )
            .with(Fix::advice("use a bucket or container without a lock, unless the files must be kept")),
        }
        }),
    ]
}

fn seen<T>(
    subject: &str,
    name: &'static str,
    found: Seen<T>,
    check: impl FnOnce(&'static str, T) -> Check,
) -> Check {
    match found {
        Ok(found) => check(name, found),
        Err(unseen) => not_checked(subject, name, unseen),
    }
}

/// Something that could not be seen, and what would let it be seen.
pub(super) fn not_checked(subject: &str, name: &'static str, unseen: Unseen) -> Check {
    let check = Check::not_checked(subject, name, unseen.why);
    match unseen.permission {
        Some(permission) => check.with(Fix::advice(format!(
            "to check it, doctor needs {permission}"
        ))),
        None => check,
    }
}

fn of_lifetime(
    subject: &str,
    name: &'static str,
    lifetime: Option<Duration>,
    max_age: Duration,
) -> Check {
    let Some(lifetime) = lifetime else {
        let found =
            "no rule of the store removes the parts of incomplete uploads: the sweeper does";
        return Check::ok(subject, name, found);
    };
    let (has, needs) = (lifetime.as_secs() / HOUR, max_age.as_secs() / HOUR);
    if lifetime >= max_age {
        let found = format!(
            "the store removes the parts of incomplete uploads after {has} h, later than the gateway"
        );
        return Check::ok(subject, name, found);
    }
    let found = format!(
        "the store removes the parts of incomplete uploads after {has} h, and the gateway lets uploads be open for {needs} h: \
         their bytes are lost meanwhile"
    );
    let fix = Fix {
        key: Some(MAX_AGE.into()),
        value: Some(lifetime.as_secs().to_string()),
        advice: Some(format!(
            "or let the lifecycle rule of the bucket wait for {} days",
            needs.div_ceil(24)
        )),
        rule: None,
    };
    Check::warning(subject, name, found).with(fix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Outcome;

    #[test]
    fn a_rule_that_is_shorter_than_the_age_of_an_upload_is_a_warning() {
        let day = Duration::from_secs(24 * HOUR);
        let check = |days| of_lifetime("s", "n", days, day * 6);
        assert_eq!(check(None).result, Outcome::Ok);
        assert_eq!(check(Some(day * 6)).result, Outcome::Ok);
        let short = check(Some(day));
        assert_eq!(short.result, Outcome::Warning);
        assert_eq!(
            short.fix.key.as_deref(),
            Some("limits.upload_max_age_seconds")
        );
        assert_eq!(short.fix.value.as_deref(), Some("86400"));
    }

    #[test]
    fn what_is_not_visible_is_not_checked_and_names_the_permission() {
        let unseen = Unseen::without("s3:GetBucketVersioning", "the store answers AccessDenied");
        let check = not_checked("s", "versioning", unseen);
        assert_eq!(check.result, Outcome::NotChecked);
        let advice = check.fix.advice.unwrap();
        assert!(advice.contains("s3:GetBucketVersioning"), "{advice}");
    }
}
