//! What S3 says of a bucket, for the diagnosis of a set-up.

use std::{error::Error as StdError, time::Duration};

use async_trait::async_trait;
use aws_config::{BehaviorVersion, Region, retry::RetryConfig};
use aws_sdk_s3::{
    Client,
    config::{IdentityCache, http::HttpResponse},
    error::{ProvideErrorMetadata, SdkError},
    types::{
        BucketVersioningStatus, DefaultRetention, ExpirationStatus, LifecycleRule,
        ObjectLockEnabled,
    },
};
use upload_gateway_core::error::Result;

use super::{
    DEFAULT_REGION, S3Config, S3Store,
    credentials::CachedCredentials,
    fault::{answer_of, header, status},
    http::{SdkClient, timeouts},
};
use crate::{
    blobs::{Inspect, Refusal},
    seen::{Seen, Unseen},
};

/// The header with the region of a bucket.
const REGION: &str = "x-amz-bucket-region";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Codes of stores that do not have a setting.
const NOT_OFFERED: [&str; 4] = [
    "MethodNotAllowed",
    "NotImplemented",
    "NotSupported",
    "XNotImplemented",
];

/// A bucket.
#[derive(Debug)]
pub(super) struct Inspection {
    client: Client,
    bucket: String,
    region: String,
    endpoint: Option<String>,
    credentials: CachedCredentials,
    has_configured_credentials: bool,
    http_client: SdkClient,
}

// === impl Inspection ===

impl Inspection {
    /// As [`S3Store::connect`].
    pub(super) async fn new(config: S3Config) -> Result<Self> {
        let http_client = S3Store::http_client(&config)?;
        let store = S3Store::connect(config.clone()).await?;
        let region = store.client.config().region().map(ToString::to_string);
        Ok(Self {
            bucket: config.bucket,
            region: region.unwrap_or_else(|| DEFAULT_REGION.into()),
            endpoint: config.endpoint.map(|endpoint| endpoint.to_string()),
            has_configured_credentials: config.access_key_id.is_some(),
            credentials: store.credentials,
            client: store.client,
            http_client,
        })
    }

    /// Whether the store is AWS, whose security token service knows the credentials.
    fn is_aws(&self) -> bool {
        let host = |endpoint: &str| endpoint.split("://").nth(1).map(str::to_owned);
        self.endpoint.as_deref().and_then(host).is_none_or(|host| {
            let host = host.split(['/', ':']).next().unwrap_or_default();
            host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
        })
    }

    fn sts(&self) -> aws_sdk_sts::Client {
        let time_limit = upload_gateway_core::blobs::OPERATION_TIMEOUT;
        let config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts(time_limit, time_limit))
            .identity_cache(IdentityCache::no_cache())
            .credentials_provider(self.credentials.clone())
            .http_client(self.http_client.clone());
        aws_sdk_sts::Client::from_conf(config.build())
    }
}

#[async_trait]
impl Inspect for Inspection {
    fn endpoint(&self) -> String {
        let aws = || {
            let suffix = if self.region.starts_with("cn-") {
                ".cn"
            } else {
                ""
            };
            format!("https://s3.{}.amazonaws.com{suffix}", self.region)
        };
        self.endpoint.clone().unwrap_or_else(aws)
    }

    async fn refusal(&self) -> Option<Refusal> {
        let list = self.client.list_objects_v2().bucket(&self.bucket);
        let error = list.max_keys(1).send().await.err()?;
        let answer = error.raw_response()?;
        let body = answer.body().bytes().unwrap_or_default();
        let body = String::from_utf8_lossy(body);
        let code = error.code().map(str::to_owned);
        Some(Refusal {
            code: code.unwrap_or_else(|| format!("status {}", answer.status())),
            message: error.message().map(str::to_owned),
            region: header(&error, REGION)
                .or_else(|| element(&body, "Region"))
                .or_else(|| expected_region(&body))
                .map(str::to_owned),
            endpoint: element(&body, "Endpoint").map(str::to_owned),
        })
    }

    async fn identity(&self) -> Seen<String> {
        if !self.is_aws() {
            let source = match self.has_configured_credentials {
                true => "access_key_id is set",
                false => "the SDK's default chain finds them",
            };
            let why = format!("only AWS reports whose the credentials are; {source}");
            return Err(Unseen::never(why));
        }
        match self.sts().get_caller_identity().send().await {
            Ok(identity) => Ok(identity.arn.unwrap_or_default()),
            Err(error) => {
                let code = error.code().map(str::to_owned);
                let code = code.map_or_else(
                    || "does not answer".into(),
                    |code| format!("answers {code}"),
                );
                Err(Unseen::never(format!(
                    "the security token service of AWS {code}"
                )))
            }
        }
    }

    async fn incomplete_lifetime(&self, prefix: &str) -> Seen<Option<Duration>> {
        let get = self.client.get_bucket_lifecycle_configuration();
        match get.bucket(&self.bucket).send().await {
            Ok(found) => Ok(shortest(found.rules(), prefix)),
            Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => Ok(None),
            Err(error) => Err(unseen(&error, "s3:GetLifecycleConfiguration")),
        }
    }

    async fn keeps_versions(&self) -> Seen<bool> {
        let get = self.client.get_bucket_versioning().bucket(&self.bucket);
        match get.send().await {
            Ok(found) => Ok(found.status == Some(BucketVersioningStatus::Enabled)),
            Err(error) if error.code() == Some("VersioningNotConfigured") => Ok(false),
            Err(error) => Err(unseen(&error, "s3:GetBucketVersioning")),
        }
    }

    async fn lock(&self) -> Seen<Option<String>> {
        let get = self.client.get_object_lock_configuration();
        match get.bucket(&self.bucket).send().await {
            Ok(found) => {
                let lock = found
                    .object_lock_configuration
                    .filter(|lock| lock.object_lock_enabled == Some(ObjectLockEnabled::Enabled));
                Ok(lock.map(|lock| {
                    let retention = lock.rule.and_then(|rule| rule.default_retention);
                    retention
                        .map_or_else(|| "no default retention".into(), |found| in_words(&found))
                }))
            }
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => Ok(None),
            Err(error) => Err(unseen(&error, "s3:GetBucketObjectLockConfiguration")),
        }
    }
}

fn unseen<E>(error: &SdkError<E, HttpResponse>, permission: &'static str) -> Unseen
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let why = answer_of(error);
    let is_refused = status(error) == Some(403);
    match error.code() {
        Some(code) if NOT_OFFERED.contains(&code) => {
            Unseen::never(format!("the store does not offer it: {why}"))
        }
        _ if is_refused => Unseen::without(permission, why),
        _ => Unseen::never(why),
    }
}

/// The shortest time after which an enabled rule aborts multipart uploads of some keys below `prefix`.
fn shortest(rules: &[LifecycleRule], prefix: &str) -> Option<Duration> {
    let days = rules.iter().filter_map(|rule| {
        let abort = rule.abort_incomplete_multipart_upload.as_ref()?;
        let applies = rule.status == ExpirationStatus::Enabled && meets(prefix_of(rule), prefix);
        abort.days_after_initiation.filter(|_| applies)
    });
    let days = days.filter_map(|days| u32::try_from(days).ok()).min()?;
    Some(DAY * days)
}

/// Whether some keys have both prefixes.
fn meets(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn prefix_of(rule: &LifecycleRule) -> &str {
    let filter = rule.filter.as_ref();
    let of_filter = filter.and_then(|filter| {
        let all = filter.and.as_ref().and_then(|and| and.prefix.as_deref());
        filter.prefix.as_deref().or(all)
    });
    #[expect(deprecated, reason = "buckets may still have rules of this form")]
    of_filter.or(rule.prefix.as_deref()).unwrap_or_default()
}

fn in_words(retention: &DefaultRetention) -> String {
    let mode = retention
        .mode
        .as_ref()
        .map_or("default", |mode| mode.as_str());
    match (retention.days, retention.years) {
        (Some(days), _) => format!("{mode} retention of {days} days"),
        (_, Some(years)) => format!("{mode} retention of {years} years"),
        _ => format!("{mode} retention"),
    }
}

/// The text of the first element with this name.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    (!text.is_empty()).then_some(text)
}

/// The region in the message of AWS: `the region 'a' is wrong; expecting 'b'`.
fn expected_region(body: &str) -> Option<&str> {
    const QUOTES: [&str; 5] = ["'", "\"", "&#39;", "&#34;", "&quot;"];
    let (_, rest) = body.split_once("expecting ")?;
    let named = QUOTES.iter().find_map(|quote| {
        let (region, _) = rest.strip_prefix(quote)?.split_once(quote)?;
        Some(region)
    });
    named.filter(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        AbortIncompleteMultipartUpload, LifecycleRuleAndOperator, LifecycleRuleFilter,
    };

    use super::*;

    fn rule(prefix: &str, days: i32, status: ExpirationStatus) -> LifecycleRule {
        let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(days);
        LifecycleRule::builder()
            .status(status)
            .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
            .abort_incomplete_multipart_upload(abort.build())
            .build()
            .unwrap()
    }

    #[test]
    fn the_shortest_enabled_rule_for_some_keys_of_the_storage_counts() {
        let rules = [
            rule("", 7, ExpirationStatus::Enabled),
            rule("media/video/", 3, ExpirationStatus::Enabled),
            rule("media/", 2, ExpirationStatus::Disabled),
            rule("other/", 1, ExpirationStatus::Enabled),
        ];
        assert_eq!(shortest(&rules, "media/"), Some(DAY * 3));
        assert_eq!(shortest(&rules, "media/audio/"), Some(DAY * 7));
        assert_eq!(shortest(&rules, ""), Some(DAY));
        assert_eq!(shortest(&rules[1..3], "x/"), None);
        assert_eq!(shortest(&[], ""), None);
    }

    #[test]
    fn a_prefix_may_be_one_of_several_conditions() {
        let all = LifecycleRuleAndOperator::builder().prefix("other/").build();
        let mut rule = rule("", 1, ExpirationStatus::Enabled);
        rule.filter = Some(LifecycleRuleFilter::builder().and(all).build());
        assert_eq!(shortest(std::slice::from_ref(&rule), "media/"), None);
        assert_eq!(shortest(&[rule], "other/"), Some(DAY));
    }

    #[test]
    fn the_region_is_read_from_the_body() {
        let element = element("<Error><Region>eu-west-1</Region></Error>", "Region");
        assert_eq!(element, Some("eu-west-1"));
        for message in [
            "the region 'us-east-1' is wrong; expecting 'eu-west-1'</Message>",
            "the region &#39;a&#39; is wrong; expecting &#39;eu-west-1&#39;</Message>",
        ] {
            assert_eq!(expected_region(message), Some("eu-west-1"));
        }
        assert_eq!(expected_region("expecting nothing"), None);
        assert_eq!(expected_region("expecting ''"), None);
    }
}
